"""e4e's losses on latents: golden numbers, stages, pools, and steps of the task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import encoder_config, set_preset
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.latent_discriminator import LatentDiscriminator
from interestyle_jax.models.progressive import PROGRESSIVE, silence_rows
from interestyle_jax.training.adversarial_encoder_task import AdversarialEncoderTask
from interestyle_jax.training.latent_adversary import (
    LatentAdversary,
    Pool,
    adversarial_loss,
    delta_norm,
    query,
    stage_at,
)
from interestyle_jax.training.trainer import make_task
from interestyle_jax.weights import load_weights

IMAGE, STYLES, DIM = 32, 8, 16


def test_losses_of_stage_5_are_the_official_ones(golden_case, golden_manifest, goldenfill):
    numbers, inputs = golden_case("losses")
    w_plus = inputs["input:loss:latent"]
    np.testing.assert_allclose(
        delta_norm(w_plus, 5), numbers["e4e_delta_norm_stage5_f64"], rtol=1e-6
    )
    arrays = goldenfill.fill_all(golden_manifest("e4e_ffhq")["discriminator_state_dict"])
    params = {
        f"dense_{i}": {
            "kernel": arrays[f"mlp.{2 * i}.weight"].T,
            "bias": arrays[f"mlp.{2 * i}.bias"],
        }
        for i in range(4)
    }
    judge = LatentAdversary(512).judge(params)
    got = jax.jit(lambda w: adversarial_loss(judge, w, 5))(w_plus)
    np.testing.assert_allclose(got, numbers["e4e_adversarial_stage5_f64"], rtol=2e-5)


def test_equal_rows_have_a_gradient_of_zero():
    equal = jnp.broadcast_to(jnp.arange(4.0), (2, 3, 4))
    assert float(delta_norm(equal, 2)) == 0
    assert not np.asarray(jax.grad(lambda w: delta_norm(w, 2))(equal)).any()
    # Rows that are not active yet do not count, equal or not.
    apart = equal.at[:, 2].add(3.0)
    assert float(delta_norm(apart, 1)) == 0
    np.testing.assert_allclose(delta_norm(apart, 2), 6.0)
    assert np.isfinite(jax.grad(lambda w: delta_norm(w, 2))(apart)).all()


@pytest.mark.parametrize(
    ("step", "stage"),
    [(0, 0), (19_999, 0), (20_000, 1), (21_999, 1), (22_000, 2), (52_000, 17), (500_000, 17)],
)
def test_stages_are_the_official_schedule(step, stage):
    """e4e's `progressive_start 20000` and `progressive_step_every 2000`, for 18 rows."""
    assert int(stage_at(step, 20_000, 2000, 18)) == stage
    assert int(jax.jit(lambda s: stage_at(s, 20_000, 2000, 18))(step)) == stage


def test_pool_fills_and_then_swaps_half_of_the_time():
    size, batch = 4, 2
    pool = Pool(jnp.zeros((size, 1)), jnp.zeros((), jnp.int32))
    step = jax.jit(query)
    stored = set()
    for i in range(2):
        latents = jnp.asarray([[2.0 * i + 1], [2.0 * i + 2]])
        pool, shown = step(jax.random.key(i), pool, latents)
        np.testing.assert_array_equal(shown, latents)
        stored |= set(np.asarray(latents).ravel().tolist())
    assert int(pool.count) == size
    assert set(np.asarray(pool.latents).ravel().tolist()) == stored
    swapped, rounds = 0, 200
    for i in range(2, rounds + 2):
        latents = jnp.asarray([[2.0 * i + 1], [2.0 * i + 2]])
        before = set(np.asarray(pool.latents).ravel().tolist())
        pool, shown = step(jax.random.key(i), pool, latents)
        after = set(np.asarray(pool.latents).ravel().tolist())
        seen, new = (set(np.asarray(x).ravel().tolist()) for x in (shown, latents))
        # Nothing is lost and nothing is made up: what came in is shown or stored.
        assert seen | after == before | new and len(after) == size
        swapped += len(seen - new)
    assert 0.4 < swapped / (rounds * batch) < 0.6


