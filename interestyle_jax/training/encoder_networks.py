"""The networks of an encoder's training: the encoder, and what stays frozen around it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections

from interestyle_jax.errors import InputError
from interestyle_jax.inversion.refinement import start_from
from interestyle_jax.models.registry import Module, build, has_field, init
from interestyle_jax.training.precision import compute_dtype, store_frozen
from interestyle_jax.training.task import PyTree
from interestyle_jax.weights import load_weights, resolve_weights


class EncoderNetworks(NamedTuple):
    """Modules and variables.

    Attributes:
      encoder: the module that is trained.
      shapes: its variables as `jax.ShapeDtypeStruct`.
      generator: the frozen generator's module.
      generator_part: its architecture and variables, as they were read.
      w_avg: the mean latent, [D] or [L, D].
      lpips: module of the perceptual distance, None without.
      embedder: module of the identity loss, None without.
      frozen: {"generator", "w_0" [1, L, D], "image_0" [1, R, R, 3]} and, where given, {"lpips",
        "embedder"}: variables as NumPy arrays, as steps take them.
    """

    encoder: Module
    shapes: PyTree
    generator: Module
    generator_part: tuple[dict[str, Any], PyTree]
    w_avg: Any
    lpips: Module | None
    embedder: Module | None
    frozen: PyTree


def load_networks(config: ml_collections.ConfigDict) -> EncoderNetworks:
    """Reads the networks that `config.weights` names and builds that of `config.encoder`.

    A term of the loss whose network (`config.weights.lpips`, `.id`) is "" is left out. The picture
    of the mean latent is drawn once, here.

    Raises:
      InputError: weights that are missing or lack a part, or an encoder that does not fit them.
    """
    names, dtype = config.weights, compute_dtype(config)

    def compute(architecture: Mapping[str, Any]) -> dict[str, Any]:
        options = {"dtype": dtype, "remat": config.remat == "block"}
        return {k: v for k, v in options.items() if has_field(architecture, k)}

    def part(name_or_dir: str, name: str):
        weights = load_weights(resolve_weights(name_or_dir))
        architecture = weights.metadata["architectures"].get(name, {})
        return weights, architecture, *weights.part(name, **compute(architecture))

    if not names.generator:
        raise InputError("config.weights.generator: expected a weight directory, got ''")
    weights, architecture, generator, variables = part(names.generator, "generator")
    if "w_avg" not in weights.variables:
        raise InputError(f"{weights.directory}: no w_avg in these weights")
    w_avg = weights.variables["w_avg"]
    w_0, image_0 = _start(generator, variables, w_avg)
    networks, lpips, embedder = {"generator": variables}, None, None
    if names.lpips:
        *_, lpips, networks["lpips"] = part(names.lpips, "lpips")
    if names.id:
        *_, embedder, networks["embedder"] = part(names.id, "embedder")
    fields = {
        "num_styles": generator.num_styles,
        "w_dim": generator.w_dim,
        "input_channels": 6,
    } | config.encoder.to_dict()
    try:
        encoder = build(fields, **compute(fields))
        shapes = jax.eval_shape(lambda key: init(key, encoder), jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise InputError(f"config.encoder: {error}") from error
    for field in ("num_styles", "w_dim"):
        own, needed = getattr(encoder, field), getattr(generator, field)
        if own != needed:
            raise InputError(
                f"config.encoder.{field}: {own}, but the generator of {names.generator} has "
                f"{needed}; leave it out, or give other weights"
            )
    return EncoderNetworks(
        encoder=encoder,
        shapes=shapes,
        generator=generator,
        generator_part=(architecture, variables),
        w_avg=w_avg,
        lpips=lpips,
        embedder=embedder,
        frozen=store_frozen(networks, dtype) | {"w_0": w_0, "image_0": image_0},
    )


def _start(generator: Module, variables: PyTree, w_avg: Any) -> tuple[Any, Any]:
    @jax.jit
    def start(variables, w_avg):
        return start_from(
            lambda w, _: generator.apply(variables, w, "const", method="synthesize"),
            w_avg,
            generator.num_styles,
        )

    return jax.device_get(start(variables, w_avg))
