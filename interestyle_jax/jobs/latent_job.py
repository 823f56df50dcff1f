"""What `invert`, `edit` and `mix` share: jobs that leave latents, and images drawn of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from interestyle_jax.data.images import encode_png
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.aligned_faces import AlignedFace, tell_of_several
from interestyle_jax.jobs.encoder_inputs import EncoderInputs
from interestyle_jax.jobs.job import Finished, ImageJob, Item, choose_batch_size
from interestyle_jax.weights import digest

BATCH_SIZE = 8
# zlib's default takes twice as long for a tenth less.
PNG_LEVEL = 2


class LatentJob(ImageJob):
    """Images that are inverted, or latents, to latents and drawn images."""

    def __init__(
        self,
        model: Model,
        images: EncoderInputs | None,
        *,
        num_images: int,
        num_latents: int,
        batch_size: int | None,
        options: Mapping[str, Any],
        per_device: int = BATCH_SIZE,
    ):
        """Declares what depends on the model.

        Args:
          model: has the generator.
          images: loads the images, or None of latents.
          num_images: of the source.
          num_latents: w_plus that an image leaves.
          batch_size, per_device: as `choose_batch_size`.
          options: what results depend on besides the weights.
        """
        self._model, self._images = model, images
        self._faces = None if images is None else images.faces
        self._pasted = images is not None and images.pasted
        if images is not None:
            self.max_skipped = images.max_skipped
        self.batch_size = choose_batch_size(
            batch_size,
            per_device=per_device,
            num_devices=model.num_devices,
            num_images=num_images,
        )
        self.latents_shape = (num_latents, *model.latents_shape)
        self.generator = model.generator_fingerprint
        self.options = {**options, "weights": digest(model.directory), "dtype": model.dtype}

    def outputs(self, name: str) -> tuple[str, ...]:
        """NAME.png and, of photographs, NAME_pasted.png."""
        return (f"{name}.png", f"{name}_pasted.png") if self._pasted else (f"{name}.png",)

    def _image_files(
        self, item: Item, face: AlignedFace | None, stem: str, image: UInt8[np.ndarray, "R R 3"]
    ) -> dict[str, bytes]:
        """STEM.png and, of photographs, STEM_pasted.png: a drawn image, uint8 [R, R, 3]."""
        drawn = [image]
        if self._pasted:
            assert self._faces is not None and face is not None
            drawn.append(self._faces.paste(item.source, face, image))
        pairs = zip(LatentJob.outputs(self, stem), drawn, strict=True)
        return {name: encode_png(own, compress_level=PNG_LEVEL) for name, own in pairs}

    def _face_facts(self, face: AlignedFace | None) -> dict[str, Any]:
        if face is None:
            return {}
        return {"quad": face.quad.round(3).tolist(), "num_faces": face.num_faces}

    def _shown(self, record: Mapping[str, Any]) -> np.ndarray:
        """An image as it was inverted, by its line; raises InputError where it is gone."""
        assert self._images is not None
        return self._images.load(Item(0, record["name"], Path(record["file"]))).image

    def _first(self, finished: Finished, most: int) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Names of the first images with what was inverted, none of latents; read again."""
        count = 0
        for record in finished.records:
            if count == most:
                return
            try:
                shown = [] if self._images is None else [self._shown(record)]
            except InputError:
                # The image is gone, its results are not.
                continue
            yield record["name"], shown
            count += 1

    def _report(self, finished: Finished) -> dict[str, Any]:
        """What the report says of model, latents and faces."""
        assert finished.latents is not None
        report: dict[str, Any] = {
            "weights": str(self._model.directory),
            "generator": self.generator,
            "dtype": self._model.dtype,
            "resolution": self._model.resolution,
            "w_plus_shape": list(finished.latents.shape),
            "latents": [path.name for path in finished.latents.paths],
            "batch_size": self.batch_size,
            "num_devices": self._model.num_devices,
            "seconds_per_image": finished.seconds_per_image,
        }
        if self._faces is not None:
            records = list(finished.records)
            num_faces = {record["file"]: record["num_faces"] for record in records}
            tell_of_several(num_faces)
            report["alignment"] = {
                **self._faces.alignment.options(),
                "size": self._faces.size,
                "num_faces": num_faces,
                "quads": {r["name"]: r["quad"] for r in records},
                "skipped": {r.get("file", r["name"]): r["skipped"] for r in finished.skipped},
            }
        return report
