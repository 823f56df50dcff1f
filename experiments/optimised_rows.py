"""Methods that optimise as rows beside encoders: run on a data set, measured as `evaluate` does.

A method is a preset of `invert --method`, with "-interest" behind it where its image terms see the
interest region alone. Each inverts the first images, and (for leakage) the same avatars without
their obstacles. Of a clean avatar the interest region is all of it: with the mask of the
obstructed one both would be the same picture to the method, and leakage nothing by definition.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from interestyle_jax.data.data_set import Examples, open_data_set
from interestyle_jax.data.fingerprint import fingerprint
from interestyle_jax.data.images import read_image, save_image
from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.identity import Identity, similarity
from interestyle_jax.evaluation.measurement import Examples as Shown
from interestyle_jax.evaluation.measurement import Measurement, measure
from interestyle_jax.evaluation.metrics import Lpips
from interestyle_jax.evaluation.results import collect_metrics
from interestyle_jax.evaluation.style_alignment import measure_anchors, nscd
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.optimisation.optimiser import has_noise
from interestyle_jax.inversion.optimisation.recipes import PRESETS
from interestyle_jax.inversion.resize import Shape
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.optimisations import optimise_files
from interestyle_jax.jobs.samples import Samples
from interestyle_jax.json_file import read_json, write_json

MASKED = "-interest"
LABELS = {
    "projector-w": "StyleGAN2 projector, W",
    "projector-w-plus": "StyleGAN2 projector, W+",
    "image2stylegan": "Image2StyleGAN",
    "image2stylegan-plus-plus": "Image2StyleGAN++",
    "idinvert": "IDInvert with its optimisation",
    "ii2s": "II2S",
    "pti": "PTI",
    "hybrid": "encoder, then optimisation",
}
# Folder of a data set's field, and of the mask that goes with these images.
FOLDERS = {"image": "images", "clean": "clean"}
MASKS = {"images": ("masks", "interest_mask"), "clean": ("clean_masks", "interest_mask_full")}
BATCH_SIZE = 16
INPUTS = "inputs.json"


def preset_of(method: str) -> tuple[str, bool]:
    """The preset of a method, and whether it is limited to the interest region.

    Raises:
      InputError: there is no such method.
    """
    preset = method.removesuffix(MASKED)
    if preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise InputError(f"method {method!r}: expected one of {known}, or one of these{MASKED}")
    return preset, preset != method


def label_of(method: str) -> str:
    """A method's name in tables."""
    preset, masked = preset_of(method)
    return LABELS[preset] + (", interest masks" if masked else "")


def write_inputs(data: str | Path, split: str, num_samples: int | None, out: Path) -> int:
    """Writes the first images of a data set, and their masks, as PNG files; returns how many.

    Folders `images`, `masks` and, where there are such, `clean` and `clean_masks`; what an earlier
    call wrote of the same data stays as it is.
    """
    directory = locate_data_set(data)
    known = open_data_set(directory).info.features
    fields = {FOLDERS[name]: name for name in FOLDERS if name in known}
    for images in list(fields):
        folder, field = MASKS[images]
        # Without an uncovered mask a clean image has the obstructed one's.
        field = field if field in known else MASKS["images"][1]
        if field in known:
            fields[folder] = field
    examples = Examples(directory, split, tuple(dict.fromkeys(fields.values())), cache=False)
    count = len(examples) if num_samples is None else min(num_samples, len(examples))
    facts = {"fingerprint": fingerprint(directory), "split": split, "count": count}
    if (out / INPUTS).is_file() and read_json(out / INPUTS) == facts:
        return count
    shutil.rmtree(out, ignore_errors=True)
    for folder in fields:
        (out / folder).mkdir(parents=True)
    for i in range(count):
        for folder, field in fields.items():
            save_image(out / folder / f"{i:06d}.png", examples[i][field])
    write_json(out / INPUTS, facts)
    return count


def run_method(
    method: str,
    weights: str | Path,
    inputs: Path,
    out: Path,
    *,
    lpips: Sequence[str | Path] = (),
    num_steps: int | None = None,
) -> dict[str, Any]:
    """Inverts `write_inputs`' images by a method, into out/images and out/clean; resumed.

    Noise maps stay as they are where the generator's change nothing.

    Returns:
      {"seconds_per_image", "num_steps", "noise", "tuned"}: of the images, compilation left out
      where there is more than one batch.
    """
    preset, masked = preset_of(method)
    noise = has_noise(load(weights))
    reports = {}
    for images, (masks, _) in MASKS.items():
        if not (inputs / images).is_dir():
            continue
        if masked and not (inputs / masks).is_dir():
            raise InputError(f"{method}: this data set has no interest masks")
        reports[images] = optimise_files(
            str(weights),
            inputs / images,
            out / images,
            method=preset,
            interest=str(inputs / masks) if masked else None,
            num_steps=num_steps,
            noise=noise,
            lpips=lpips,
            max_skipped=0.0,
        )
    report = reports["images"]
    seconds = report["seconds_per_image"] or report["seconds"] / report["num_images"]
    return {
        "seconds_per_image": seconds,
        "num_steps": report["mean_num_steps"],
        "noise": report["noise_optimised"],
        "tuned": report["generator_tuned"],
    }


