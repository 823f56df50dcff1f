"""StyleGAN2 in rosinality's PyTorch layout: `g_ema`, `latent_avg` and `d`, of any size and width.

The files "stylegan2-ffhq-config-f.pt" and the like, and those that his trainer writes. The copy in
training and the optimizers of the latter are left out, and said to be; the mean latent, which they
lack, is computed, and noise buffers, which his first files lack, are drawn.
"""

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
from ..mean_latent import (
    SAMPLES,
    SEED,
    read_w_avg,
    restore_w_avg,
    sample_w_avg,
    w_avg_section,
)
from ..noise_buffers import draw_missing
from ..source_file import SourceFile, keys, merge
from ..tensor_map import (
    DENSE,
    MAP,
    Entry,
    Layout,
    Section,
    apply_sections,
    restore_map,
)
from . import stylegan2_discriminator as discriminator

LICENCE = (
    "that of the checkpoint's author; NVIDIA's StyleGAN2 networks are under the Nvidia Source Code "
    "License-NC, for non-commercial use"
)
# One modulated kernel: PyTorch [1, O, I, h, w] <-> [h, w, I, O].
MODULATED = Layout(
    lambda x: x.reshape(x.shape[1:]).transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1)[None],
)
# PyTorch turns a transposed convolution's kernel around, the form here does not.
MODULATED_UP = Layout(
    lambda x: MODULATED.to_here(x)[::-1, ::-1], lambda x: MODULATED.to_source(x[::-1, ::-1])
)
SCALAR = Layout(lambda x: x.reshape(()), lambda x: x.reshape(1))
RGB_BIAS = Layout(lambda x: x.reshape(3), lambda x: x.reshape(1, 3, 1, 1))
FIR_BUFFER = re.compile(r".*\.kernel")
# The generator in training and the optimizers' state.
LEFT_OUT = r"(g|g_optim|d_optim)/.*|ada_aug_p"


def _dense(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}.weight", f"{target}/kernel", DENSE),
        Entry(f"{source}.bias", f"{target}/bias"),
    ]


def _modulated(source: str, target: str, layout: Layout) -> list[Entry]:
    return [
        Entry(f"{source}.weight", f"{target}/kernel", layout),
        *_dense(f"{source}.modulation", f"{target}/modulation"),
    ]


def _styled(source: str, name: str, noise: int, layout: Layout = MODULATED) -> list[Entry]:
    target = f"params/{name}"
    return [
        *_modulated(f"{source}.conv", f"{target}/conv", layout),
        Entry(f"{source}.noise.weight", f"{target}/noise_strength", SCALAR),
        Entry(f"{source}.activate.bias", f"{target}/bias"),
        Entry(f"noises.noise_{noise}", f"noise/{name}/noise", MAP),
    ]


def _to_rgb(source: str, name: str) -> list[Entry]:
    return [
        *_modulated(f"{source}.conv", f"params/{name}/conv", MODULATED),
        Entry(f"{source}.bias", f"params/{name}/bias", RGB_BIAS),
    ]


def generator_entries(resolution: int, mapping_depth: int) -> list[Entry]:
    """Keys of one generator, without a prefix."""
    entries = [Entry("input.input", "params/input", MAP)]
    for i in range(mapping_depth):
        entries += _dense(f"style.{i + 1}", f"params/mapping/dense_{i}")
    entries += _styled("conv1", "conv_4", 0) + _to_rgb("to_rgb1", "rgb_4")
    for i in range(int(math.log2(resolution)) - 2):
        size = 8 << i
        entries += _styled(f"convs.{2 * i}", f"up_{size}", 2 * i + 1, MODULATED_UP)
        entries += _styled(f"convs.{2 * i + 1}", f"conv_{size}", 2 * i + 2)
        entries += _to_rgb(f"to_rgbs.{i}", f"rgb_{size}")
    return entries


