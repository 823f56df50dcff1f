"""Masks by Graphonomy, the parser that the paper names (section 4.1), at six scales and mirrored.

Source: Graphonomy's `exp/inference/inference.py`.
"""

import contextlib
import functools
import queue
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

    For any number of threads: every device of this process works on one image at a time, as the
    images of a folder may have several sizes, and a whole one gives the same bits anywhere. A
    device compiles the network once a scale for each new size of image.
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
        self._module, self._loaded = load_weights(resolve_weights(weights)).part("parser")
        # Last in, first out: a single thread stays on one device, which alone has the weights.
        self._free: queue.LifoQueue[jax.Device] = queue.LifoQueue()
        for device in reversed(jax.local_devices()):
            self._free.put(device)
        self._variables: dict[jax.Device, Any] = {}

    def logits(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 20"]:
        """Logits, averaged over both sides and summed over the scales.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          float32 [H, W, 20].
        """
        with self._device() as device:
            return jax.device_get(self._summed(image, device))

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; the face is CIHP's label 13."""
        with self._device() as device:
            labels = jax.device_get(_best_labels(self._summed(image, device)))
        return Masks(labels, pick(labels, self._interest), pick(labels, self._face))

    @contextlib.contextmanager
    def _device(self) -> Iterator[jax.Device]:
        """A device that no other thread uses, with a copy of the weights."""
        device = self._free.get()
        try:
            if device not in self._variables:
                self._variables[device] = jax.device_put(self._loaded, device)
            yield device
        finally:
            self._free.put(device)

    def _summed(self, image: np.ndarray, device: jax.Device) -> jax.Array:
        """`logits` on the device; the scales are computed one after the other, to save memory."""
        check_image(image)
        height, width = image.shape[:2]
        total = None
        for x in network_inputs(image, scales=self.scales):
            x = jax.device_put(x, device)
            total = _add_scale(
                self._variables[device], x, total, module=self._module, height=height, width=width
            )
        return total


@functools.partial(jax.jit, static_argnames=("module", "height", "width"))
def _add_scale(variables, x, total, *, module, height, width):
    """The sum [height, width, 20] of the scales so far, None for none, and of x [1, h, w, 3]."""
    logits = module.apply(variables, x, height, width, method="two_sided")[0]
    return logits if total is None else total + logits


@jax.jit
def _best_labels(logits):
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


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
