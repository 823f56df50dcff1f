"""Interest masks of the images of a job, where the user says that they come from."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers import MaskProvider, find_provider
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.samples import Samples

DATASET = "dataset"


class InterestMasks:
    """Interest masks of images, from a folder, a provider or the data set."""

    def __init__(
        self,
        interest: str | None,
        weights: str | Path | None,
        files: ImageFiles | Samples,
        alignment: Alignment | None,
    ):
        """Loads a provider.

        Args:
          interest: a folder, a provider, "dataset" for the data set's own, or None.
          weights: the provider's.
          files: the images.
          alignment: of photographs; masks of a folder are not aligned.

        Raises:
          InputError: masks that do not go with the images, or what a provider lacks.
        """
        self._given, self._weights = interest, weights
        self._provider: MaskProvider | None = None
        self.wanted: bool = interest is not None
        if interest == DATASET or (self.wanted and isinstance(files, Samples)):
            if not isinstance(files, Samples) or interest != DATASET:
                raise InputError(
                    f"--interest={interest}: expected '{DATASET}' with a data set as --input, a "
                    "folder or a provider with image files"
                )
            if "interest_mask" not in files.fields:
                raise InputError(f"--interest={DATASET}: the data set has no field interest_mask")
        elif interest is not None:
            self._provider = find_provider(interest, weights, option="--interest")
            if alignment is not None and self._provider.name == "folder":
                raise InputError(
                    "--interest: masks of a folder do not go with --align, expected a provider"
                )
        if weights is not None and self._provider is None:
            raise InputError("--interest-weights: needs a provider as --interest")

    def __call__(self, pixels: UInt8[np.ndarray, "H W 3"], name: str) -> UInt8[np.ndarray, "H W 1"]:
        """The mask [H, W, 1] of an image file, or its aligned face."""
        assert self._provider is not None
        return self._provider(pixels, name=name).interest

    def options(self) -> list[str] | None:
        """As JSON."""
        if self._given is None:
            return None
        given = self._given if not Path(self._given).is_dir() else Path(self._given).absolute()
        return [str(given), *([] if self._weights is None else [str(self._weights)])]