def test_pool_of_size_0_shows_what_it_gets():
    pool = Pool(jnp.zeros((0, 1)), jnp.zeros((), jnp.int32))
    latents = jnp.ones((3, 1))
    assert query(jax.random.key(0), pool, latents)[1] is latents


def test_discriminator_learns_to_tell_and_r1_comes_every_other_step():
    adversary = LatentAdversary(DIM, learning_rate=1e-2, r1_every=2, pool_size=8)
    state = adversary.init(jax.random.key(0))
    step = jax.jit(adversary.train)
    losses, penalties = [], []
    for i in range(30):
        real, fake = jax.random.normal(jax.random.key(i), (2, 4, DIM))
        state, metrics = step(jax.random.key(i), state, real + 1, fake - 1, jnp.int32(i))
        losses.append(float(metrics["latent_d_loss"]))
        penalties.append(float(metrics["latent_r1"]))
    assert losses[-1] < 0.5 * losses[0]
    assert all(penalties[::2]) and not any(penalties[1::2])
    # Adam has counted the updates for R1 too.
    assert int(state.opt_state[0].count) == 30 + 15


def tiny_config(weights, preset):
    config = encoder_config(preset)
    config.weights.generator = str(weights / "generator")
    config.weights.lpips = ""
    config.encoder.update(input_size=IMAGE, units=(1, 1, 1), widths=(4, 4, 4, 8), head_width=8)
    config.method.num_iterations = min(2, config.method.num_iterations)
    config.method.noise = "const"
    config.loss = {"l2": 1.0}
    config.progressive = {"start": 1, "every": 1}
    config.adversary.pool_size = 4
    return config


def batch_of(size=2):
    rng = np.random.default_rng(0)
    mask = np.full((size, IMAGE, IMAGE, 1), 255, np.uint8)
    return {
        "image": rng.integers(0, 256, (size, IMAGE, IMAGE, 3), np.uint8),
        "interest_mask": mask,
    }


# The slow one differs in the loop around the losses, which other tests have.
PRESETS = ["e4e", pytest.param("restyle_e4e", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PRESETS)
def trained(request, tiny_weights):
    """A task, and the states and metrics of four steps."""
    task = make_task(tiny_config(tiny_weights, request.param))
    key = jax.random.key(0)
    states, metrics = [jax.jit(task.init)(key, {})], []
    step = jax.jit(task.train_step)
    for i in range(4):
        state, figures = step(jax.random.fold_in(key, i), states[-1], task.frozen, batch_of())
        states.append(state)
        metrics.append(jax.device_get(figures))
    # Stages differ in an argument: one program does them all.
    assert step._cache_size() == 1
    return task, states, metrics


def test_steps_follow_the_stages(trained):
    task, states, metrics = trained
    assert isinstance(task, AdversarialEncoderTask) and isinstance(task.encoder, PROGRESSIVE)
    assert [m["stage"] for m in metrics] == [0, 1, 2, 3]
    # Rows are alike at first; then the first has a change of its own.
    assert metrics[0]["delta_norm"] == 0 < metrics[1]["delta_norm"]
    for figures in metrics:
        assert all(np.isfinite(v) for v in figures.values())
        assert figures["adversarial"] > 0 and figures["latent_d_loss"] > 0
    first, last = states[0].adversary, states[-1].adversary
    assert int(last.real.count) == int(last.fake.count) == 4
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, last.params)
    assert all(jax.tree.leaves(moved))
    assert [m["latent_r1"] > 0 for m in metrics] == [True, False, False, False]


def test_only_reached_heads_are_trained(trained):
    """The last layer of row i's head moves from stage i on."""
    task, states, _ = trained
    group = "coarse" if task.config.preset == "e4e" else "heads"

    def columns(state):
        kernel = np.asarray(state.params[group]["dense_kernel"])
        return kernel.reshape(kernel.shape[0], -1, DIM)

    before = columns(states[0])
    for count, state in enumerate(states[1:], start=1):
        moved = (columns(state) != before).any(axis=(0, 2))
        reached = np.arange(len(moved)) < count
        np.testing.assert_array_equal(moved, reached)


