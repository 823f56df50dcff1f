"""The programs that a device report measures, with random weights of the official shapes."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from interestyle_jax.config.files import read_config
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.models import registry, strided_conv
from interestyle_jax.weights import save_weights

# "plain" is "separable" with up-convolutions over zero-inserted maps, as on a CPU.
FORMS = ("separable", "plain", "fused", "blocks")
EMBEDDER = {"type": "FaceEmbedder"}
TINY_GENERATOR = {
    "type": "Generator",
    "resolution": 32,
    "w_dim": 8,
    "z_dim": 8,
    "mapping_depth": 1,
    "channel_base": 512,
    "channel_max": 64,
}
TINY_ENCODER = {
    "type": "BackboneEncoder",
    "input_size": 16,
    "units": (1, 1),
    "widths": (4, 4, 8),
    "head_width": 4,
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured, "full" or "tiny".

    Attributes:
      generator: its architecture.
      matrix: side of the ceilings' matrices.
      copied: floats of the copied array.
      iterations: N.
      dtype: of the networks' maps.
    """

    generator: dict[str, Any]
    matrix: int
    copied: int
    iterations: int
    dtype: str


SIZES = {
    "full": Sizes({"type": "Generator"}, 8192, 2**28, 5, "bfloat16"),
    "tiny": Sizes(TINY_GENERATOR, 64, 2**12, 2, "float32"),
}


@contextlib.contextmanager
def in_form(form: str) -> Iterator[str]:
    """The `Generator.form` of one of `FORMS`; programs are traced inside."""
    if form != "plain":
        yield form
        return
    # What was traced before holds the other convolution.
    jax.clear_caches()
    with mock.patch.object(strided_conv, "zero_inserted_conv", strided_conv._as_convolution):
        yield "separable"
    jax.clear_caches()


