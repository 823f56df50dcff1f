"""StyleGAN2 in NVIDIA's stylegan2-ada-pytorch layout: `G_ema` of a network pickle.

Pickles such as "ffhq.pkl" hold the networks as objects; they are read as data, see
`network_pickle.py`. A `.pt` of `{"G_ema": G.state_dict()}` is read too, and is the way back, as a
pickle needs NVIDIA's source code inside. Unconditional networks of the skip architecture, its
default; the training copy, the discriminator and the augmentation are left out. No released file
was available: the layout is that of the public source's names and shapes. The clamp of activations
at 256 (`conv_clamp`), which 16-bit blocks need, is not applied here.

The numbers are those of rosinality's layout without its leading axes: kernels [O, I, k, k],
upsampling ones for a transposed convolution as they are, noise [H, W], strengths [].
Networks without noise (`use_noise=False`) get strengths of 0, and lose them on the way back.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.resample import FIR
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import Weights

from .. import noise_buffers
from ..conversion import Conversion, Family, shapes
from ..mean_latent import SAMPLES, SEED, sample_w_avg
from ..noise_buffers import draw_missing
from ..source_file import SourceFile, keys, merge
from ..tensor_map import (
    CONVOLUTION,
    DENSE,
    SAME,
    Entry,
    Layout,
    Section,
    apply_sections,
    restore_map,
)
from .stylegan2 import generator_of

LICENCE = "Nvidia Source Code License-NC, for non-commercial use"
# PyTorch turns a transposed convolution's kernel around, the form here does not.
UP = Layout(
    lambda x: CONVOLUTION.to_here(x)[::-1, ::-1], lambda x: CONVOLUTION.to_source(x[::-1, ::-1])
)
CONSTANT = Layout(lambda x: x.transpose(1, 2, 0)[None], lambda x: x[0].transpose(2, 0, 1))
NOISE = Layout(lambda x: x[None, :, :, None], lambda x: x[0, :, :, 0])
PREFIX = "G_ema/"
NOISE_KEYS = ("/noise_const", "/noise_strength")
FILTER = re.compile(r"(synthesis/b\d+(/conv[01]|/torgb)?/)resample_filter")
# The other networks of a snapshot.
LEFT_OUT = re.compile(r"(G|D|augment_pipe|training_set_kwargs)/.*")


def _dense(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}/weight", f"{target}/kernel", DENSE),
        Entry(f"{source}/bias", f"{target}/bias"),
    ]


def _layer(source: str, name: str, layout: Layout = CONVOLUTION) -> list[Entry]:
    return [
        Entry(f"{source}/weight", f"params/{name}/conv/kernel", layout),
        *_dense(f"{source}/affine", f"params/{name}/conv/modulation"),
        Entry(f"{source}/bias", f"params/{name}/bias"),
    ]


def _styled(source: str, name: str, layout: Layout = CONVOLUTION) -> list[Entry]:
    return [
        *_layer(source, name, layout),
        Entry(f"{source}/noise_strength", f"params/{name}/noise_strength", SAME),
        Entry(f"{source}/noise_const", f"noise/{name}/noise", NOISE),
    ]


def _resolutions(resolution: int) -> list[int]:
    return [4 << i for i in range(int(math.log2(resolution)) - 1)]


def generator_entries(resolution: int, mapping_depth: int) -> list[Entry]:
    """Keys of one generator joined by "/", without a prefix; `mapping/w_avg` is not among them."""
    entries = [Entry("synthesis/b4/const", "params/input", CONSTANT)]
    for i in range(mapping_depth):
        entries += _dense(f"mapping/fc{i}", f"params/mapping/dense_{i}")
    for size in _resolutions(resolution):
        block = f"synthesis/b{size}"
        if size > 4:
            entries += _styled(f"{block}/conv0", f"up_{size}", UP)
        entries += _styled(f"{block}/conv1", f"conv_{size}")
        entries += _layer(f"{block}/torgb", f"rgb_{size}")
    return entries


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> Generator:
    """The generator whose weights these are, from shapes and the number of layers alone.

    Raises:
      InputError: conditional, not of the skip architecture, or a key is missing.
    """
    if "mapping/embed/weight" in arrays:
        raise InputError(
            f"{where}: a conditional network (mapping.embed), expected one without labels"
        )
    if any(re.fullmatch(r"synthesis/b\d+/skip/weight", k) for k in arrays):
        raise InputError(f"{where}: a network of the resnet architecture, expected skip")
    try:
        sizes = [int(m[1]) for m in map(re.compile(r"synthesis/b(\d+)/.*").fullmatch, arrays) if m]
        mapping_depth = sum(1 for k in arrays if re.fullmatch(r"mapping/fc\d+/weight", k))
        w_dim, z_dim = arrays["mapping/fc0/weight"].shape
        resolution = max(sizes)
        widths = {
            size: arrays[f"synthesis/b{size}/conv1/weight"].shape[0]
            for size in _resolutions(resolution)
        }
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{where}: no generator can be read from its G_ema ({error})") from error
    return generator_of(widths, w_dim=w_dim, z_dim=z_dim, mapping_depth=mapping_depth)


def check_filters(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raises InputError where a resampling filter is not outer([1, 3, 3, 1]) / 64."""
    expected = np.outer(FIR, FIR)
    for key, array in arrays.items():
        if FILTER.fullmatch(key) and not (
            array.shape == expected.shape and np.allclose(array, expected, atol=1e-6)
        ):
            raise InputError(f"{where}: {key} is another filter than [1, 3, 3, 1]")


