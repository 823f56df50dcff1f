"""Small films for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_frames(count: int, *, width: int = 48, height: int = 32, red: int = 40) -> np.ndarray:
    """uint8 [count, height, width, 3]: soft colours with a bright square that moves."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 2 + red, y * 3, (x + y)], -1).astype(np.uint8)
    frames = np.repeat(base[None], count, 0)
    for i, frame in enumerate(frames):
        frame[8:20, 4 + i % 20 : 16 + i % 20] = (250, 220, 200)
    return frames


def write_film(
    path: Path,
    frames: np.ndarray,
    *,
    milliseconds: Sequence[int] | None = None,
    sound: bool = True,
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    """Writes uint8 [n, H, W, 3] as a film of 25 frames a second, or at these times, with a tone.

    `aspect` is the width of a pixel over its height.
    """
    count, height, width = frames.shape[:3]
    times = [40 * i for i in range(count)] if milliseconds is None else milliseconds
    with av.open(str(path), "w", options=options) as output:
        video = output.add_stream("libx264", rate=Fraction(25))
        video.width, video.height = width, height
        # Odd sides have whole colours.
        video.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        video.options = {"crf": "4", "preset": "ultrafast", "g": "12"}
        if sound:
            audio = output.add_stream("aac", rate=16000, layout="mono")
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode())
        if sound:
            samples = 8000 * np.sin(np.arange(16 * (times[-1] + 40)) * 0.1)
            tone = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], "s16", "mono")
            tone.sample_rate, tone.pts = 16000, 0
            output.mux(audio.encode(tone))
            output.mux(audio.encode())
    return path


def sound_packets(path: Path) -> list[tuple[float, bytes]]:
    """When each packet of the sound begins, and what is in it."""
    with av.open(str(path)) as film:
        packets = film.demux(list(film.streams.audio)) if film.streams.audio else ()
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.pts is not None]
