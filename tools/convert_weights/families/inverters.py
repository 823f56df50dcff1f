"""Encoder and generator in one file: pSp, e4e, ReStyle over either, and IntereStyle.

All have `state_dict` (encoder.*, decoder.*), `opts` and mostly `latent_avg`. Tensors show pyramid
or backbone encoder and 3 or 6 input channels. The rest is in `opts`: `encoder_type` names
progressive encoders, whose tensors are as those of the others; IntereStyle's options have
`apply_mask_loss` and a `torch.device`. Where an iterative file has neither, it is called
`restyle_psp`, whose network is the same. Where nothing shows whether the encoder is progressive,
several families fit, and `--family` has to say.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.progressive import (
    PROGRESSIVE,
    Encoder4Editing,
    ProgressiveBackboneEncoder,
    ResNetProgressiveBackboneEncoder,
)
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.weights import Weights

from .. import inverter_options as options
from .. import noise_buffers
from ..conversion import Conversion, Family, shapes
from ..encoder_table import (
    Encoder,
    encoder_entries,
    form_of,
    input_channels,
    read_encoder,
)
from ..mean_latent import SAMPLES, SEED, read_w_avg, restore_w_avg, sample_w_avg, w_avg_section
from ..noise_buffers import draw_missing
from ..source_file import SourceFile
from ..tensor_map import NOTHING, Entry, Section, apply_sections, restore_map
from ..torch_modules import COUNTERS, dense, state_dict
from .stylegan2 import (
    FIR_BUFFER,
    check_filters,
    generator_entries,
    noise_shapes,
    read_architecture,
    restore_generator,
)

LICENCE = (
    "that of the checkpoint's author; the generator inside is mostly NVIDIA's StyleGAN2, under the "
    "Nvidia Source Code License-NC, for non-commercial use"
)
ENCODER = "state_dict/encoder."
DECODER = "state_dict/decoder."
LATENT_DISCRIMINATOR = "discriminator_state_dict/"
# State of the optimizers and the trainers' counters.
LEFT_OUT = re.compile(
    r"(optimizer|discriminator_optimizer_state_dict)(/.*)?|global_step|best_val_loss"
)
KNOWN = ("state_dict", "opts", "latent_avg", "discriminator_state_dict")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one file becomes a weight directory.

    Attributes:
      arrays: {key: array} of all that has to be consumed.
      sections: {part: what becomes of it}.
      modules: {part: network}.
      opts: the file's options.
      ignored: keys left out on purpose.
      noise_is_drawn: whether the file has no noise buffers.
    """

    arrays: dict[str, np.ndarray]
    sections: dict[str, Section]
    modules: dict[str, registry.Module]
    opts: Mapping[str, Any]
    ignored: tuple[str, ...]
    noise_is_drawn: bool = False