def random_variables(module: Any, *, seed: int = 0) -> dict[str, Any]:
    """Variables of a registered module as NumPy arrays, kernels as initialisation scales them.

    Args:
      module: from `registry.build`.
      seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    is_generator = isinstance(module, registry.Generator)

    def draw(path, leaf):
        names = [str(getattr(part, "key", part)) for part in path]
        last = names[-1]
        if last.endswith("kernel") or last in ("noise", "input"):
            fan_in = 1 if is_generator or leaf.ndim < 2 else leaf.size / leaf.shape[-1]
            return (rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(
                leaf.dtype
            )
        if last in ("scale", "var", "alpha") or "modulation" in names:
            return np.ones(leaf.shape, leaf.dtype)
        return np.full(leaf.shape, 0.1 if last == "noise_strength" else 0.0, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, registry.shapes_of(module))


def synthesis(
    sizes: Sizes, variables: Any, form: str, batch: int, *, dtype: str | None = None
) -> tuple[Any, tuple]:
    """`G.synthesize` as a jitted function with its arguments; see `in_form` for `form`.

    Args:
      sizes: of the generator.
      variables: of the generator, on the device.
      form: of the generator.
      batch: images.
      dtype: of its maps, that of `sizes` by default.
    """
    compute = {"form": form, "dtype": jnp.dtype(dtype or sizes.dtype)}
    generator = registry.build(sizes.generator, **compute)
    shape = (batch, generator.num_styles, generator.w_dim)
    w_plus = jax.random.normal(jax.random.key(1), shape)

    def synthesize(variables, w_plus):
        return generator.apply(variables, w_plus, method="synthesize")

    return jax.jit(synthesize), (variables, w_plus)


def inversion(sizes: Sizes, variables: Any, batch: int) -> tuple[Any, tuple]:
    """`Model.invert`, N iterations, the last image kept, as `synthesis`."""
    generator = registry.build(sizes.generator)
    fields = _encoder_fields(sizes, generator)
    encoder = registry.build(fields)
    parts = {
        "generator": variables,
        "encoder": jax.device_put(random_variables(encoder)),
        "w_avg": jnp.zeros(generator.w_dim),
    }
    architectures = {"generator": sizes.generator, "encoder": registry.describe(encoder)}
    metadata = {"architectures": architectures, "extra": {}}
    side = encoder.input_size
    images = jax.random.uniform(jax.random.key(2), (batch, side, side, 3), minval=-1.0)

    def invert(parts, images):
        model = Model(parts, metadata, Path("random"), sizes.dtype)
        return model.invert(images, sizes.iterations, return_images="last")

    return jax.jit(invert), (parts, images)


def _encoder_fields(sizes: Sizes, generator: Any) -> dict[str, Any]:
    tiny = sizes is SIZES["tiny"]
    fields = TINY_ENCODER if tiny else read_config("interestyle_ffhq").encoder.to_dict()
    rows = {"num_styles": generator.num_styles, "w_dim": generator.w_dim, "input_channels": 6}
    return rows | fields


def training_config(
    sizes: Sizes, batch: int, folder: Path, overrides: list[str]
) -> ml_collections.ConfigDict:
    """configs/interestyle_ffhq.py with random weights, which are written to `folder` once."""
    config = read_config("interestyle_ffhq", overrides=overrides)
    parts = {"generator": sizes.generator}
    with config.unlocked():
        config.batch_size = batch
        config.compute_dtype = sizes.dtype
        config.weights.trunk = config.weights.id = ""
        config.method.num_iterations = sizes.iterations
        if sizes is SIZES["tiny"]:
            config.encoder = TINY_ENCODER
            config.weights.lpips = ""
            config.loss.id = config.loss.lpips = 0.0
            config.method.filter_reference = 16
            config.method.filter_radii = config.method.filter_radii[: sizes.iterations - 1]
        else:
            parts["id"] = EMBEDDER
        for field, architecture in parts.items():
            config.weights[field] = str(_written(folder / field, architecture))
    return config


def _written(directory: Path, architecture: dict[str, Any]) -> Path:
    if directory.exists():
        return directory
    module = registry.build(architecture)
    part = "generator" if architecture["type"] == "Generator" else "embedder"
    more = {"w_avg": np.zeros(module.w_dim, np.float32)} if part == "generator" else {}
    return save_weights(
        directory,
        {part: random_variables(module), **more},
        family="random",
        architectures={part: registry.describe(module)},
        licence="none",
    )


def training_step(config: ml_collections.ConfigDict) -> tuple[Callable[[], Any], Any, tuple]:
    """The train loop's own step on one device.

    Returns:
      A function that makes the donated state anew, the jitted step `(state, frozen, batch,
      phase) -> (state, metrics)`, and its frozen networks and batch.
    """
    from interestyle_jax.parallel import sharding
    from interestyle_jax.training.compiled_step import jit_train_step, step_places
    from interestyle_jax.training.encoder_task import EncoderTask
    from interestyle_jax.training.random_streams import SeededTask

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    task = EncoderTask(config)
    seeded = SeededTask(task, config.seed)
    shapes = jax.eval_shape(seeded.init, seeded.initial)
    places = step_places(config, mesh, shapes, seeded.frozen)

    def make_state():
        drawn = random_variables(task.encoder)
        empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        state = empty.replace(params=drawn["params"], batch_stats=drawn["batch_stats"])
        return sharding.put_tree(state, places.state)

    frozen = sharding.put_tree(seeded.frozen, places.frozen)
    rng, batch = np.random.default_rng(0), {}
    for field in task.batch_fields:
        shape = (config.batch_size, *task.networks.image_shape, 1 if "mask" in field else 3)
        drawn = rng.integers(0, 256, shape, dtype=np.uint8)
        batch[field] = np.where(drawn > 127, 255, 0).astype(np.uint8) if shape[-1] == 1 else drawn
    step = jit_train_step(seeded, mesh, places)
    return make_state, step, (frozen, sharding.put_batch(batch, places.batch))
