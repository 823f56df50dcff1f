"""Networks by name: what a weight directory's metadata says, as a module, and back."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from interestyle_jax.models import backend
from interestyle_jax.models.attributes import AttributeNetwork
from interestyle_jax.models.clip import CLIP
from interestyle_jax.models.discriminator import Discriminator
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.models.graphonomy import Graphonomy
from interestyle_jax.models.inception import MIN_SIZE, Inception
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.lpips import LPIPS
from interestyle_jax.models.moco import MocoEmbedder
from interestyle_jax.models.mtcnn import ONet, PNet, RNet
from interestyle_jax.models.progressive import (
    Encoder4Editing,
    ProgressiveBackboneEncoder,
    ResNetProgressiveBackboneEncoder,
)
from interestyle_jax.models.pyramid_encoders import GradualStyleEncoder
from interestyle_jax.models.resnet import ResNetTrunk
from interestyle_jax.models.styleclip_mapper import StyleMapper, StyleSpaceMapper
from interestyle_jax.models.stylegan2 import Generator

Module = nn.Module

# Fields that say how to compute, not which weights fit: they are not part of an architecture.
COMPUTE_FIELDS = ("parent", "name", "dtype", "remat", "form", "local_batch_norm")


def _example(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _encoder_example(m: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (_example(1, m.input_size, m.input_size, m.input_channels),)


# Class -> the shapes of inputs that initialise every one of its variables.
EXAMPLES: dict[type[nn.Module], Callable[[Any], tuple[Any, ...]]] = {
    Generator: lambda m: (_example(1, m.z_dim),),
    Discriminator: lambda m: (_example(1, m.resolution, m.resolution, 3),),
    BackboneEncoder: _encoder_example,
    ProgressiveBackboneEncoder: _encoder_example,
    ResNetBackboneEncoder: _encoder_example,
    ResNetProgressiveBackboneEncoder: _encoder_example,
    GradualStyleEncoder: _encoder_example,
    Encoder4Editing: _encoder_example,
    ResNetTrunk: lambda m: (_example(1, 64, 64, 3),),
    LatentDiscriminator: lambda m: (_example(1, m.w_dim),),
    LPIPS: lambda m: (_example(1, 64, 64, 3), _example(1, 64, 64, 3)),
    FaceEmbedder: lambda m: (_example(1, m.input_size, m.input_size, 3),),
    MocoEmbedder: lambda m: (_example(1, m.input_size, m.input_size, 3),),
    PNet: lambda m: (_example(1, 12, 12, 3),),
    RNet: lambda m: (_example(1, 24, 24, 3),),
    ONet: lambda m: (_example(1, 48, 48, 3),),
    Graphonomy: lambda m: (_example(1, 64, 64, 3),),
    Inception: lambda m: (_example(1, MIN_SIZE, MIN_SIZE, 3),),
    AttributeNetwork: lambda m: (_example(1, m.resolution, m.resolution, 3),),
    StyleMapper: lambda m: (_example(1, m.num_styles, m.w_dim),),
    StyleSpaceMapper: lambda m: (tuple(_example(1, count) for count in m.channels),),
    CLIP: lambda m: (
        _example(1, m.image_size, m.image_size, 3),
        jax.ShapeDtypeStruct((1, m.context_length), jnp.int32),
    ),
}
CLASSES = {cls.__name__: cls for cls in EXAMPLES}


def _freeze(value: Any) -> Any:
    """JSON lists become tuples, so that module fields stay hashable."""
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


def _thaw(value: Any) -> Any:
    return [_thaw(v) for v in value] if isinstance(value, list | tuple) else value


def _fields(cls: type[nn.Module]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.name not in COMPUTE_FIELDS]


def build(architecture: Mapping[str, Any], **compute: Any) -> nn.Module:
    """The module that an architecture names.

    Args:
      architecture: {"type": class name, field: value, ...}, as `describe` writes it.
      **compute: fields outside the architecture, such as `dtype` where the class has one; what the
        backend decides (`models.backend`) unless it is given.

    Raises:
      ValueError: unknown type or field; the message lists the known ones.
    """
    fields = {k: _freeze(v) for k, v in architecture.items() if k != "type"}
    name = architecture.get("type")
    if name not in CLASSES:
        raise ValueError(f"network type is {name!r}, expected one of {', '.join(sorted(CLASSES))}")
    known = _fields(CLASSES[name])
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(
            f"{name} has no field {', '.join(unknown)}, expected some of {', '.join(known)}"
        )
    decided = {k: v for k, v in backend.compute_fields().items() if has_field(architecture, k)}
    return CLASSES[name](**fields, **decided | compute)


def has_field(architecture: Mapping[str, Any], field: str) -> bool:
    """Whether the class that an architecture names has a field, e.g. `dtype`."""
    cls = CLASSES.get(architecture.get("type"))
    return cls is not None and field in {f.name for f in dataclasses.fields(cls)}


def describe(module: nn.Module) -> dict[str, Any]:
    """The architecture of a module: a JSON-able dict with which `build` makes an equal one.

    Raises:
      ValueError: the module's class is not one of the registry's.
    """
    cls = type(module)
    if cls not in EXAMPLES:
        raise ValueError(f"network type is {cls.__name__!r}, expected one of {', '.join(CLASSES)}")
    return {"type": cls.__name__} | {k: _thaw(getattr(module, k)) for k in _fields(cls)}


def init(key: PRNGKeyArray, module: nn.Module) -> dict[str, Any]:
    """Fresh variables of a registered module, {collection: tree}; works under `jax.jit`.

    Raises:
      ValueError: the module's class is not one of the registry's.
    """
    describe(module)
    examples = EXAMPLES[type(module)](module)
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), examples)
    return module.init(key, *inputs)


def variable_shapes(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The variables an architecture has, {collection: tree of jax.ShapeDtypeStruct}; computes none.

    Raises:
      ValueError: as `build`.
    """
    return shapes_of(build(architecture))


def shapes_of(module: nn.Module) -> dict[str, Any]:
    """As `variable_shapes`, of a registered module.

    Raises:
      ValueError: the module's class is not one of the registry's.
    """
    return _traced_init.eval_shape(jax.random.key(0), module)


# Equal modules are traced once.
_traced_init = jax.jit(init, static_argnums=1)
