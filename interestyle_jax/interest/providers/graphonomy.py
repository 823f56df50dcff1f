"""Masks by Graphonomy, the parser that the paper names (section 4.1), at six scales and mirrored.

Source: Graphonomy's `exp/inference/inference.py`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.masks import Masks, check_image, label_indices, pick
from interestyle_jax.weights import load_weights, resolve_weights

LABELS = (
    "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks",
    "pants", "torso skin", "scarf", "skirt", "face", "left arm", "right arm", "left leg",
    "right leg", "left shoe", "right shoe",
)  # fmt: skip
SCALES = (1.0, 0.5, 0.75, 1.25, 1.5, 1.75)


class GraphonomyProvider:
    """Labels are CIHP's 20; see `MaskProvider`.

    Each new size of image compiles the network once a scale.
    """

    name = "graphonomy"
    labels = LABELS

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        classes: Sequence[str] = ("hair", "face"),
        scales: Sequence[float] = SCALES,
    ):
        """Loads the network.

        Args:
          weights: weight directory of family `graphonomy`.
          classes: labels of the interest region; "hat" and "sunglasses" also belong to a head.
          scales: the official ones, or (1.0,) for a quick look.

        Raises:
          InputError: no or other weights, unknown classes.
        """
        if weights is None:
            raise InputError(
                "--weights: graphonomy needs its converted checkpoint: "
                "interestyle convert inference.pth weights/graphonomy"
            )
        self._interest = label_indices(classes, LABELS)
        self._face = label_indices(("face",), LABELS)
        self.scales = tuple(scales)
        module, self._variables = load_weights(resolve_weights(weights)).part("parser")
        self._mean_logits = jax.jit(
            lambda variables, x, height, width: module.apply(
                variables, x, height, width, method="two_sided"
            ),
            static_argnums=(2, 3),
        )

    def logits(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 20"]:
        """Logits, averaged over both sides and summed over the scales.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          float32 [H, W, 20].
        """
        check_image(image)
        total: Any = 0
        height, width = image.shape[:2]
        for x in network_inputs(image, scales=self.scales):
            total = total + self._mean_logits(self._variables, jnp.asarray(x), height, width)
        return np.asarray(total[0])

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; the face is CIHP's label 13."""
        labels = self.logits(image).argmax(-1).astype(np.uint8)
        return Masks(labels, pick(labels, self._interest), pick(labels, self._face))


def network_inputs(
    image: UInt8[np.ndarray, "H W 3"], *, scales: Sequence[float] = SCALES
) -> Iterator[Float[np.ndarray, "1 _ _ 3"]]:
    """The network's input for each scale: float32 [1, h, w, 3], BGR in [-1, 1].

    Resized by PIL's bilinear filter to the whole part of the scaled size, at least one pixel.
    """
    height, width = image.shape[:2]
    for scale in scales:
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        scaled = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        x = np.asarray(scaled, np.float32) * 2 / 255 - 1
        yield np.ascontiguousarray(x[None, ..., ::-1])
