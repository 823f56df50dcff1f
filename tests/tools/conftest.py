"""Tiny files of pSp, e4e, ReStyle and IntereStyle, as their trainers write them."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator
from tools.convert_weights.families.stylegan2 import restore_generator
from tools.convert_weights.torch_file import Device

GENERATOR = Generator(
    resolution=32, w_dim=6, z_dim=6, mapping_depth=2, channel_base=128, channel_max=8
)
STYLES, W_DIM, HEAD_WIDTH = 8, 6, 5


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of official file at tiny size; `manifest` is its name at full size."""

    family: str
    encoder_type: str
    manifest: str
    channels: int = 6
    opts: tuple = ()

    @property
    def is_pyramid(self):
        return self.encoder_type in ("GradualStyleEncoder", "Encoder4Editing")

    @property
    def is_resnet(self):
        return "ResNet" in self.encoder_type

    @property
    def is_progressive(self):
        return "Progressive" in self.encoder_type or self.encoder_type == "Encoder4Editing"

    @property
    def options(self):
        size = "stylegan_size" if self.family == "e4e" else "output_size"
        return {
            "encoder_type": self.encoder_type,
            size: 32,
            "device": "cuda:0",
            "dataset_type": "ffhq_encode",
            "lambda": 0.1,
            "checkpoint_path": None,
            "steps": [0, 1],
        } | dict(self.opts)


INTERESTYLE = (("device", Device("cuda:0")), ("apply_mask_loss", True))
CARS = (("dataset_type", "cars_encode"),)
KINDS = {
    "psp": Kind("psp", "GradualStyleEncoder", "psp_ffhq", 3),
    "e4e": Kind("e4e", "Encoder4Editing", "e4e_ffhq", 3),
    "restyle_psp": Kind("restyle_psp", "BackboneEncoder", "restyle_psp_ffhq"),
    "restyle_e4e": Kind("restyle_e4e", "ProgressiveBackboneEncoder", "restyle_e4e_ffhq"),
    "restyle_psp_resnet": Kind(
        "restyle_psp", "ResNetBackboneEncoder", "restyle_psp_resnet_512", opts=CARS
    ),
    "restyle_e4e_resnet": Kind(
        "restyle_e4e", "ResNetProgressiveBackboneEncoder", "restyle_e4e_resnet_256"
    ),
    "interestyle": Kind("interestyle", "BackboneEncoder", "interestyle_ffhq", opts=INTERESTYLE),
}


def batch_norm_shapes(key, width):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{leaf}": (width,) for leaf in leaves} | {f"{key}.num_batches_tracked": ()}


def encoder_shapes(kind):
    """{key: shape} of an encoder in the official naming, written out by hand."""
    shapes, before, widths = {}, 4, (4, 4, 8, 12)
    if kind.is_resnet:
        shapes["conv1.weight"] = (4, kind.channels, 7, 7)
        shapes |= batch_norm_shapes("bn1", 4) | {"relu.weight": (4,)}
    else:
        shapes["input_layer.0.weight"] = (4, kind.channels, 3, 3)
        shapes |= batch_norm_shapes("input_layer.1", 4) | {"input_layer.2.weight": (4,)}
    # Two blocks in the first stage, one in the others.
    for i, width in enumerate((widths[1], widths[1], widths[2], widths[3])):
        key = f"body.{i}"
        if kind.is_resnet:
            shapes[f"{key}.conv1.weight"] = (width, before, 3, 3)
            shapes[f"{key}.conv2.weight"] = (width, width, 3, 3)
            shapes |= batch_norm_shapes(f"{key}.bn1", width)
            shapes |= batch_norm_shapes(f"{key}.bn2", width)
            shortcut = f"{key}.downsample"
        else:
            shapes |= batch_norm_shapes(f"{key}.res_layer.0", before)
            shapes[f"{key}.res_layer.1.weight"] = (width, before, 3, 3)
            shapes[f"{key}.res_layer.2.weight"] = (width,)
            shapes[f"{key}.res_layer.3.weight"] = (width, width, 3, 3)
            shapes |= batch_norm_shapes(f"{key}.res_layer.4", width)
            shapes[f"{key}.res_layer.5.fc1.weight"] = (1, width, 1, 1)
            shapes[f"{key}.res_layer.5.fc2.weight"] = (width, 1, 1, 1)
            shortcut = f"{key}.shortcut_layer"
        if width != before:
            shapes[f"{shortcut}.0.weight"] = (width, before, 1, 1)
            shapes |= batch_norm_shapes(f"{shortcut}.1", width)
        before = width
    for i in range(STYLES):
        # Three halvings in the trunk leave 4 x 4, the pyramid's finer scales 8 x 8 and 16 x 16.
        depth = 2 + (kind.is_pyramid and (i >= 3) + (i >= 7))
        for k in range(depth):
            inputs = 12 if k == 0 else HEAD_WIDTH
            shapes[f"styles.{i}.convs.{2 * k}.weight"] = (HEAD_WIDTH, inputs, 3, 3)
            shapes[f"styles.{i}.convs.{2 * k}.bias"] = (HEAD_WIDTH,)
        shapes[f"styles.{i}.linear.weight"] = (W_DIM, HEAD_WIDTH)
        shapes[f"styles.{i}.linear.bias"] = (W_DIM,)
    if kind.is_pyramid:
        for k, width in ((1, 8), (2, 4)):
            shapes[f"latlayer{k}.weight"] = (12, width, 1, 1)
            shapes[f"latlayer{k}.bias"] = (12,)
    return shapes