def measure_method(
    out: Path,
    data: str | Path,
    *,
    split: str,
    count: int,
    shape: Shape,
    lpips: Lpips,
    identity: Identity | None = None,
    model: Model | None = None,
) -> dict[str, np.ndarray]:
    """What `evaluate` measures, of `run_method`'s files: {name: [count]}.

    Args:
      out: as given to `run_method`.
      data, split: what the images were written of.
      count: how many.
      shape: height and width that are measured, an encoder's input.
      lpips: the distance.
      identity: of the ID similarity, or None.
      model: whose generator drew all images, for NSCD; None where each image has its own.
    """
    anchors = None if model is None else measure_anchors(model)
    samples = Samples(data, split, num_samples=count)
    latents = LatentFile(out / "images")
    parts: dict[str, list[np.ndarray]] = {}
    for first in range(0, count, BATCH_SIZE):
        # The last batch is filled up with its last image.
        rows = np.minimum(np.arange(first, first + BATCH_SIZE), count - 1)
        read = [samples.read(samples[int(i)], [shape])[shape] for i in rows]
        batch = {name: np.stack([row[name] for row in read]) for name in samples.fields}
        names = [f"{i:06d}" for i in rows]
        w_plus = np.stack([latents[name] for name in names], axis=1)
        clean = None
        if (out / "clean").is_dir() and "interest_mask" in batch:
            clean = _images(out / "clean", names)
        measured = measure(
            lpips,
            normalize(jax.device_put(batch)),
            w_plus,
            _images(out / "images", names),
            clean_images=clean,
            shape=shape,
            pairs=identity is not None,
        )
        values = dict(jax.device_get(measured["values"]))
        values["latent_variance"] = values["latent_variance"][:, -1]
        if model is not None and anchors is not None:
            variables, module = model.variables["generator"], model.network("generator")
            values["nscd"] = jax.device_get(nscd(anchors, variables, w_plus, module=module))
        if identity is not None:
            values["id_similarity"] = _similarities(identity, jax.device_get(measured["pair"]))
        for name, value in values.items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values)[:count] for name, values in parts.items()}


def _images(folder: Path, names: Sequence[str]) -> np.ndarray:
    return to_float(np.stack([read_image(folder / f"{name}.png") for name in names]))[None]


def _similarities(identity: Identity, pairs: np.ndarray) -> np.ndarray:
    found = []
    for a, b in pairs:
        faces = identity.faces(a, b)
        embedded = None if faces is None else jax.device_get(identity.embed(faces[None]))[0]
        found.append(np.nan if embedded is None else similarity(embedded))
    return np.array(found, np.float64)


def as_encoder(
    values: Mapping[str, np.ndarray], seconds: float, shape: Shape, data: str
) -> dict[str, Any]:
    """The entry that an encoder with these values has in metrics.json."""
    nothing = Shown({}, np.zeros((0, 1, *shape, 3), np.float32), None)
    own = {**values, "latent_variance": values["latent_variance"][:, None]}
    measurement = Measurement(own, seconds, nothing)
    return collect_metrics(data, {"": measurement}, {})["encoders"][""]


def paired_cells(label: str, metric: str, test: Mapping[str, float | int]) -> str:
    """The start of a table's row: method, metric, difference and the p values of `paired`."""
    return (
        f"| {label} | {metric} | {test['mean']:+.4f} ± {test['se']:.4f} | {test['p_t']:.2g} | "
        f"{test['p_wilcoxon']:.2g} |"
    )


def paired(masked: np.ndarray, whole: np.ndarray) -> dict[str, float | int]:
    """Whether the first of two measurements [n] of the same images is lower: paired tests.

    Returns:
      "mean" and "se" of the difference, "p_t" of Student's t and "p_wilcoxon", two-sided, "n".
    """
    difference = np.asarray(masked, np.float64) - np.asarray(whole, np.float64)
    facts: dict[str, Any] = {"mean": float(difference.mean()), "n": len(difference)}
    if len(difference) < 2 or not difference.any():
        return facts | {"se": 0.0, "p_t": 1.0, "p_wilcoxon": 1.0}
    facts["se"] = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    facts["p_t"] = float(stats.ttest_rel(masked, whole).pvalue) if facts["se"] else 0.0
    return facts | {"p_wilcoxon": float(stats.wilcoxon(difference).pvalue)}