def test_losses_on_latents_are_part_of_what_is_differentiated(trained):
    task, _, metrics = trained
    for figures in metrics:
        more = 0.1 * figures["adversarial"] + 2e-4 * figures["delta_norm"]
        if task.config.preset == "e4e":
            assert figures["loss"] == pytest.approx(figures["l2"] + more, rel=1e-5)
        else:
            # The sum over iterations, of which the metrics show the last.
            assert figures["loss"] > figures["l2"] + more


def test_written_weights_give_the_stage_without_knowing_it(trained, tmp_path):
    task, states, _ = trained
    state = states[2]
    task.export(jax.device_get(state), tmp_path / "out", extra={})
    weights = load_weights(tmp_path / "out")
    assert weights.metadata["extra"]["stage"] == 1
    encoder, variables = weights.part("encoder")
    x = jax.random.normal(jax.random.key(1), (1, IMAGE, IMAGE, encoder.input_channels))
    inside = {"params": state.params, "batch_stats": state.batch_stats}
    got, staged, whole = jax.jit(
        lambda a, b: (encoder.apply(a, x), encoder.apply(b, x, stage=1), encoder.apply(b, x))
    )(variables, inside)
    np.testing.assert_allclose(got, staged, rtol=1e-5, atol=1e-6)
    assert np.abs(got - whole).max() > 1e-3
    discriminator, judged = weights.part("latent_discriminator")
    assert discriminator == LatentDiscriminator(w_dim=DIM)
    np.testing.assert_array_equal(
        judged["params"]["dense_0"]["bias"], state.adversary.params["dense_0"]["bias"]
    )


def test_the_last_stage_silences_nothing(trained):
    task, states, _ = trained
    same = silence_rows(task.encoder, states[0].params, STYLES - 1)
    jax.tree.map(np.testing.assert_array_equal, same, states[0].params)


def test_presets_have_the_encoders_of_the_table():
    """Of the paper's Table 1: encoder, its channels, iterations, whether there is an adversary."""
    expected = {
        "interestyle": ("BackboneEncoder", 6, 5, False),
        "restyle_psp": ("BackboneEncoder", 6, 5, False),
        "restyle_e4e": ("ProgressiveBackboneEncoder", 6, 5, True),
        "psp": ("GradualStyleEncoder", 3, 1, False),
        "e4e": ("Encoder4Editing", 3, 1, True),
    }
    config = encoder_config()
    for _ in range(2):
        for preset, (encoder, channels, iterations, adversarial) in expected.items():
            set_preset(config, preset)
            assert (config.encoder.type, config.encoder.input_channels) == (encoder, channels)
            assert config.method.num_iterations == iterations
            assert (config.adversary.weight > 0) == adversarial
            assert (config.adversary.delta_weight > 0) == adversarial
            registry.build(config.encoder.to_dict())


def test_bad_fields_are_named(tiny_weights):
    config = tiny_config(tiny_weights, "e4e")
    config.encoder.type = "GradualStyleEncoder"
    with pytest.raises(InputError, match="config.encoder.type: GradualStyleEncoder has no stages"):
        make_task(config)
    config.encoder.type = "Encoder4Editing"
    config.progressive.every = 0
    with pytest.raises(InputError, match="config.progressive: expected start from 0"):
        make_task(config)
    config.progressive.every = 1
    config.adversary.pool_size = -1
    with pytest.raises(InputError, match="config.adversary.pool_size: expected from 0, got -1"):
        make_task(config)
    with pytest.raises(ValueError, match="psp is not known over a ResNet trunk"):
        config = encoder_config()
        config.encoder.type = "ResNetBackboneEncoder"
        set_preset(config, "psp")
