"""Masks of persons by MediaPipe's selfie segmentation, which ships here (Apache-2.0, 256 x 256)."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.masks import Masks, check_image
from interestyle_jax.litert import LiteRTModel


class SelfieProvider:
    """Labels are background and person; see `MaskProvider`. It knows no face.

    The person, clothes and all, is the interest region: enough for a first run on portraits, wider
    than the face and hair of the paper.
    """

    name = "selfie"
    labels = ("background", "person")

    def __init__(self, *, threshold: float = 0.5):
        """Loads the network.

        Args:
          threshold: least probability of a person's pixel.

        Raises:
          InputError: LiteRT is not installed, or a threshold outside [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"--threshold: {threshold}, expected a probability from 0 to 1")
        self._threshold = threshold
        self._network = LiteRTModel("selfie_segmentation")

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; the network's 256 x 256 probabilities are resized to the image."""
        check_image(image)
        height, width = image.shape[:2]
        _, *size, _ = self._network.input_shape
        scaled = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        (probability,) = self._network(np.asarray(scaled, np.float32)[None] / 255)
        large = Image.fromarray(probability[0, ..., 0]).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        labels = (np.asarray(large) >= self._threshold).astype(np.uint8)
        return Masks(labels, labels[..., None] * np.uint8(255))
