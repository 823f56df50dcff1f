"""Masks by a SegFormer face parser of the `transformers` library."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.face_labels import face_and_hair
from interestyle_jax.interest.providers.masks import Masks, check_image, label_indices, pick
from interestyle_jax.interest.providers.transformers_network import TransformersNetwork

DEFAULT_SIZE = {"height": 512, "width": 512}


class SegformerProvider:
    """Labels are the model's own; see `MaskProvider`.

    The face are the labels whose names are parts of a face, the interest region is face and hair.
    """

    name = "segformer"

    def __init__(
        self,
        *,
        model: str | Path = "jonathandinu/face-parsing",
        revision: str | None = None,
        classes: Sequence[str] | None = None,
        face_classes: Sequence[str] | None = None,
    ):
        """Loads the network.

        Args:
          model: directory or name of a `SegformerForSemanticSegmentation`.
          revision: branch, tag or commit on the hub.
          classes: labels of the interest region; None: those of face and hair by their names.
          face_classes: labels of the face; None: by their names.

        Raises:
          InputError: see `TransformersNetwork`; unknown classes, or none known by name.
        """
        self._network = TransformersNetwork(
            "SegformerForSemanticSegmentation",
            model,
            model_type="segformer",
            default_size=DEFAULT_SIZE,
            revision=revision,
        )
        self.labels = self._network.labels
        if len(self.labels) > 256:
            raise InputError(f"{model}: {len(self.labels)} labels, expected at most 256")
        face, hair = face_and_hair(self.labels)
        if face_classes:
            face = label_indices(face_classes, self.labels, option="--face-classes")
        self._face = face
        self._interest = label_indices(classes, self.labels) if classes else (*face, *hair)
        if not self._interest:
            raise InputError(
                f"{model}: no label is named as hair or as a part of a face, choose some with "
                f"--classes: {', '.join(self.labels)}"
            )

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], *, name: str | None = None) -> Masks:
        """See `MaskProvider`; logits are enlarged to the image before the best label is taken."""
        check_image(image)
        logits = self._network.enlarge(self._network(image)["logits"], *image.shape[:2])
        labels = logits.argmax(0).astype(np.uint8)
        face = pick(labels, self._face) if self._face else None
        return Masks(labels, pick(labels, self._interest), face)
