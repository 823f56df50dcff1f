"""StyleGAN2 in rosinality's PyTorch layout: `g_ema` and `latent_avg`, of any size and width.

The files "stylegan2-ffhq-config-f.pt" and the like, and those that his trainer writes. The copy in
training, the discriminator and the optimizers of the latter are left out, and said to be.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.resample import FIR
from interestyle_jax.models.stylegan2 import Generator
from tools.convert_weights.conversion import Conversion, Family, shapes
from tools.convert_weights.source_file import SourceFile, keys
from tools.convert_weights.tensor_map import DENSE, MAP, Entry, Layout, Mapped, apply_map

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
LEFT_OUT = r"(g|d|g_optim|d_optim)/.*|ada_aug_p"


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


def read_architecture(arrays: Mapping[str, np.ndarray], where: str) -> Generator:
    """The generator whose weights these are, from shapes and the number of layers alone.

    Raises:
      InputError: a key that tells the architecture is missing or has too few axes.
    """
    try:
        mapping_depth = sum(1 for k in arrays if re.fullmatch(r"style\.\d+\.weight", k))
        levels = sum(1 for k in arrays if re.fullmatch(r"to_rgbs\.\d+\.bias", k))
        resolution = 4 << levels
        w_dim, z_dim = arrays["style.1.weight"].shape
        widths = {4: arrays["input.input"].shape[1]}
        for i in range(levels):
            widths[8 << i] = arrays[f"convs.{2 * i}.conv.weight"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{where}: no StyleGAN2 generator can be read from it ({error})"
        ) from error
    return Generator(
        resolution=resolution,
        w_dim=w_dim,
        z_dim=z_dim,
        mapping_depth=mapping_depth,
        channel_base=max(size * width for size, width in widths.items()),
        channel_max=max(widths.values()),
    )


def check_filters(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raises InputError where a fixed FIR buffer is not outer([1, 3, 3, 1]) / 64, times 4."""
    expected = 4 * np.outer(FIR, FIR)
    for key, array in arrays.items():
        if FIR_BUFFER.fullmatch(key) and not (
            array.shape == expected.shape and np.allclose(array, expected, atol=1e-6)
        ):
            raise InputError(f"{where}: {key} is another filter than [1, 3, 3, 1]")


def convert_generator(
    arrays: Mapping[str, np.ndarray], where: str
) -> tuple[Mapped, dict[str, object]]:
    """One generator from its state dict; returns the part and its architecture.

    Raises:
      InputError: keys missing, unused or of another shape, or another FIR filter.
    """
    generator = read_architecture(arrays, where)
    check_filters(arrays, where)
    architecture = registry.describe(generator)
    entries = generator_entries(generator.resolution, generator.mapping_depth)
    part = apply_map(arrays, entries, shapes(architecture), where=where, ignore=FIR_BUFFER.pattern)
    return part, architecture


class StyleGAN2Family(Family):
    """`stylegan2`."""

    name = "stylegan2"
    licence = LICENCE

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the averaged generator's constant input."""
        return "g_ema/input.input" in keys(sources)

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """The averaged generator and the mean latent of one file."""
        where = " + ".join(str(s.path) for s in sources)
        arrays: dict[str, np.ndarray] = {}
        for source in sources:
            arrays |= source.arrays()
        prefix = "g_ema/"
        own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        part, architecture = convert_generator(own, where)
        outer = {k: v for k, v in arrays.items() if not k.startswith(prefix)}
        if "latent_avg" not in outer:
            raise InputError(f"{where}: no latent_avg in it, expected the mean latent [512]")
        w_avg = apply_map(
            outer,
            [Entry("latent_avg", "w_avg")],
            {"w_avg": (architecture["w_dim"],)},
            where=where,
            ignore=LEFT_OUT,
        )
        w_avg = dataclasses.replace(w_avg, variables=w_avg.variables["w_avg"])
        return Conversion({"generator": part, "w_avg": w_avg}, {"generator": architecture})


FAMILIES = (StyleGAN2Family(),)
