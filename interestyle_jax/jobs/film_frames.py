"""Frames of a film as a job's source, and what an encoder sees of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import file_error
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.jobs.aligned_faces import AlignedFace
from interestyle_jax.jobs.encoder_inputs import SMALLEST_ALIGNED, EncoderInput, EncoderInputs
from interestyle_jax.jobs.job import MAX_WITHOUT_FACE, Item
from interestyle_jax.photos.ffhq_alignment import align, quad_points
from interestyle_jax.video.films import Film, FrameReader


def frame_name(number: int) -> str:
    """The name of a frame's results: "000012"."""
    return f"{number:06d}"


class FilmFrames:
    """Some frames of a film, in order, each with what else its results depend on."""

    def __init__(self, film: Film, quads: Float[np.ndarray, "n 4 2"] | None = None):
        """Takes all frames, or those with a quad.

        Args:
          film: gives the frames.
          quads: [n, 4, 2], NaN of frames that are left out; None takes all.
        """
        self._film, self._quads = film, quads
        known = np.ones(len(film), bool) if quads is None else np.isfinite(quads).all((1, 2))
        self.numbers: Sequence[int] = np.flatnonzero(known).tolist()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Item:
        name = frame_name(self.numbers[index])
        return Item(index, name, f"{self._film.path}: frame {name}")

    def state(self, item: Item) -> dict[str, Any]:
        """File, length, time of change, and quad; raises InputError where the file is gone."""
        path = self._film.path
        try:
            found = path.stat()
        except OSError as error:
            raise file_error(error, f"{path}: cannot be read") from error
        state = {"file": f"{os.path.abspath(path)}: frame {item.name}", "bytes": found.st_size}
        state["modified"] = found.st_mtime_ns
        if self._quads is not None:
            state["follows"] = self._quads[int(item.name)].round(6).tolist()
        return state


class FrameInputs(EncoderInputs):
    """Loads frames for a model's encoder, or what they show inside of their quads.

    Attributes:
      size: side of aligned faces in pixels.
    """

    def __init__(
        self,
        model: Model,
        reader: FrameReader,
        quads: Float[np.ndarray, "n 4 2"] | None,
        *,
        keep_pixels: bool = False,
    ):
        """Takes the frames of `reader`, and where `quads` [n, 4, 2] are given, these squares."""
        super().__init__(model, None, keep_pixels=keep_pixels)
        self._reader, self._quads = reader, quads
        self.size = max(model.resolution, SMALLEST_ALIGNED)
        # A frame that cannot be used stays as it is.
        self.max_skipped = MAX_WITHOUT_FACE

    def load(self, item: Item) -> EncoderInput:
        """The image of a frame; raises InputError where it is unreadable."""
        pixels, face = self._reader(int(item.name)), None
        if self._quads is not None:
            height, width = pixels.shape[:2]
            points = quad_points(self._quads[int(item.name)])
            pixels, quad = align(pixels, points, size=self.size)
            face = AlignedFace(None, quad, None, 1, (width, height))
        image = encoder_input(pixels, self.shape)
        return EncoderInput(image, face, pixels if self._keep else None)


def film_path(film: Film) -> str:
    """A film's file, as options name it."""
    return str(Path(film.path).absolute())
