"""Films written: new frames at the times of another film's frames, with its sound."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.errors import InputError, MachineError, file_error, is_machine_failure
from interestyle_jax.video.films import Film, import_av, open_film

# x264's scale: 18 looks like the frames themselves.
CRF = "18"
# Containers that hold H.264; others become Matroska, which holds any sound.
_ENDINGS = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mov"}
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Matrices of swscale by FFmpeg's numbers of colour spaces; what is not said is read as BT.601.
_MATRICES = {1: "ITU709", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M"}


def film_ending(film: Film) -> str:
    """The ending of films made of this one: .mp4, .mov or .mkv."""
    return _ENDINGS.get(film.path.suffix.lower(), ".mkv")


class FilmWriter:
    """Writes frames as H.264 at the source's timestamps, its sound copied; whole or not at all.

    A context: after its end without an error the film is at `path`. Frames with an odd side get
    their last row or column twice, as H.264 for all players has even sides.
    """

    def __init__(self, path: Path, source: Film, *, size: tuple[int, int]):
        """Begins a film.

        Args:
          path: where it goes, with the ending of `film_ending`.
          source: gives timestamps, colours and sound.
          size: width and height of the frames.

        Raises:
          InputError: a sound that the container does not hold, or a path that cannot be written.
        """
        self._av, self.path, self._source, self._size = import_av(), path, source, size
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._count = 0
        # Of frames in the encoder, by their timestamps.
        self._ticks: dict[int, int] = {}
        self._input = open_film(source.path, self._av)
        try:
            self._output = self._av.open(
                str(self._temporary),
                "w",
                format=_FORMATS[path.suffix.lower()],
                # The same frames give the same bytes: no date, no random numbers.
                options={"fflags": "+bitexact"},
            )
            self._begin()
        except (self._av.FFmpegError, OSError) as error:
            self._abandon()
            raise self._failure(error) from error

    def _begin(self) -> None:
        given = self._input.streams.video[0].codec_context
        self._video = self._output.add_stream("libx264", rate=self._source.frame_rate)
        context = self._video.codec_context
        context.width, context.height = (side + side % 2 for side in self._size)
        context.pix_fmt, context.time_base = "yuv420p", self._source.time_base
        # Frames in the order in which they are shown: else MP4 loses uneven durations.
        context.options = {"crf": CRF, "bf": "0"}
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(given, name))
        shape = given.sample_aspect_ratio
        if shape:
            is_turned = (self._source.width, self._source.height) != (given.width, given.height)
            context.sample_aspect_ratio = 1 / shape if is_turned else shape
        self._matrix = _MATRICES.get(int(given.colorspace))
        self._sounds = {
            stream.index: self._output.add_stream_from_template(stream)
            for stream in self._input.streams.audio
        }
        self._output.start_encoding()
        self._packets = self._sound_packets()
        self._waiting = next(self._packets, None)

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            if self._count != len(self._source):
                raise ValueError(f"{self.path}: {self._count} of {len(self._source)} frames given")
            for packet in self._video.encode():
                self._mux_frame(packet)
            self._copy_sound(None)
            self._output.close()
            os.replace(self._temporary, self.path)
        except (self._av.FFmpegError, OSError) as failure:
            raise self._failure(failure) from failure
        finally:
            self._abandon()

    def write(self, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        """The next frame, uint8 RGB [H, W, 3].

        Raises:
          InputError: as on opening.
          MachineError: the disk is full or fails.
        """
        width, height = self._size
        padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._matrix)
        times, number = self._source.timestamps, self._count
        is_last = number + 1 == len(times)
        frame.pts, frame.time_base = int(times[number]), self._source.time_base
        self._ticks[frame.pts] = (
            self._source.last_ticks if is_last else int(times[number + 1] - times[number])
        )
        self._count += 1
        try:
            for packet in self._video.encode(frame):
                self._mux_frame(packet)
            self._copy_sound(float(frame.pts * frame.time_base))
        except (self._av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _mux_frame(self, packet: Any) -> None:
        # x264 does not know how long the last frame is shown.
        packet.duration = self._ticks.pop(packet.pts, packet.duration)
        self._output.mux(packet)

    def _sound_packets(self) -> Any:
        for packet in self._input.demux(list(self._input.streams.audio)) if self._sounds else ():
            # The last ones are empty.
            if packet.dts is not None:
                yield packet

    def _copy_sound(self, until: float | None) -> None:
        """Copies the sound up to a time in seconds, or all that is left."""
        while self._waiting is not None:
            packet = self._waiting
            if until is not None and float(packet.dts * packet.time_base) > until:
                return
            packet.stream = self._sounds[packet.stream.index]
            self._output.mux(packet)
            self._waiting = next(self._packets, None)

    def _abandon(self) -> None:
        for container in (getattr(self, "_output", None), self._input):
            if container is not None:
                try:
                    container.close()
                # What the file lacks is told already.
                except (self._av.FFmpegError, OSError):
                    pass
        self._temporary.unlink(missing_ok=True)

    def _failure(self, error: Any) -> InputError | MachineError:
        if isinstance(error, OSError) or is_machine_failure(error):
            return file_error(error, f"{self.path}: cannot be written")
        return InputError(f"{self.path}: cannot be written: {error.strerror}")
