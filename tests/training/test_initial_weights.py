"""Encoders that start from a trunk trained for another task, or from another encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.encoders import BackboneEncoder, ResNetBackboneEncoder
from interestyle_jax.training.initial_weights import apply_initial, read_initial
from interestyle_jax.weights import save_weights

SMALL = {"units": (1, 1), "widths": (4, 4, 8)}
ENCODER = BackboneEncoder(num_styles=2, input_size=16, head_width=4, w_dim=4, **SMALL)
RESNET = ResNetBackboneEncoder(num_styles=2, input_size=16, head_width=4, w_dim=4, **SMALL)
KEY = jax.random.key(3)


def variables_of(module, seed):
    rng = np.random.default_rng(seed)
    shapes = registry.variable_shapes(registry.describe(module))
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def save(folder, part, module, variables):
    return save_weights(
        folder,
        {part: variables},
        family="test",
        architectures={part: registry.describe(module)},
        licence="none",
    )


@pytest.fixture(scope="module")
def arcface(tmp_path_factory):
    module = FaceEmbedder(dim=4, input_size=16, **SMALL)
    variables = variables_of(module, 1)
    folder = tmp_path_factory.mktemp("weights") / "arcface"
    return save(folder, "embedder", module, variables), variables


def shapes_of(module):
    return registry.variable_shapes(registry.describe(module))


def test_a_trunk_is_taken_over_and_the_new_channels_are_drawn(arcface):
    directory, variables = arcface
    initial = read_initial(directory, "", shapes_of(ENCODER))
    fresh = variables_of(ENCODER, 0)
    start = jax.jit(apply_initial)(KEY, fresh, initial)
    stem = start["params"]["trunk"].pop("stem_conv")["kernel"]
    want = variables["params"]["trunk"]["stem_conv"]["kernel"]
    np.testing.assert_array_equal(stem[:, :, :3], want)
    # Standard deviation 1 as in the official code, and not the fresh network's draw.
    assert 0.8 < float(jnp.std(stem[:, :, 3:])) < 1.2
    assert not np.allclose(
        stem[:, :, 3:], fresh["params"]["trunk"]["stem_conv"]["kernel"][:, :, 3:]
    )
    other = jax.jit(apply_initial)(jax.random.key(4), fresh, initial)
    assert not np.allclose(stem, other["params"]["trunk"]["stem_conv"]["kernel"])
    rest = {k: v for k, v in variables["params"]["trunk"].items() if k != "stem_conv"}
    jax.tree.map(np.testing.assert_array_equal, start["params"]["trunk"], rest)
    stats = start["batch_stats"]["trunk"]
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"]["trunk"])
    heads = start["params"]["heads"]
    jax.tree.map(np.testing.assert_array_equal, heads, fresh["params"]["heads"])


def test_torchvisions_resnet_has_no_prelu(tmp_path):
    encoder = variables_of(RESNET, 1)
    trunk = {tree: dict(encoder[tree]["trunk"]) for tree in ("params", "batch_stats")}
    del trunk["params"]["stem_prelu"]
    directory = tmp_path / "resnet"
    save_weights(directory, {"trunk": trunk}, family="test", architectures={}, licence="none")
    fresh = variables_of(RESNET, 0)
    start = apply_initial(KEY, fresh, read_initial(directory, "", shapes_of(RESNET)))
    block, want = (t["params"]["trunk"]["block_1"] for t in (start, encoder))
    jax.tree.map(np.testing.assert_array_equal, block, want)
    prelu, kept = (t["params"]["trunk"]["stem_prelu"]["slope"] for t in (start, fresh))
    np.testing.assert_array_equal(prelu, kept)


def test_a_whole_encoder_is_gone_on_from(tmp_path):
    variables = variables_of(ENCODER, 1)
    directory = save(tmp_path / "encoder", "encoder", ENCODER, variables)
    initial = read_initial("", directory, shapes_of(ENCODER))
    start = apply_initial(KEY, variables_of(ENCODER, 0), initial)
    jax.tree.map(np.testing.assert_array_equal, start, variables)


def test_nothing_named_is_nothing_changed():
    fresh = variables_of(ENCODER, 0)
    assert read_initial("", "", shapes_of(ENCODER)) == {}
    assert apply_initial(KEY, fresh, {}) is fresh


def test_what_does_not_fit_is_listed(arcface, tmp_path):
    directory, _ = arcface
    wide = BackboneEncoder(
        num_styles=2, input_size=16, head_width=4, units=(1, 1), widths=(4, 4, 6)
    )
    with pytest.raises(
        InputError, match=r"block_1/conv_1/kernel is \[3, 3, 4, 8\], expected \[3, 3"
    ):
        read_initial(directory, "", shapes_of(wide))
    deep = BackboneEncoder(num_styles=2, input_size=16, units=(2, 1), widths=(4, 4, 8))
    with pytest.raises(InputError, match="no params/trunk/block_2/"):
        read_initial(directory, "", shapes_of(deep))
    with pytest.raises(InputError, match="got both"):
        read_initial(directory, directory, shapes_of(ENCODER))
    heads = save(tmp_path / "encoder", "encoder", ENCODER, variables_of(ENCODER, 1))
    with pytest.raises(InputError, match="holds no trunk"):
        read_initial(heads, "", shapes_of(ENCODER))
