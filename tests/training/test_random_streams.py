"""No two draws of a run share a key: found in the traced programs of every task, by their keys."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import ClosedJaxpr, Literal

from interestyle_jax.config.presets import (
    ENCODER_PRESETS,
    distillation_config,
    encoder_config,
    generator_config,
)
from interestyle_jax.training import random_streams
from interestyle_jax.training.initial_weights import STEM
from interestyle_jax.training.random_streams import STREAMS, SeededTask, seed_bits, stream
from interestyle_jax.training.trainer import make_task

UNKNOWN = object()


class Keys:
    """What a program does with its keys, without the numbers that it computes with them.

    Equations on keys and small integers are evaluated, all else is unknown.

    Attributes:
      draws: the key of every draw.
      uses: [(key, how another was derived from it)].
    """

    def __init__(self):
        self.draws, self.uses = [], []

    def add(self, function, *arguments, numbers=(0,)):
        """Follows the keys of `function(number, *arguments)`, of abstract arrays, a number each."""
        closed = jax.make_jaxpr(function)(jnp.int32(0), *arguments)
        for number in numbers:
            others = [UNKNOWN] * (len(closed.jaxpr.invars) - 1)
            self._follow(closed, [jnp.int32(number), *others])

    def _follow(self, closed, arguments):
        if not isinstance(closed, ClosedJaxpr):
            closed = ClosedJaxpr(closed, ())
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            values = [v.val if isinstance(v, Literal) else known[v] for v in equation.invars]
            results = self._evaluate(equation, values)
            known |= dict(zip(equation.outvars, results, strict=True))
        return [v.val if isinstance(v, Literal) else known[v] for v in jaxpr.outvars]

    def _evaluate(self, equation, values):
        name, params = equation.primitive.name, equation.params
        unknown = [UNKNOWN] * len(equation.outvars)
        if name == "scan":
            return self._scan(params, values)
        if name == "cond":
            for branch in params["branches"]:
                self._follow(branch, values[1:])
            return unknown
        if name == "while":
            assert "random_" not in str(params["body_jaxpr"]), "keys in a while loop"
            return unknown
        inner = [v for k in ("jaxpr", "call_jaxpr") if (v := params.get(k)) is not None]
        if inner:
            return self._follow(inner[0], values)
        if name == "random_bits":
            assert values[0] is not UNKNOWN, f"a draw whose key cannot be followed: {equation}"
            self.draws += _names(values[0])
            return unknown
        small = all(_is_key(v.aval) or _is_small(v.aval) for v in equation.outvars)
        if not small or any(v is UNKNOWN for v in values):
            return unknown
        if name in ("random_split", "random_fold_in"):
            how = str(params.get("shape")) if name == "random_split" else str(values[1])
            self.uses += [(key, f"{name} {how}") for key in _names(values[0])]
        results = equation.primitive.bind(*values, **params)
        return list(results) if equation.primitive.multiple_results else [results]

    def _scan(self, params, values):
        if "ft_in" in params:
            # From JAX 0.12 on.
            constants, carried = (len([*part]) for part in params["ft_in"].unpack()[:2])
        else:
            constants, carried = params["num_consts"], params["num_carry"]
        fixed, carry = values[:constants], values[constants : constants + carried]
        rows, length = values[constants + carried :], params["length"]
        stacked = []
        for i in range(length)[:: -1 if params["reverse"] else 1]:
            row = [x if x is UNKNOWN else x[i] for x in rows]
            results = self._follow(params["jaxpr"], [*fixed, *carry, *row])
            carry, stacked = results[:carried], results[carried:]
        return [*carry, *([UNKNOWN] * len(stacked))]


def _is_key(aval):
    return jnp.issubdtype(aval.dtype, jax.dtypes.prng_key)


def _is_small(aval):
    return jnp.issubdtype(aval.dtype, jnp.integer) and np.prod(aval.shape) <= 64


def _names(keys):
    data = np.asarray(jax.random.key_data(keys))
    return [row.tobytes().hex() for row in data.reshape(-1, data.shape[-1])]


def twice(items):
    """Items that are there more than once."""
    return sorted({str(x) for x in items if items.count(x) > 1})


def test_reuse_is_found():
    def reuses(_, x):
        key = jax.random.key(0)
        a = jax.random.normal(jax.random.split(key, 3)[1], (2,))
        return a + jax.random.uniform(jax.random.fold_in(key, 1), (2,)) * x

    def in_a_loop(_, x):
        keys = jax.random.split(jax.random.key(0))
        return jax.lax.scan(lambda x, i: (x + jax.random.normal(keys[0]), None), x, length=2)[0]

    def sound(_, x):
        keys = jax.random.split(jax.random.key(0))
        add = jax.jit(lambda x, key: (x + jax.random.normal(key), None))
        return jax.lax.scan(add, x, keys)[0]

    gradient = jax.value_and_grad(lambda *x: reuses(*x).sum(), argnums=1)
    for function, count in ((gradient, 1), (in_a_loop, 1), (sound, 0)):
        keys = Keys()
        keys.add(function, jnp.zeros(()))
        assert len(keys.draws) == 2
        assert len(twice(keys.draws)) == count


def encoder_task(weights, preset, **fields):
    config = encoder_config(preset)
    config.weights.generator = str(weights / "generator")
    config.weights.lpips = ""
    config.encoder.update(input_size=32, units=(1, 1, 1), widths=(4, 4, 4, 8), head_width=8)
    config.loss = {"l2": 1.0}
    config.method.num_iterations = min(2, config.method.num_iterations)
    config.method.filter_radii = (1.0,) if preset == "interestyle" else (0.0,)
    config.progressive = {"start": 1, "every": 1}
    config.adversary.pool_size = 4
    config.in_domain.perceptual = "lpips"
    config.in_domain.discriminator = {"channel_base": 64, "channel_max": 4}
    config.batch_size = 4
    config.update_from_flattened_dict(fields)
    return config


def distillation():
    config = distillation_config()
    config.batch_size = 4
    config.generator.update(resolution=16, mapping_depth=4, channel_max=4)
    config.loss.lpips = 0.0
    return config


def generator_task():
    config = generator_config()
    config.batch_size = 4
    small = {"channel_base": 64, "channel_max": 4}
    config.generator = {"resolution": 16, "z_dim": 4, "w_dim": 4, "mapping_depth": 1, **small}
    config.discriminator = small
    return config


# What a step may do differently, beside the preset.
VARIANTS = [
    *((preset, {}) for preset in ENCODER_PRESETS),
    ("restyle_e4e", {"accumulate": 2, "method.loop": "scan"}),
    ("interestyle", {"method.swap": 0.5}),
    ("stylegan2", {}),
    ("distilled", {}),
]


@pytest.mark.parametrize(("preset", "fields"), VARIANTS)
def test_no_two_draws_of_a_run_share_a_key(tiny_weights, preset, fields):
    generator = preset in ("stylegan2", "distilled")
    config = encoder_task(tiny_weights, preset, **fields) if not generator else None
    config = config or (generator_task() if preset == "stylegan2" else distillation())
    task = make_task(config)
    if not generator:
        # A trunk for images alone: the rest of its first kernel is drawn.
        shapes = flatten_dict({"params": task.networks.shapes["params"]})
        kernel = shapes[STEM]
        three = jax.ShapeDtypeStruct((*kernel.shape[:2], 2, kernel.shape[3]), kernel.dtype)
        task.initial = {"trunk": unflatten_dict({STEM: three})}
    seeded = SeededTask(task, seed=0)
    state = jax.eval_shape(seeded.init, seeded.initial)
    side = 16 if generator else 32
    batch = {
        field: jax.ShapeDtypeStruct((4, side, side, 1 if "mask" in field else 3), np.uint8)
        for field in task.batch_fields
    }
    if "factors" in batch:
        batch["factors"] = jax.ShapeDtypeStruct((4, len(task.factors.names)), np.float32)

    def train_step(step, state, batch):
        return seeded.train_step(state.replace(step=step), seeded.frozen, batch, task.phase(0))

    def validate(index, state, batch):
        arguments = (state, seeded.frozen, batch, index)
        return seeded.validate_step(*arguments), seeded.images(*arguments)

    keys = Keys()
    keys.add(
        lambda _, drawn: seeded.init(seeded.initial | {"variables": drawn}),
        seeded.initial["variables"],
    )
    of_init = len(keys.draws)
    keys.add(train_step, state, batch, numbers=(0, 1))
    # A step of the distillation draws nothing.
    assert 0 < of_init < len(keys.draws) + (preset == "distilled")
    keys.add(validate, state, batch, numbers=(0, 1))
    keys.add(lambda _: jax.random.normal(stream(0, "mean_latent")))
    assert twice(keys.draws) == []
    # Nor is a key drawn with that others come from, and none is derived in two ways.
    parents = {key for key, _ in keys.uses}
    assert not parents & set(keys.draws)


def test_one_program_serves_all_seeds(tiny_weights):
    task = make_task(encoder_task(tiny_weights, "interestyle"))
    batch = {
        "image": np.zeros((4, 32, 32, 3), np.uint8),
        "interest_mask": np.zeros((4, 32, 32, 1), np.uint8),
    }

    def programs(seed):
        seeded = SeededTask(task, seed)
        state = jax.eval_shape(seeded.init, seeded.initial)
        for function, arguments in (
            (seeded.init, (seeded.initial,)),
            (lambda *x: seeded.train_step(*x, ()), (state, seeded.frozen, batch)),
            (seeded.validate_step, (state, seeded.frozen, batch, jnp.int32(0))),
        ):
            yield str(jax.make_jaxpr(function)(*arguments))

    assert [*programs(0)] == [*programs(1)]


@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5, 2**32 - 1])
def test_a_seed_as_an_array_gives_the_same_keys(seed):
    keys = [stream(x, "steps") for x in (seed, seed_bits(seed), jnp.asarray(seed_bits(seed)))]
    plain, *others = map(jax.random.key_data, keys)
    assert all((plain == other).all() for other in others)


def test_keys_come_from_named_streams_alone():
    folder = Path(random_streams.__file__).parent
    made = [
        path.name
        for path in sorted(folder.rglob("*.py"))
        if re.search(r"random\.key\(|PRNGKey\(", path.read_text())
    ]
    assert made == ["random_streams.py"]
    assert len(set(STREAMS)) == len(STREAMS)