class InverterFamily(Family):
    """`psp`, `e4e`, `restyle_psp`, `restyle_e4e` or `interestyle`."""

    licence = LICENCE

    def __init__(self, name: str, channels: int, encoders: Mapping[str, type[Encoder]]):
        self.name = name
        self.channels = channels
        self.encoders = encoders

    def matches(self, sources: Sequence[SourceFile]) -> bool:
        """By the encoder's keys and input channels, then by the options; see the file's text."""
        if len(sources) != 1:
            return False
        content = sources[0].content
        return self in _candidates(content, _below(sources[0].arrays(), ENCODER))

    def convert(self, sources: Sequence[SourceFile]) -> Conversion:
        """Encoder, generator, mean latent and, where there is one, the latent discriminator.

        `extra` holds what `inverter_options.as_extra` says, "image_shape", rows and columns of
        the encoder's input, "noise" where buffers were drawn, and "latent_avg_shape" where it was
        [1, D], which is stored as [D].
        """
        where = " + ".join(str(s.path) for s in sources)
        plan = self.plan(sources)
        parts = apply_sections(plan.arrays, plan.sections, where=where)
        architectures = {k: registry.describe(m) for k, m in plan.modules.items()}
        extra = options.as_extra(plan.opts)
        extra["image_shape"] = options.image_shape(plan.opts, plan.modules["encoder"])
        if plan.noise_is_drawn:
            extra["noise"] = {"seed": noise_buffers.SEED}
        if "w_avg" in parts:
            parts["w_avg"], shape = read_w_avg(parts["w_avg"])
            extra |= shape
        else:
            parts["w_avg"] = sample_w_avg(parts["generator"].variables, architectures["generator"])
            extra["w_avg"] = {"samples": SAMPLES, "seed": SEED}
        notes = options.notes(plan.opts, plan.modules["encoder"])
        return Conversion(parts, architectures, extra, plan.ignored, notes)

    def plan(self, sources: Sequence[SourceFile]) -> Plan:
        """What `convert` will do, from keys and shapes alone.

        Raises:
          InputError: not one file, not this family's encoder, or no network can be read from it.
        """
        where = " + ".join(str(s.path) for s in sources)
        if len(sources) != 1:
            raise InputError(f"{where}: {len(sources)} files, expected one")
        content = sources[0].content
        opts = options.read(content, where)
        arrays = {
            k: v
            for k, v in sources[0].arrays().items()
            if not LEFT_OUT.fullmatch(k) and not k.startswith("opts/")
        }
        used = {k.split("/")[0] for k in arrays}
        ignored = tuple(k for k in content if k not in used and k not in KNOWN)
        encoder = self._read_encoder(_below(arrays, ENCODER), opts, where)
        state = _below(arrays, DECODER)
        generator = read_architecture(state, where)
        check_filters(state, where)
        noise = draw_missing(state, noise_shapes(generator.resolution))
        arrays |= {DECODER + key: array for key, array in noise.items()}
        if encoder.num_styles != generator.num_styles:
            raise InputError(
                f"{where}: the encoder has {encoder.num_styles} styles, expected "
                f"{generator.num_styles} for its generator of {generator.resolution} pixels"
            )
        modules = {"encoder": encoder, "generator": generator}
        entries = {
            "encoder": encoder_entries(encoder),
            "generator": generator_entries(generator.resolution, generator.mapping_depth),
        }
        prefixes = {"encoder": ENCODER, "generator": DECODER}
        own = _below(arrays, LATENT_DISCRIMINATOR)
        if own:
            modules["latent_discriminator"] = _read_discriminator(own, where)
            entries["latent_discriminator"] = _discriminator_entries(
                modules["latent_discriminator"].depth
            )
            prefixes["latent_discriminator"] = LATENT_DISCRIMINATOR
        sections = {
            name: Section(
                entries[name],
                shapes(registry.describe(module)),
                prefix=prefixes[name],
                ignore=FIR_BUFFER.pattern if name == "generator" else NOTHING,
                keep=COUNTERS if name == "encoder" else NOTHING,
            )
            for name, module in modules.items()
        }
        if "latent_avg" in arrays:
            sections["w_avg"] = w_avg_section(arrays["latent_avg"], generator)
        return Plan(arrays, sections, modules, opts, ignored, noise_is_drawn=bool(noise))

    def restore(self, weights: Weights) -> dict[str, Any]:
        """`state_dict`, `opts`, `latent_avg`, and `discriminator_state_dict` where there is one.

        Weights without options, as a run here trains them, get those that the official code needs
        to build the networks, and the encoder's architecture where the shapes do not show it. (Such
        an encoder is none of the official ones, and the official code cannot build it.)
        """
        for part in ("encoder", "generator", "w_avg"):
            if part not in weights.variables:
                raise InputError(f"{weights.directory}: no {part} in these weights")
        extra = weights.metadata["extra"]
        encoder, variables = weights.part("encoder")
        counters = extra.get("kept", {}).get("encoder", {})
        state = state_dict(variables, encoder_entries(encoder), counters)
        generator = weights.metadata["architectures"]["generator"]
        decoder = restore_generator(weights.variables["generator"], generator)
        w_avg = weights.variables["w_avg"]
        opts = options.restore(extra)
        if not opts:
            opts = options.needed(self.name, encoder, generator["resolution"])
            if read_encoder(state, type(encoder), str(weights.directory)) != encoder:
                opts[options.ARCHITECTURE] = registry.describe(encoder)
        content = {
            "state_dict": {f"encoder.{k}": v for k, v in state.items()}
            | {f"decoder.{k}": v for k, v in decoder.items()},
            "latent_avg": restore_w_avg(w_avg, extra),
            "opts": opts,
        }
        if "latent_discriminator" in weights.variables:
            module, variables = weights.part("latent_discriminator")
            entries = _discriminator_entries(module.depth)
            content["discriminator_state_dict"] = restore_map(variables, entries)
        return content

    def _read_encoder(
        self, arrays: Mapping[str, np.ndarray], opts: Mapping[str, Any], where: str
    ) -> Encoder:
        form, channels = form_of(arrays), input_channels(arrays)
        if form not in self.encoders or channels != self.channels:
            found = f"a {form} encoder of {channels} channels" if form else "no encoder"
            raise InputError(
                f"{where}: has {found}, expected for family {self.name} "
                f"{' or '.join(self.encoders)} of {self.channels} channels"
            )
        encoder_class = self.encoders[form]
        stated = opts.get("encoder_type", encoder_class.__name__)
        if stated != encoder_class.__name__:
            raise InputError(
                f"{where}: opts say encoder_type {stated!r}, expected {encoder_class.__name__!r} "
                f"for family {self.name}"
            )
        encoder = options.stated_encoder(opts, where)
        if encoder is None:
            return read_encoder(arrays, encoder_class, where)
        if type(encoder) is not encoder_class:
            raise InputError(
                f"{where}: opts/{options.ARCHITECTURE} is a {type(encoder).__name__}, expected "
                f"{encoder_class.__name__}"
            )
        return encoder