def noise_shapes(resolution: int) -> dict[str, tuple[int, ...]]:
    """{key: shape} of one generator's noise buffers, without a prefix."""
    sizes = [4, *(8 << i // 2 for i in range(2 * int(math.log2(resolution)) - 4))]
    return {f"noises.noise_{i}": (1, 1, size, size) for i, size in enumerate(sizes)}


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> Generator:
    """The generator whose weights these are, from shapes and the number of layers alone.

    Raises:
      InputError: a key that the architecture is read from is missing or has too few axes.
    """
    try:
        mapping_depth = sum(1 for k in arrays if re.fullmatch(r"style\.\d+\.weight", k))
        levels = sum(1 for k in arrays if re.fullmatch(r"to_rgbs\.\d+\.bias", k))
        w_dim, z_dim = arrays["style.1.weight"].shape
        widths = {4: arrays["input.input"].shape[1]}
        for i in range(levels):
            widths[8 << i] = arrays[f"convs.{2 * i}.conv.weight"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{where}: no StyleGAN2 generator can be read from it ({error})"
        ) from error
    return generator_of(widths, w_dim=w_dim, z_dim=z_dim, mapping_depth=mapping_depth)


def generator_of(
    widths: Mapping[int, int], *, w_dim: int, z_dim: int, mapping_depth: int
) -> Generator:
    """The generator with these channels, {resolution: channels} from 4 to the image's."""
    return Generator(
        resolution=max(widths),
        w_dim=w_dim,
        z_dim=z_dim,
        mapping_depth=mapping_depth,
        channel_base=max(size * width for size, width in widths.items()),
        channel_max=max(widths.values()),
    )


def check_filters(arrays: Mapping[str, np.ndarray], where: str, *, gain: float = 4.0) -> None:
    """Raises InputError where a fixed FIR buffer is not outer([1, 3, 3, 1]) / 64 times `gain`.

    The generator's filters, which follow zero insertion, have gain 4, the discriminator's 1.
    """
    expected = gain * np.outer(FIR, FIR)
    for key, array in arrays.items():
        if FIR_BUFFER.fullmatch(key) and not (
            array.shape == expected.shape and np.allclose(array, expected, atol=1e-6)
        ):
            raise InputError(f"{where}: {key} is another filter than [1, 3, 3, 1]")


def restore_generator(
    variables: Mapping[str, Any], architecture: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The state dict of one generator by its converted variables, FIR buffers included."""
    resolution = architecture["resolution"]
    entries = generator_entries(resolution, architecture["mapping_depth"])
    state = restore_map(variables, entries)
    fir = (4 * np.outer(FIR, FIR)).astype(np.float32)
    for i in range(int(math.log2(resolution)) - 2):
        state[f"convs.{2 * i}.conv.blur.kernel"] = fir
        state[f"to_rgbs.{i}.upsample.kernel"] = fir
    return state


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


class StyleGAN2Family(Family):
    """`stylegan2`."""

    name = "stylegan2"
    licence = LICENCE

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the averaged generator's constant input."""
        return "g_ema/input.input" in keys(sources)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """The averaged generator, the mean latent and, where there is one, the discriminator."""
        where = " + ".join(str(s.path) for s in sources)
        arrays = merge(sources)
        left_out = tuple(k for k in arrays if re.fullmatch(LEFT_OUT, k))
        arrays = {k: v for k, v in arrays.items() if k not in left_out}

        state = _below("g_ema/", arrays)
        generator = read_architecture(state, where)
        check_filters(state, where)
        noise = draw_missing(state, noise_shapes(generator.resolution))
        arrays |= {f"g_ema/{key}": array for key, array in noise.items()}
        extra: dict[str, Any] = {"noise": {"seed": noise_buffers.SEED}} if noise else {}
        architectures = {"generator": registry.describe(generator)}
        sections = {
            "generator": Section(
                generator_entries(generator.resolution, generator.mapping_depth),
                shapes(architectures["generator"]),
                prefix="g_ema/",
                ignore=FIR_BUFFER.pattern,
            )
        }
        state = _below("d/", arrays)
        if state:
            network = discriminator.read_architecture(state, where)
            check_filters(state, where, gain=1.0)
            architectures["discriminator"] = registry.describe(network)
            sections["discriminator"] = Section(
                discriminator.entries(network.resolution),
                shapes(architectures["discriminator"]),
                prefix="d/",
                ignore=FIR_BUFFER.pattern,
            )
        if "latent_avg" in arrays:
            sections["w_avg"] = w_avg_section(arrays["latent_avg"], generator)
        parts = apply_sections(arrays, sections, where=where)
        if "w_avg" in parts:
            parts["w_avg"], shape = read_w_avg(parts["w_avg"])
            return Conversion(parts, architectures, extra | shape, left_out)
        parts["w_avg"] = sample_w_avg(parts["generator"].variables, architectures["generator"])
        extra["w_avg"] = {"samples": SAMPLES, "seed": SEED}
        return Conversion(parts, architectures, extra, left_out)

    def restore(self, weights: Weights) -> dict[str, Any]:
        """`g_ema`, `latent_avg`, and `d` where the weights have a discriminator."""
        if "generator" not in weights.variables:
            raise InputError(f"{weights.directory}: no generator in these weights")
        architectures = weights.metadata["architectures"]
        generator = restore_generator(weights.variables["generator"], architectures["generator"])
        content: dict[str, Any] = {"g_ema": generator}
        if "w_avg" in weights.variables:
            extra = weights.metadata["extra"]
            content["latent_avg"] = restore_w_avg(weights.variables["w_avg"], extra)
        if "discriminator" in weights.variables:
            content["d"] = discriminator.restore(
                weights.variables["discriminator"], architectures["discriminator"]
            )
        return content


FAMILIES = (StyleGAN2Family(),)
