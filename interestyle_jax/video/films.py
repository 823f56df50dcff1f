"""A film as frames: what it holds, whether it is whole, and its frames by number."""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.video.scenes import THUMBNAIL, change, find_cuts

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
)
# Frames that a reader keeps: threads ask for them a little out of order.
KEPT = 32
# A frame that lies so many ahead is looked up by its key frame.
FAR = 250
# Of its own length a whole film may lack so many seconds: containers round.
MISSING_SECONDS = 0.2


def is_film(path: str | Path) -> bool:
    """Whether a file is named as films are."""
    return Path(path).suffix.lower() in SUFFIXES


def import_av() -> Any:
    """PyAV; raises InputError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"films: need the package av: pip install 'interestyle_jax[video]' ({error})"
        ) from error
    return av


@dataclasses.dataclass(frozen=True)
class Film:
    """What a film holds.

    Attributes:
      path: the file.
      width: of a frame, upright, in pixels.
      height: of a frame, upright.
      time_base: seconds of one tick.
      timestamps: int64 [n], ticks, ascending; of films with a variable frame rate too.
      last_ticks: how long the last frame is shown.
      frame_rate: frames a second, on average.
      cuts: numbers of the frames that begin a new scene, without the first.
      num_sounds: sound tracks.
    """

    path: Path
    width: int
    height: int
    time_base: Fraction
    timestamps: np.ndarray
    last_ticks: int
    frame_rate: Fraction
    cuts: tuple[int, ...]
    num_sounds: int

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def seconds(self) -> Float[np.ndarray, " n"]:
        """When each frame is shown, [n]."""
        return self.timestamps.astype(np.float64) * float(self.time_base)

    @property
    def length(self) -> float:
        """Seconds from the first frame to the end of the last."""
        ticks = int(self.timestamps[-1] - self.timestamps[0]) + self.last_ticks
        return float(ticks * self.time_base)


def open_film(path: Path, av: Any) -> Any:
    """The open container of a film, a context; raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise _unreadable(path, error) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: has no pictures, expected a film")
    return container


def scan_film(path: str | Path) -> Film:
    """Decodes a film once, small, and says what is in it.

    Raises:
      InputError: PyAV is not installed, the file is no film, is cut off or damaged, its frames
        have no ascending timestamps, or change their size.
    """
    path, av = Path(path), import_av()
    timestamps: list[int] = []
    changes: list[float] = []
    last: np.ndarray | None = None
    sizes: set[tuple[int, int]] = set()
    ticks = num_packets = 0
    end = Fraction(0)
    with open_film(path, av) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        time_base = stream.time_base
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != stream.index:
                    continue
                num_packets += packet.size > 0
                for frame in packet.decode():
                    if frame.pts is None or (timestamps and frame.pts <= timestamps[-1]):
                        raise InputError(
                            f"{path}: frame {len(timestamps)} has no timestamp of its own"
                        )
                    if frame.is_corrupt:
                        raise InputError(f"{path}: frame {len(timestamps)} is damaged")
                    timestamps.append(frame.pts)
                    ticks = frame.duration or ticks
                    sizes.add((frame.width, frame.height)[:: -1 if frame.rotation % 180 else 1])
                    small = _thumbnail(frame)
                    if last is not None:
                        changes.append(change(last, small))
                    last = small
        except av.FFmpegError as error:
            raise InputError(
                f"{path}: is damaged after frame {len(timestamps)}: {error.strerror}"
            ) from error
        declared = Fraction(container.duration or 0, av.time_base)
        num_frames = stream.frames
        rate = stream.average_rate
        num_sounds = len(container.streams.audio)
    if not timestamps:
        raise InputError(f"{path}: holds no frame that can be read")
    if num_packets < num_frames or end < declared - Fraction(MISSING_SECONDS):
        raise InputError(
            f"{path}: is cut off: {len(timestamps)} frames up to {float(end):.2f} s, expected "
            f"{f'{num_frames} frames, ' if num_frames else ''}{float(declared):.2f} s"
        )
    if len(sizes) > 1:
        raise InputError(f"{path}: its frames have several sizes, expected one")
    steps = np.diff(timestamps)
    if not ticks:
        ticks = int(np.median(steps)) if len(steps) else 1
    (width, height) = sizes.pop()
    return Film(
        path=path,
        width=width,
        height=height,
        time_base=time_base,
        timestamps=np.array(timestamps, np.int64),
        last_ticks=int(ticks),
        frame_rate=rate or 1 / (int(np.median(steps) if len(steps) else 1) * time_base),
        cuts=find_cuts(changes),
        num_sounds=num_sounds,
    )


class FrameReader:
    """Frames of a film by number, for any number of threads; fast where they come in order.

    A context: it holds the file open. A few frames are in memory.
    """

    def __init__(self, film: Film):
        """Opens the file; raises InputError as `scan_film`."""
        self._film, self._av = film, import_av()
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._numbers = {int(t): i for i, t in enumerate(film.timestamps)}
        self._container: Any = None
        self._open()

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __call__(self, number: int) -> UInt8[np.ndarray, "H W 3"]:
        """Frame `number`, uint8 RGB [H, W, 3], upright.

        Raises:
          InputError: the film has changed since it was scanned.
        """
        with self._lock:
            if number in self._kept:
                return self._kept[number]
            try:
                return self._decode(number)
            except (self._av.FFmpegError, OSError) as error:
                raise InputError(
                    f"{self._film.path}: frame {number} cannot be read: {error.strerror}"
                ) from error

    def _open(self) -> None:
        self.close()
        self._container = open_film(self._film.path, self._av)
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._frames, self._next = self._container.decode(self._stream), 0

    def _decode(self, number: int) -> np.ndarray:
        if number < self._next or number > self._next + FAR:
            self._seek(number)
        for frame in self._frames:
            found = self._numbers.get(frame.pts)
            if found is None:
                break
            self._next = found + 1
            # Those just before are asked for by other threads, or were.
            if found > number - KEPT // 2:
                self._keep(found, _upright(frame))
            if found >= number:
                break
        if number not in self._kept:
            raise InputError(f"{self._film.path}: frame {number} is not there any more")
        return self._kept[number]

    def _seek(self, number: int) -> None:
        """Goes to a key frame at or before a frame; the beginning where its index misleads."""
        self._container.seek(int(self._film.timestamps[number]), stream=self._stream)
        first = next(self._container.decode(self._stream), None)
        found = None if first is None else self._numbers.get(first.pts)
        if found is None or found > number:
            self._open()
            return
        self._keep(found, _upright(first))
        self._frames, self._next = self._container.decode(self._stream), found + 1

    def _keep(self, number: int, pixels: np.ndarray) -> None:
        self._kept[number] = pixels
        self._kept.move_to_end(number)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def read_frames(film: Film) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """All frames in order, uint8 [H, W, 3] each."""
    with contextlib.closing(FrameReader(film)) as reader:
        for number in range(len(film)):
            yield reader(number)


def _upright(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3], turned as the film says that it is shown."""
    pixels = frame.to_ndarray(format="rgb24")
    # `rotation` is in degrees, counterclockwise.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _thumbnail(frame: Any) -> np.ndarray:
    side = THUMBNAIL
    return frame.reformat(width=side, height=side, format="rgb24").to_ndarray()


def _unreadable(path: Path, error: Any) -> Exception:
    if isinstance(error, OSError):
        return file_error(error, f"{path}: cannot be read")
    return InputError(f"{path}: is no film that can be read, or is cut off: {error.strerror}")