def _candidates(
    content: Mapping[str, Any], encoder: Mapping[str, np.ndarray]
) -> list[InverterFamily]:
    """The families that such a file can be of."""
    form, channels = form_of(encoder), input_channels(encoder)
    found = [f for f in FAMILIES if form in f.encoders and f.channels == channels]
    opts = content.get("opts")
    opts = opts if isinstance(opts, Mapping) else {}
    progressive = options.of_progressive(opts) or "discriminator_state_dict" in content
    if "encoder_type" in opts:
        found = [f for f in found if f.encoders[form].__name__ == opts["encoder_type"]]
    elif progressive:
        found = [f for f in found if f.encoders[form] in PROGRESSIVE]
    elif channels == 3 and "output_size" in opts:
        found = [f for f in found if f.encoders[form] not in PROGRESSIVE]
    unlikely = "restyle_psp" if options.of_interestyle(opts) else "interestyle"
    return [f for f in found if f.name != unlikely]


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _read_discriminator(arrays: Mapping[str, np.ndarray], where: str) -> LatentDiscriminator:
    layers = [k for k in arrays if re.fullmatch(r"mlp\.\d+\.weight", k)]
    if "mlp.0.weight" not in arrays:
        raise InputError(f"{where}: discriminator_state_dict has no mlp.0.weight")
    return LatentDiscriminator(w_dim=arrays["mlp.0.weight"].shape[0], depth=len(layers))


def _discriminator_entries(depth: int) -> list[Entry]:
    return [e for i in range(depth) for e in dense(f"mlp.{2 * i}", f"dense_{i}")]


FAMILIES = (
    InverterFamily("psp", 3, {"pyramid": GradualStyleEncoder}),
    InverterFamily("e4e", 3, {"pyramid": Encoder4Editing}),
    InverterFamily(
        "restyle_psp",
        6,
        {
            "backbone": BackboneEncoder,
            "resnet": ResNetBackboneEncoder,
            "pyramid": GradualStyleEncoder,
        },
    ),
    InverterFamily(
        "restyle_e4e",
        6,
        {"backbone": ProgressiveBackboneEncoder, "resnet": ResNetProgressiveBackboneEncoder},
    ),
    InverterFamily(
        "interestyle",
        6,
        {
            "backbone": BackboneEncoder,
            "resnet": ResNetBackboneEncoder,
            "pyramid": GradualStyleEncoder,
        },
    ),
)
