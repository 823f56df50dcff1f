"""What an encoder sees of image files: whole images, or the aligned faces of photographs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from interestyle_jax.data.images import read_image
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.resize import Shape, encoder_input
from interestyle_jax.jobs.aligned_faces import AlignedFace, Alignment, Faces
from interestyle_jax.jobs.job import MAX_SKIPPED, MAX_WITHOUT_FACE, Item, stack_rows

# Faces are aligned to the generator's resolution, but not below what encoders see.
SMALLEST_ALIGNED = 256


class EncoderInput(NamedTuple):
    """An image on its way through a job.

    Attributes:
      image: float32 [*shape, 3] in [-1, 1], as the encoder takes it.
      face: the face that it shows, or None of images that are not aligned.
      pixels: uint8 [H, W, 3], the whole image or the aligned face, where it is kept.
    """

    image: np.ndarray
    face: AlignedFace | None
    pixels: np.ndarray | None = None


class EncoderInputs:
    """Loads images for a model's encoder; for any number of threads.

    Attributes:
      shape: height and width of the images.
      faces: aligns and pastes back, or None where images are taken as they are.
      pasted: whether results are pasted back.
      max_skipped: share of the images that may be skipped, where nothing else is asked for.
    """

    def __init__(
        self,
        model: Model,
        alignment: Alignment | None,
        *,
        keep_pixels: bool = False,
        shape: Shape | None = None,
    ):
        """Loads what finds faces.

        Args:
          model: has an encoder, or where `shape` is given a generator alone.
          alignment: None takes images as they are.
          keep_pixels: keep the image in full size.
          shape: height and width of the images; None: those of the encoder's input.

        Raises:
          InputError: an alignment that does not fit, or an encoder of images that are no squares.
        """
        self.shape, self._keep = model.input_shape if shape is None else shape, keep_pixels
        self.faces: Faces | None = None
        if alignment is not None:
            if self.shape[0] != self.shape[1]:
                size = f"{self.shape[0]} x {self.shape[1]} pixels"
                raise InputError(f"--align: the weights see {size}, no squares")
            self.faces = Faces(alignment, size=max(model.resolution, SMALLEST_ALIGNED))
        self.pasted = alignment is not None and alignment.paste_back
        self.max_skipped = MAX_SKIPPED if alignment is None else MAX_WITHOUT_FACE

    def load(self, item: Item) -> EncoderInput:
        """The image of a file; raises InputError where it is unreadable, or shows no face."""
        face = None if self.faces is None else self.faces.align(item.source)
        pixels = read_image(item.source) if face is None else face.image
        image = encoder_input(pixels, self.shape)
        needs_face = self.pasted and self.faces is not None and self.faces.alignment.mask
        if face is not None and not needs_face:
            face = face._replace(image=None)
        return EncoderInput(image, face, pixels if self._keep else None)

    def batch(self, rows: Sequence[EncoderInput | None]) -> Float[np.ndarray, "B h w 3"]:
        """The images of a batch, float32 [B, *shape, 3]; zeros in rows without one."""
        return stack_rows([row and row.image for row in rows], (*self.shape, 3))
