"""Encoders that learn from known latents, on tiny networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import distillation_config, encoder_config
from interestyle_jax.data.avatars import sample
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.refinement import refine
from interestyle_jax.training import supervised_encoder_task
from interestyle_jax.training.distillation_task import DistillationTask
from interestyle_jax.training.encoder_task import FROZEN, SINGLE
from interestyle_jax.training.supervised_encoder_task import SUPERVISED, SupervisedEncoderTask
from interestyle_jax.training.trainer import make_task

SIZE, BATCH, COUNT = 16, 8, 4
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def generator_dir(tmp_path_factory):
    config = distillation_config()
    config.generator.resolution, config.generator.channel_max = SIZE, 8
    config.loss.lpips = 0.0
    task = DistillationTask(config)
    out = tmp_path_factory.mktemp("weights") / "generator"
    task.export(jax.jit(lambda key: task.init(key, {}))(jax.random.key(0)), out, extra={})
    return out


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised_encoder_task, "SAMPLES", 64)
        yield


@pytest.fixture(scope="module")
def make_config(generator_dir):
    def make(**changes):
        config = encoder_config("interestyle")
        config.weights.generator = str(generator_dir)
        config.weights.lpips = ""
        config.encoder = {
            "type": "BackboneEncoder",
            "input_size": SIZE,
            "units": (1,),
            "widths": (4, 4),
            "head_width": 4,
        }
        config.method.num_iterations, config.method.dilation_radius = COUNT, 1
        config.method.noise = "const"
        config.loss.id = 0.0
        config.data.flip = False
        config.optimizer = {"name": "adam", "learning_rate": 0.01}
        config.known_latents = {"weight": 0.5, "until": 0.5, "style": "toon-head"}
        config.update(changes)
        return config

    return make


@pytest.fixture(scope="module")
def batch():
    drawn = [sample(index, size=SIZE) for index in range(BATCH)]
    names = ("image", "interest_mask", "factors")
    return {name: jnp.asarray(np.stack([x[name] for x in drawn])) for name in names}


@pytest.fixture(scope="module")
def task(make_config):
    return SupervisedEncoderTask(make_config())


@pytest.fixture(scope="module")
def state(task):
    return jax.jit(lambda key: task.init(key, task.initial))(jax.random.key(0))


def test_the_phases_of_a_run(make_config):
    config = make_config(num_steps=4, single_pass_until=0.25, freeze_batch_norm_after=0.75)
    task = make_task(config)
    assert isinstance(task, SupervisedEncoderTask)
    assert [task.phase(step) for step in range(4)] == [
        (SUPERVISED, SINGLE),
        (SUPERVISED,),
        (),
        (FROZEN,),
    ]


@pytest.mark.parametrize("phase", [(SUPERVISED, SINGLE), (SUPERVISED,), (SUPERVISED, FROZEN)])
def test_latents_are_learnt(task, state, batch, phase):
    step = jax.jit(functools.partial(task.train_step, phase=phase))
    history = []
    for i in range(40):
        state, metrics = step(jax.random.fold_in(KEY, i), state, task.frozen, batch)
        history.append(float(metrics["latent_error"]))
    # Of the mean latent, where the first step is, it is 1 over all avatars.
    assert 0.5 < history[0] < 2
    assert history[-1] < 0.7 * history[0]


def test_rows_stand_at_different_iterations(task, state, batch):
    image, _ = task._prepare(batch)
    start = task._start(state.batch_stats, task.frozen, BATCH)
    found = jax.jit(task._staggered)(state.params, task.frozen, start, image)
    done = refine(
        task._encode_frozen(state.params, {}),
        task._synthesize(task.frozen, None),
        (image,) * (COUNT - 1),
        start.w,
        image_0=start.image,
        carry=state.batch_stats,
    )
    w = np.concatenate([start.w[None], done.w_plus])
    images = np.concatenate([start.image[None], done.images])
    iterations = [3, 0, 1, 0, 2, 0, 1, 0]
    assert np.abs(np.diff(w, axis=0)).max() > 1e-4
    np.testing.assert_allclose(found.w, w[iterations, np.arange(BATCH)], atol=1e-5)
    np.testing.assert_allclose(found.image, images[iterations, np.arange(BATCH)], atol=1e-5)


def test_the_error_joins_the_methods_loss(make_config, state, batch):
    found = {}
    for weight in (0.0, 0.5):
        task = SupervisedEncoderTask(
            make_config(known_latents={"weight": weight, "until": 0.5, "style": "toon-head"})
        )
        gradients = jax.jit(functools.partial(task.gradients, single_pass=True))
        *_, found[weight] = gradients(KEY, state.params, state.batch_stats, task.frozen, batch)
    error = found[0.5].pop("latent_error")
    assert "latent_error" not in found[0.0]
    np.testing.assert_allclose(found[0.5]["loss"], found[0.0]["loss"] + 0.5 * error, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.flip", True, "config.data.flip: expected False, factors are"),
        ("batch_norm", "local", "config.batch_norm: expected global with config.known_latents"),
        ("known_latents.weight", -1.0, "config.known_latents.weight: expected from 0, got -1.0"),
        ("known_latents.until", 1.5, "config.known_latents.until: expected a share of the steps"),
        ("known_latents.style", "personas", "config.weights.generator: expected one that learnt"),
        # Each of these would choose another task.
        ("adversary.weight", 0.1, "config.known_latents.weight: expected 0 with config.adversary"),
        ("adversary.delta_weight", 0.1, "config.known_latents.weight: expected 0 with config.adv"),
        ("in_domain.weight", 0.1, "config.known_latents.weight: expected 0 with config.in_domain"),
    ],
)
def test_bad_input(make_config, field, value, message):
    config = make_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
        make_task(config)


def test_first_steps_by_known_latents_are_refused_as_well(make_config):
    config = make_config(known_latents={"weight": 0.0, "until": 0.5, "style": "toon-head"})
    config.adversary.weight = 0.1
    with pytest.raises(InputError, match="config.known_latents.until: expected 0 with config.adv"):
        make_task(config)