def draw(key, shape, rng):
    """One tensor; no value is what an untrained network has, so that none can be forgotten."""
    if key.endswith("num_batches_tracked"):
        return np.array(rng.integers(1, 9), np.int64)
    if len(shape) == 1:
        centre = 1.0 if key.endswith(("weight", "running_var")) else 0.0
        return (centre + rng.uniform(-0.3, 0.3, shape)).astype(np.float32)
    spread = 1.0 if "linear" in key else 1 / np.sqrt(np.prod(shape[1:]))
    return rng.normal(0, spread, shape).astype(np.float32)


def tiny_generator():
    shapes = registry.variable_shapes(registry.describe(GENERATOR))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    return variables, restore_generator(variables, registry.describe(GENERATOR))


def make_checkpoint(kind):
    """The content of a whole file of this kind, as the official trainer writes it."""
    rng = np.random.default_rng(0)
    state = {f"encoder.{k}": draw(k, s, rng) for k, s in encoder_shapes(kind).items()}
    state |= {f"decoder.{k}": v for k, v in tiny_generator()[1].items()}
    content = {
        "state_dict": state,
        "latent_avg": rng.normal(size=(STYLES, W_DIM)).astype(np.float32),
        "opts": kind.options,
    }
    if kind.is_progressive:
        layers = {f"mlp.{i}": (W_DIM, W_DIM) for i in (0, 2, 4)} | {"mlp.6": (1, W_DIM)}
        content["discriminator_state_dict"] = {
            f"{key}.{leaf}": draw(f"{key}.{leaf}", shape if leaf == "weight" else shape[:1], rng)
            for key, shape in layers.items()
            for leaf in ("weight", "bias")
        }
        state = {"0": {"step": 3, "exp_avg": np.zeros(2)}}
        content |= {
            "global_step": 7,
            "best_val_loss": np.array(0.5),
            "optimizer": {"state": state, "param_groups": [{"lr": 1e-4, "params": [0]}]},
            "discriminator_optimizer_state_dict": {"state": {}, "param_groups": []},
        }
    return content


def save(content, path):
    """Writes a file's content with torch.save."""
    import torch

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, Device):
            return torch.device(value)
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    torch.save(plain(content), path)


@pytest.fixture(scope="session")
def official_inverters():
    """Kinds of files by name, their content, the generator in all of them, and how to save one."""
    return types.SimpleNamespace(
        kinds=KINDS,
        make_checkpoint=make_checkpoint,
        generator=GENERATOR,
        generator_variables=tiny_generator()[0],
        num_styles=STYLES,
        w_dim=W_DIM,
        save=save,
    )
