"""Measuring encoders on a data set: metrics.json, table.md and figures."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import figures, grids
from interestyle_jax.evaluation.identity import id_similarity
from interestyle_jax.evaluation.measurement import (
    Identity,
    Measurement,
    measure_encoder,
    measure_mean_latent,
)
from interestyle_jax.evaluation.metrics import Distance
from interestyle_jax.evaluation.samples import open_samples
from interestyle_jax.evaluation.table import markdown_table
from interestyle_jax.inversion.inverter import load
from interestyle_jax.json_file import write_json
from interestyle_jax.one_line import one_line
from interestyle_jax.output_folder import output_folder
from interestyle_jax.photos.mtcnn_detector import FaceDetector
from interestyle_jax.weights import load_weights, resolve_weights

GRID_ROWS = 8


def evaluate(
    weights: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    batch_size: int = 16,
    num_samples: int | None = None,
    split: str = "test",
    names: Sequence[str] | None = None,
    num_steps: int | None = None,
    lpips: str | Path = "lpips_alex",
    dtype: str = "float32",
    identity: str | Path | None = None,
    face_detector: str | Path | None = None,
) -> dict[str, Any]:
    """Measures encoders on a data set and writes the results to `out`. Draws nothing at random.

    As the official scripts do, 8-bit images are measured at the encoder's input size (256 for
    official models): inversions are clipped and rounded as if saved, then they, the images and
    the masks are resized by PIL's bilinear filter. Cars are measured at 192 x 256, not squeezed.
    Regions are the *visible* parts, undilated: `interest_mask` and `face_mask` of the data set, not
    the dilated masks of training. Without masks only the whole image is measured; without clean
    images there is no leakage. What was not measured is null.

    Args:
      weights: names or directories of weights with a generator, an encoder and w_avg.
      data: a TFDS data set directory, or a folder of images (no masks).
      out: folder for `metrics.json`, `table.md`, `figures/`; files appear together at the end.
      batch_size: images a compiled call.
      num_samples: only the first ones, or None for all.
      split: split of the data set.
      names: the encoders' names in the results; by default their directories'.
      num_steps: N of iterative encoders (None: 5); encoders that see the image alone run once.
      lpips: name or directory of the LPIPS weights.
      dtype: type of the encoders' and generators' maps, as in `load`.
      identity: weights with the embedder of the ID metric (CurricularFace officially), or None.
      face_detector: "mtcnn" weights, which go with `identity`.

    Returns:
      The content of metrics.json. The mean latent's image is that of the first
      encoder's generator.

    Raises:
      InputError: unknown weights or data, a part missing, not one name an encoder, or one of
        `identity` and `face_detector` without the other.
    """
    labels = encoder_names(weights, names)
    models = {label: load(path, dtype=dtype) for label, path in zip(labels, weights, strict=True)}
    for model in models.values():
        model.require_inversion()
    distance = load_distance(lpips)
    same_person = load_identity(identity, face_detector)
    samples = open_samples(data, split, batch_size=batch_size, num_samples=num_samples)
    with output_folder(Path(out)) as folder:
        measurements = {
            label: measure_encoder(
                model,
                samples,
                distance,
                num_steps=num_steps,
                num_examples=GRID_ROWS,
                label=label,
                identity=same_person,
            )
            for label, model in models.items()
        }
        average = measure_mean_latent(models[labels[0]], samples, distance)
        metrics = collect_metrics(str(data), measurements, average)
        write_json(folder / "metrics.json", metrics)
        (folder / "table.md").write_text(markdown_table(metrics), encoding="utf-8")
        (folder / "figures").mkdir()
        draw_figures(measurements, folder / "figures")
    return metrics


def encoder_names(weights: Sequence[str | Path], names: Sequence[str] | None) -> list[str]:
    """A name for every weight directory: the given ones, or the directories' own.

    A directory called "weights" is named after its parent, the run. Equal names get a number.

    Raises:
      InputError: no weights, or given names that are not one each, or not different.
    """
    if not weights:
        raise InputError("weights: none given, expected at least one directory")
    if names is not None:
        names = [one_line(name) for name in names]
        if len(names) != len(weights):
            raise InputError(f"names: {len(names)} for {len(weights)} weights, expected one each")
        if len(set(names)) < len(names):
            raise InputError(f"names: {', '.join(names)} are not all different")
        return names
    labels: list[str] = []
    for path in weights:
        full = Path(path).absolute()
        own = one_line(full.parent.name if full.name == "weights" else full.name)
        label, number = own, 2
        while label in labels:
            label, number = f"{own}-{number}", number + 1
        labels.append(label)
    return labels


def load_distance(lpips: str | Path) -> Distance:
    """LPIPS as a pure function (a, b) [B, H, W, 3] -> [B], from a weight directory.

    Raises:
      InputError: no such weights, or no LPIPS network in them.
    """
    module, variables = load_weights(resolve_weights(lpips)).part("lpips")
    variables = jax.tree.map(jnp.asarray, variables)
    return lambda a, b: module.apply(variables, a, b)


def load_identity(identity: str | Path | None, face_detector: str | Path | None) -> Identity | None:
    """The ID metric from two weight directories, or None where neither is given.

    Raises:
      InputError: one without the other, no such weights, or a network missing in them.
    """
    if identity is None and face_detector is None:
        return None
    if identity is None or face_detector is None:
        raise InputError("id similarity: expected an embedder and a face detector, got one of them")
    embedder = load(identity)
    if "embedder" not in embedder.variables:
        raise InputError(f"{embedder.directory}: no embedder in these weights")
    detector = FaceDetector(load_weights(resolve_weights(face_detector)))
    return functools.partial(id_similarity, detector, embedder.embed)


def collect_metrics(
    data: str,
    measurements: Mapping[str, Measurement],
    average: Mapping[str, Float[np.ndarray, " n"]],
) -> dict[str, Any]:
    """The content of metrics.json; null for what was not measured.

    Args:
      data: what was measured on, in words.
      measurements: {encoder: what it did}.
      average: the mean latent's distances, {"interest/l2": [n], ...}.
    """
    encoders = {}
    for name, measurement in measurements.items():
        values = measurement.values
        encoders[name] = {
            "interest": _distances(values, "interest"),
            "face": _distances(values, "face"),
            "whole": _distances(values, "whole"),
            "id_similarity": _mean_of_found(values.get("id_similarity")),
            "leakage": _distances(values, "leakage"),
            "latent_variance": [float(v) for v in values["latent_variance"].mean(0)],
            "seconds_per_image": measurement.seconds_per_image,
        }
    return {
        "num_images": next(iter(measurements.values())).num_images,
        "data": data,
        "mean_latent": {name: _distances(average, name) for name in ("interest", "face")},
        "encoders": encoders,
    }


def _mean_of_found(similarities: np.ndarray | None) -> float | None:
    """The mean over images with a face, as the official metric has it; None without any."""
    if similarities is None or np.isnan(similarities).all():
        return None
    return float(np.nanmean(similarities))


def _distances(values: Mapping[str, np.ndarray], region: str) -> dict[str, float | None]:
    return {
        name: float(values[f"{region}/{name}"].mean()) if f"{region}/{name}" in values else None
        for name in ("l2", "lpips")
    }


def draw_figures(measurements: Mapping[str, Measurement], folder: Path) -> None:
    """Writes every figure and grid into `folder`.

    `latent_variance.png` (Fig. 10), `latent_variance_histogram.png` (Fig. 3), `grid_NAME.png` an
    encoder, `leakage_NAME.png` where there are clean images, `comparison.png` of the encoders.
    """
    variances = {name: m.values["latent_variance"] for name, m in measurements.items()}
    figures.plot_latent_variance(
        {name: v.mean(0) for name, v in variances.items()}, folder / "latent_variance.png"
    )
    figures.plot_variance_histogram(
        {name: v[:, -1] for name, v in variances.items()}, folder / "latent_variance_histogram.png"
    )
    for name, measurement in measurements.items():
        slug = re.sub(r"[^\w.+-]+", "_", name)
        _save(refinement_grid(measurement), folder / f"grid_{slug}.png")
        if measurement.examples.clean_image is not None:
            _save(leakage_grid(measurement), folder / f"leakage_{slug}.png")
    if len(measurements) > 1:
        _save(comparison_grid(measurements), folder / "comparison.png")


def refinement_grid(measurement: Measurement) -> UInt8[np.ndarray, "H W 3"]:
    """input | interest mask | y_hat_1 ... y_hat_N | error, uint8 [H, W, 3]."""
    examples = measurement.examples
    labels = _input_labels(examples.samples)
    labels += [grids.iteration_label(i + 1) for i in range(examples.images.shape[1])]
    rows = [
        [*_inputs(examples.samples, k), *images, grids.error_image(image, images[-1])]
        for k, (image, images) in enumerate(
            zip(examples.samples["image"], examples.images, strict=True)
        )
    ]
    return grids.draw_grid(rows, [*labels, "error"])


def leakage_grid(measurement: Measurement) -> UInt8[np.ndarray, "H W 3"]:
    """input | clean | inversion of input | inversion of clean | their difference."""
    examples = measurement.examples
    labels = ["input", "clean image", "inversion of input", "inversion of clean", "difference"]
    rows = [
        [image, clean, images[-1], clean_image, grids.error_image(clean_image, images[-1])]
        for image, clean, images, clean_image in zip(
            examples.samples["image"],
            examples.samples["clean"],
            examples.images,
            examples.clean_image,
            strict=True,
        )
    ]
    return grids.draw_grid(rows, labels)


def comparison_grid(measurements: Mapping[str, Measurement]) -> UInt8[np.ndarray, "H W 3"]:
    """input | interest mask | y_hat_N of every encoder, uint8 [H, W, 3]."""
    first = next(iter(measurements.values())).examples
    rows = [
        _inputs(first.samples, k) + [m.examples.images[k, -1] for m in measurements.values()]
        for k in range(len(first.images))
    ]
    return grids.draw_grid(rows, [*_input_labels(first.samples), *measurements])


def _inputs(samples: Mapping[str, np.ndarray], k: int) -> list[np.ndarray]:
    images = [samples["image"][k]]
    if "interest_mask" in samples:
        images.append(grids.mask_image(samples["interest_mask"][k]))
    return images


def _input_labels(samples: Mapping[str, np.ndarray]) -> list[str]:
    return ["input", "interest mask"] if "interest_mask" in samples else ["input"]


def _save(grid: np.ndarray, path: Path) -> None:
    Image.fromarray(grid).save(path)
