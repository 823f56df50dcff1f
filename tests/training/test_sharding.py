"""Where arrays live: rules by path, rows of the batch, and what a compiled step sends around."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from interestyle_jax.config.presets import encoder_config
from interestyle_jax.errors import InputError
from interestyle_jax.parallel import sharding
from interestyle_jax.training.compiled_step import step_places
from interestyle_jax.training.trainer import make_task


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("params/trunk/block_0/conv_1/kernel", (3, 3, 64, 64), P(None, None, None, "fsdp")),
        ("params/heads/conv_0_kernel", (3, 3, 512, 9216), P(None, None, None, "fsdp")),
        ("opt_state/slow/heads/dense_kernel", (512, 9216), P(None, "fsdp")),
        # The last axis does not divide: the one before it is taken.
        ("params/rgb_1024/conv/kernel", (3, 3, 512, 6), P(None, None, "fsdp")),
        # No axis divides; too small; statistics; no kernel.
        ("params/kernel", (333, 333), P()),
        ("params/kernel", (64, 64), P()),
        ("batch_stats/trunk/kernel", (512, 512), P()),
        ("params/trunk/norm/scale", (65536,), P()),
        ("step", (), P()),
    ],
)
def test_first_rule_that_fits_decides(path, shape, expected):
    assert sharding.spec(path, shape, 4) == expected
    assert sharding.spec(path, shape, 1) == P()


def test_own_rules_come_in_order():
    rules = ((r"bias$", (0,)), (r"", ()))
    assert sharding.spec("heads/bias", (65536,), 8, rules=rules) == P("fsdp")
    assert sharding.spec("heads/kernel", (512, 512), 8, rules=rules) == P()
    assert sharding.spec("heads/bias", (65536,), 8, rules=rules[::-1]) == P()


def test_axis_that_divides_nothing_is_refused():
    mesh = sharding.make_mesh(fsdp=8)
    tree = {"a": {"kernel": jax.ShapeDtypeStruct((300, 300), np.float32)}}
    with pytest.raises(InputError, match="config.mesh.fsdp: 8 divides the channels of no array"):
        sharding.tree_sharding(mesh, tree)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "words"),
    [
        (12, 1, "config.batch_size: 12 cannot be split over the 8 devices .* multiple of 8"),
        (8, 2, "config.batch_size: 8 .* in 2 parts; expected a multiple of 16"),
        (16, 0, "config.accumulate: expected a whole number from 1, got 0"),
    ],
)
def test_batch_that_does_not_divide_is_refused(batch_size, accumulate, words):
    with pytest.raises(InputError, match=words):
        sharding.check_batch_size(sharding.make_mesh(), batch_size, accumulate=accumulate)


@pytest.mark.parametrize("fsdp", [1, 4])
def test_batch_and_tree_arrive_whole(fsdp):
    mesh = sharding.make_mesh(fsdp=fsdp)
    rows = sharding.batch_sharding(mesh)
    batch = {"image": np.arange(16 * 3).reshape(16, 3)}
    assert sharding.local_rows(rows, 16) == list(range(16))
    placed = sharding.put_batch(batch, rows)["image"]
    assert placed.sharding == rows and len(placed.addressable_shards) == 8
    np.testing.assert_array_equal(placed, batch["image"])
    tree = {"kernel": np.arange(256 * 256.0).reshape(256, 256), "bias": np.ones(3)}
    places = sharding.frozen_sharding(mesh, tree, split=fsdp > 1)
    there = sharding.put_tree(tree, places)
    assert there["kernel"].sharding.is_fully_replicated == (fsdp == 1)
    back = sharding.to_host(there)
    assert all(isinstance(x, np.ndarray) for x in back.values())
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_an_optimizer_is_split_over_all_devices():
    mesh = sharding.make_mesh(fsdp=2)
    tree = {
        "mu": {"kernel": jax.ShapeDtypeStruct((128, 64, 6), np.float32)},
        "small": {"kernel": jax.ShapeDtypeStruct((8, 8), np.float32)},
    }
    places = sharding.optimizer_sharding(mesh, tree)
    assert places["mu"]["kernel"].spec == P(None, ("data", "fsdp"))
    assert places["small"]["kernel"].spec == P()


def test_of_several_optimizers_none_is_split():
    mesh = sharding.make_mesh()
    state = {"kernel": jax.ShapeDtypeStruct((256, 256), np.float32)}
    config = encoder_config("interestyle")
    config.mesh.shard_optimizer = True
    with pytest.raises(InputError, match="config.mesh.shard_optimizer: expected False"):
        step_places(config, mesh, state, {})


@pytest.mark.slow
def test_step_with_a_split_optimizer_is_the_plain_one(tiny_config):
    config = tiny_config()
    config.method.num_iterations, config.method.filter_radii = 1, ()
    config.encoder.head_width = 16
    task, mesh, key = make_task(config), sharding.make_mesh(fsdp=2), jax.random.key(0)
    state = jax.jit(task.init)(key, task.initial)
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    of_state = sharding.tree_sharding(mesh, state)
    split = of_state.replace(
        opt_state=sharding.optimizer_sharding(mesh, state.opt_state, min_size=256)
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "interest_mask": np.full((8, 32, 32, 1), 255, np.uint8),
    }
    after = []
    for places in (of_state, split):
        with jax.set_mesh(mesh):
            step = jax.jit(
                task.train_step,
                in_shardings=(whole, places, whole, rows),
                out_shardings=(places, whole),
            )
            compiled = step.lower(key, state, task.frozen, batch).compile()
            after.append(compiled(key, jax.device_put(state, places), task.frozen, batch)[0])
    assert "all-gather" in compiled.as_text()
    for one, other in zip(*(jax.tree.leaves(x) for x in after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    shares = [leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(after[1].opt_state)]
    wholes = [leaf.size for leaf in jax.tree.leaves(after[1].opt_state)]
    assert sum(shares) < 0.3 * sum(wholes)


@pytest.fixture
def config(tiny_config):
    """Everything on that could move data: filter, disentanglement, fresh noise, LPIPS, parts."""
    config = tiny_config()
    config.weights.lpips = "lpips_alex"
    config.loss = {"l2": 1.0, "lpips": 0.8}
    config.encoder.head_width = 16
    config.batch_size = 16
    config.accumulate = 2
    return config


SHAPE = re.compile(r"\b[a-z]+\d+\[([\d,]*)\]")
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(text: str) -> dict[str, set[tuple[int, ...]]]:
    """The collectives of an HLO text, each with the shapes of its results."""
    found = {}
    for line in text.splitlines():
        match = re.search(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", line)
        if match:
            shapes = {tuple(int(n) for n in s.split(",") if n) for s in SHAPE.findall(match[1])}
            found.setdefault(match[2], set()).update(shapes)
    return found


def test_collectives_are_found_in_hlo():
    text = "x = (f32[3,4]{1,0}, f32[]) all-reduce(a, b), to_apply=add\n y = f32[8]{0} add(x, x)"
    assert collectives(text) == {"all-reduce": {(3, 4), ()}}


@pytest.mark.parametrize("fsdp", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_step_sends_gradients_and_statistics_alone(config, fsdp):
    """Data parallel: all-reduces of gradients, of BatchNorm's statistics and of scalars.

    With fsdp also gathers of parameters. Nothing of the size of a map or image is sent.
    """
    task = make_task(config)
    mesh = sharding.make_mesh(fsdp=fsdp)
    key = jax.random.key(0)
    state = jax.eval_shape(task.init, key, task.initial)
    places = sharding.tree_sharding(mesh, state, min_size=256)
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((16, 32, 32, 3), np.uint8),
        "interest_mask": jax.ShapeDtypeStruct((16, 32, 32, 1), np.uint8),
    }
    step = jax.jit(
        task.train_step,
        in_shardings=(whole, places, whole, rows),
        out_shardings=(places, whole),
        donate_argnums=1,
    )
    with jax.set_mesh(mesh):
        found = collectives(step.lower(key, state, task.frozen, batch).compile().as_text())
    sizes = {int(np.prod(x.shape)) for x in jax.tree.leaves(state.params)}
    channels = {x.shape for x in jax.tree.leaves(state.batch_stats)}
    split = {size // fsdp for size in sizes} | sizes

    def told(shapes):
        return {s for s in shapes if s and s not in channels and int(np.prod(s)) not in split}

    assert found["all-reduce"]
    if fsdp == 1:
        assert set(found) == {"all-reduce"}
    else:
        assert set(found) <= {"all-reduce", "all-gather", "reduce-scatter"}
        assert found["all-gather"]
    assert {name: told(shapes) for name, shapes in found.items() if told(shapes)} == {}
