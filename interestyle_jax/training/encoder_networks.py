"""The networks of an encoder's training: the encoder, and what stays frozen around it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.refinement import pool_to, start_from
from interestyle_jax.inversion.resize import Shape, crop_to_shape
from interestyle_jax.models.registry import Module, build, has_field, shapes_of
from interestyle_jax.parallel import processes
from interestyle_jax.parallel.agreement import check_same_content
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
      image_shape: height and width of the encoder's input.
      lpips: module of the perceptual distance, None without.
      embedder: module of the identity loss, None without.
      frozen: {"generator", "w_0" [1, L, D], "image_0" [1, H, W, 3]} and, where given, {"lpips",
        "embedder"}: variables as NumPy arrays, as steps take them.
      digests: {field of `config.weights`: digest} of what was read. The image of the mean latent
        is not in them: its bits are the machine's.
    """

    encoder: Module
    shapes: PyTree
    generator: Module
    generator_part: tuple[dict[str, Any], PyTree]
    w_avg: Any
    image_shape: Shape
    lpips: Module | None
    embedder: Module | None
    frozen: PyTree
    digests: dict[str, str]


def load_networks(config: ml_collections.ConfigDict) -> EncoderNetworks:
    """Reads the networks that `config.weights` names and builds that of `config.encoder`.

    A term of the loss whose network (`config.weights.lpips`, `.id`) is "" is left out. The image
    of the mean latent is drawn once, here, by the first process.

    Raises:
      InputError: weights that are missing or lack a part, or an encoder that does not fit them.
    """
    names, dtype = config.weights, compute_dtype(config)

    def compute(architecture: Mapping[str, Any]) -> dict[str, Any]:
        options = {
            "dtype": dtype,
            "remat": config.remat == "block",
            "local_batch_norm": config.batch_norm == "local",
        }
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
        shapes = shapes_of(encoder)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.encoder: {error}") from error
    for field in ("num_styles", "w_dim"):
        own, needed = getattr(encoder, field), getattr(generator, field)
        if own != needed:
            raise InputError(
                f"config.encoder.{field}: {own}, but the generator of {names.generator} has "
                f"{needed}; leave it out, or give other weights"
            )
    digests = {
        field: fingerprint_arrays(read)
        for field, read in (
            ("generator", (variables, w_avg)),
            ("lpips", networks.get("lpips")),
            ("id", networks.get("embedder")),
        )
        if read is not None
    }
    check_same_content({f"config.weights.{field}": digest for field, digest in digests.items()})
    shape = _image_shape(config, encoder.input_size, generator.resolution)
    w_0, image_0 = processes.tree_of_first(lambda: _start(generator, variables, w_avg, shape))
    return EncoderNetworks(
        encoder=encoder,
        shapes=shapes,
        generator=generator,
        generator_part=(architecture, variables),
        w_avg=w_avg,
        image_shape=shape,
        lpips=lpips,
        embedder=embedder,
        frozen=store_frozen(networks, dtype) | {"w_0": w_0, "image_0": image_0},
        digests=digests,
    )


def _image_shape(config: ml_collections.ConfigDict, input_size: int, resolution: int) -> Shape:
    """`config.image_shape`, checked; the encoder's square where it is empty."""
    shape = tuple(config.image_shape) or (input_size, input_size)
    if len(shape) != 2 or min(shape) < 1 or max(shape) != input_size:
        raise InputError(
            f"config.image_shape: {shape}, expected height and width, the longer of them the "
            f"encoder's input size, {input_size}"
        )
    square = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
    try:
        jax.eval_shape(lambda x: pool_to(crop_to_shape(x, shape), shape), square)
    except ValueError as error:
        raise InputError(f"config.image_shape: {error}") from error
    return shape


def _start(
    generator: Module, variables: PyTree, w_avg: Any, shape: Shape
) -> tuple[jax.Array, jax.Array]:
    @jax.jit
    def start(variables, w_avg):
        def synthesize(w, _):
            drawn = generator.apply(variables, w, "const", method="synthesize")
            return crop_to_shape(drawn, shape)

        return start_from(synthesize, w_avg, generator.num_styles)

    return start(variables, w_avg)