def _network(sources: Sequence[SourceFile]) -> dict[str, np.ndarray]:
    """Every array; a state dict's dots are as good as an object's levels."""
    return {
        k.replace(".", "/") if k.startswith(PREFIX) else k: v for k, v in merge(sources).items()
    }


class StyleGAN2AdaFamily(Family):
    """`stylegan2_ada`."""

    name = "stylegan2_ada"
    licence = LICENCE

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the averaged generator's constant input."""
        return f"{PREFIX}synthesis/b4/const" in {k.replace(".", "/") for k in keys(sources)}

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """The averaged generator and its mean latent."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = _network(sources)
        left_out = tuple(k for k in arrays if LEFT_OUT.fullmatch(k))
        arrays = {k: v for k, v in arrays.items() if k not in left_out}
        own = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        generator = read_architecture(own, where)
        check_filters(own, where)
        architectures = {"generator": registry.describe(generator)}
        arrays, extra = _with_noise(arrays, own, generator.resolution)
        entries = generator_entries(generator.resolution, generator.mapping_depth)
        mean = f"{PREFIX}mapping/w_avg"
        w_avg = {mean: arrays.pop(mean)} if mean in arrays else {}
        parts = apply_sections(
            arrays,
            {
                "generator": Section(
                    entries,
                    shapes(architectures["generator"]),
                    prefix=PREFIX,
                    ignore=FILTER.pattern,
                )
            },
            where=where,
        )
        if not w_avg:
            parts["w_avg"] = sample_w_avg(parts["generator"].variables, architectures["generator"])
            extra["w_avg"] = {"samples": SAMPLES, "seed": SEED}
            return Conversion(parts, architectures, extra, left_out)
        section = Section([Entry(mean, "w_avg")], {"w_avg": (generator.w_dim,)})
        mapped = apply_sections(w_avg, {"w_avg": section}, where=where)["w_avg"]
        parts["w_avg"] = dataclasses.replace(mapped, variables=mapped.variables["w_avg"])
        return Conversion(parts, architectures, extra, left_out)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """{"G_ema": state dict}, for `G.load_state_dict`; filters are computed."""
        generator, variables = weights.part("generator")
        entries = generator_entries(generator.resolution, generator.mapping_depth)
        state = restore_map(variables, entries)
        if not weights.metadata["extra"].get("noise", {}).get("used", True):
            state = {k: v for k, v in state.items() if not k.endswith(NOISE_KEYS)}
        state["mapping/w_avg"] = _mean_row(weights)
        fir = np.outer(FIR, FIR).astype(np.float32)
        for size in _resolutions(generator.resolution):
            layers = ("", "conv0/", "conv1/") if size > 4 else ("", "conv1/")
            state |= {f"synthesis/b{size}/{layer}resample_filter": fir for layer in layers}
        return {"G_ema": {key.replace("/", "."): value for key, value in state.items()}}


def _with_noise(
    arrays: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], resolution: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, with the noise that a network without it (`use_noise=False`) lacks, and a note.

    Args:
      arrays: the file's.
      own: those of the averaged generator, without their prefix.
      resolution: of its images.
    """
    shapes = {}
    for size in _resolutions(resolution):
        for layer in ("conv0", "conv1") if size > 4 else ("conv1",):
            shapes[f"synthesis/b{size}/{layer}/noise_const"] = (size, size)
    added = draw_missing(own, shapes)
    extra = {"noise": {"seed": noise_buffers.SEED, "used": True}} if added else {}
    strengths = [key.replace("noise_const", "noise_strength") for key in shapes]
    if added and not own.keys() & set(strengths):
        added |= {key: np.zeros((), np.float32) for key in strengths}
        extra["noise"]["used"] = False
    return {**arrays, **{PREFIX + key: array for key, array in added.items()}}, extra


def _mean_row(weights: Weights) -> np.ndarray:
    """The mean latent [D]; a row of [L, D], as an inverter's file may give it.

    Raises:
      InputError: there is none, or its rows differ, which the layout cannot hold.
    """
    if "w_avg" not in weights.variables:
        raise InputError(f"{weights.directory}: no w_avg in these weights")
    w_avg = weights.variables["w_avg"]
    rows = w_avg.reshape(-1, w_avg.shape[-1])
    if np.any(rows != rows[0]):
        raise InputError(f"{weights.directory}: the rows of w_avg differ, expected one [D]")
    return rows[0]


FAMILIES = (StyleGAN2AdaFamily(),)
