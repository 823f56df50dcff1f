"""What measurements become: metrics.json, and figures and grids."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.images import save_image
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import figures, grids
from interestyle_jax.evaluation.boundary import boundary_grid
from interestyle_jax.evaluation.measurement import Measurement
from interestyle_jax.one_line import one_line


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
            "psnr": _mean_of_found(values.get("psnr")),
            "ms_ssim": _mean_of_found(values.get("ms_ssim")),
            "id_similarity": _mean_of_found(values.get("id_similarity")),
            "boundary_iou": _mean_of_found(values.get("boundary_iou")),
            "fid": measurement.fid,
            "edit_fid": measurement.edit_fid,
            "leakage": _distances(values, "leakage"),
            "latent_variance": [float(v) for v in values["latent_variance"].mean(0, np.float64)],
            "nscd": _mean_of_found(values.get("nscd")),
            "nscd_of_samples": measurement.nscd_of_samples,
            "seconds_per_image": measurement.seconds_per_image,
        }
    return {
        "num_images": next(iter(measurements.values())).num_images,
        "data": data,
        "mean_latent": {name: _distances(average, name) for name in ("interest", "face")},
        "encoders": encoders,
    }


def _mean_of_found(similarities: np.ndarray | None) -> float | None:
    """The mean over images that have a value (a face, a region); None without any."""
    if similarities is None or np.isnan(similarities).all():
        return None
    return float(np.nanmean(similarities))


def _distances(values: Mapping[str, np.ndarray], region: str) -> dict[str, float | None]:
    return {
        name: float(np.mean(values[key], dtype=np.float64)) if key in values else None
        for name in ("l2", "lpips")
        for key in (f"{region}/{name}",)
    }


def draw_figures(measurements: Mapping[str, Measurement], folder: Path) -> None:
    """Writes every figure and grid into `folder`.

    `latent_variance.png` (Fig. 10), `latent_variance_histogram.png` (Fig. 3), `grid_NAME.png` an
    encoder, `leakage_NAME.png` where there are clean images, `boundary_NAME.png` (Fig. 7) where
    faces were looked for, `comparison.png` of the encoders.
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
        save_image(folder / f"grid_{slug}.png", refinement_grid(measurement))
        if measurement.examples.clean_image is not None:
            save_image(folder / f"leakage_{slug}.png", leakage_grid(measurement))
        examples = measurement.examples
        if examples.regions is not None:
            shown = examples.samples["image"], examples.images[:, -1], examples.regions
            save_image(folder / f"boundary_{slug}.png", boundary_grid(*shown))
    if len(measurements) > 1:
        save_image(folder / "comparison.png", comparison_grid(measurements))


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
