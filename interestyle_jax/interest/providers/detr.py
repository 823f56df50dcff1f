"""Masks by panoptic DETR of the `transformers` library, as the paper has them for AFHQ wild."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.masks import (
    Masks,
    check_image,
    label_indices,
    pick,
    plain_name,
)
from interestyle_jax.interest.providers.transformers_network import TransformersNetwork

DEFAULT_SIZE = {"shortest_edge": 800, "longest_edge": 1333}
# COCO's.
ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
)  # fmt: skip
NOTHING = "nothing"


class DetrProvider:
    """Labels are "nothing", then the model's own; see `MaskProvider`. There is no face."""

    name = "detr"

    def __init__(
        self,
        *,
        model: str | Path = "facebook/detr-resnet-50-panoptic",
        revision: str | None = None,
        classes: Sequence[str] | None = None,
        threshold: float = 0.85,
    ):
        """Loads the network.

        Args:
          model: directory or name of a `DetrForSegmentation`.
          revision: branch, tag or commit on the hub.
          classes: labels of the interest region; None: the animals of COCO, and persons.
          threshold: least probability of a segment's class.

        Raises:
          InputError: see `TransformersNetwork`; unknown classes, or a threshold outside [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"--threshold: {threshold}, expected a probability from 0 to 1")
        self._network = TransformersNetwork(
            "DetrForSegmentation",
            model,
            model_type="detr",
            default_size=DEFAULT_SIZE,
            revision=revision,
        )
        self._threshold = threshold
        self.labels = (NOTHING, *self._network.labels)
        if len(self.labels) > 256:
            raise InputError(f"{model}: {len(self.labels) - 1} labels, expected at most 255")
        known = {plain_name(label) for label in self.labels}
        chosen = classes or [label for label in (*ANIMALS, "person") if label in known]
        self._interest = label_indices(chosen, self.labels)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; each pixel goes to the sure segment with the largest mask value."""
        check_image(image)
        outputs = self._network(image)
        labels = panoptic_labels(
            outputs["logits"],
            outputs["pred_masks"],
            lambda maps: self._network.enlarge(maps, *image.shape[:2]),
            threshold=self._threshold,
        )
        if labels is None:
            labels = np.zeros(image.shape[:2], np.uint8)
        return Masks(labels, pick(labels, self._interest))


def panoptic_labels(
    logits: Float[np.ndarray, "Q C"],
    maps: Float[np.ndarray, "Q h w"],
    enlarge: Callable[[np.ndarray], np.ndarray],
    *,
    threshold: float,
) -> UInt8[np.ndarray, "H W"] | None:
    """The label map of DETR's queries, 0 where no segment lies.

    Args:
      logits: [Q, C + 1], of a query's class; the last is "no object".
      maps: [Q, h, w], logits of its mask.
      enlarge: [K, h, w] -> [K, H, W].
      threshold: least probability of a query's class.

    Returns:
      uint8 [H, W], class + 1 of the query with the largest mask logit among the sure ones, where
      that is above 0; None where no query is sure.
    """
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probability = shifted / shifted.sum(-1, keepdims=True)
    classes = probability.argmax(-1)
    sure = (classes < logits.shape[-1] - 1) & (probability.max(-1) > threshold)
    if not sure.any():
        return None
    large = enlarge(maps[sure])
    winner = large.argmax(0)
    labels = (classes[sure] + 1).astype(np.uint8)[winner]
    return np.where(large.max(0) > 0, labels, 0).astype(np.uint8)
