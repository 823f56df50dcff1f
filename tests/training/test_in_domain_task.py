"""IDInvert's domain-guided encoder on tiny networks: its losses, and who is trained when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import encoder_config, set_preset
from interestyle_jax.errors import InputError
from interestyle_jax.training.in_domain_task import InDomainEncoderTask, InDomainLoss
from interestyle_jax.training.losses import ImageLoss
from interestyle_jax.training.trainer import make_task
from interestyle_jax.weights import load_weights

SIZE, BATCH = 32, 4
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def config(tiny_weights):
    config = encoder_config("idinvert")
    config.weights.generator = str(tiny_weights / "generator")
    config.weights.lpips = ""
    config.encoder = {
        "type": "BackboneEncoder",
        "input_channels": 3,
        "input_size": SIZE,
        "units": (1,),
        "widths": (4, 4),
        "head_width": 4,
    }
    config.method.noise = "const"
    config.loss = {"l2": 1.0}
    config.in_domain.perceptual = "lpips"
    config.in_domain.discriminator = {"channel_base": 64, "channel_max": 4}
    config.in_domain.r1_every = 2
    config.optimizer = {"name": "adam", "learning_rate": 1e-2, "schedule": "constant"}
    return config


@pytest.fixture(scope="module")
def step(config):
    """The task, the states before and after a step with R1, and the step's metrics."""
    task = make_task(config)
    image = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    before = jax.jit(task.init)(jax.random.key(0), {})
    train = jax.jit(task.train_step, static_argnames="phase")
    after, metrics = train(KEY, before, task.frozen, {"image": image}, phase=("r1",))
    return task, image, before, after, metrics


def test_the_discriminator_is_trained_first_and_the_encoder_against_it(step):
    task, image, before, after, metrics = step
    assert isinstance(task, InDomainEncoderTask) and task.optional_fields == ("interest_mask",)
    real = image.astype(np.float32) / 127.5 - 1
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    encode = jax.jit(lambda v, x: task.encoder.apply(v, x, train=True, mutable=["batch_stats"])[0])
    w = task.frozen["w_0"] + encode(variables, real)
    drawn = task.generator.apply(task.frozen["generator"], w, "const", method="synthesize")
    side = drawn.shape[1] // SIZE
    fake = drawn.reshape(BATCH, SIZE, side, SIZE, side, 3).mean((2, 4))

    def judge(params, x):
        return task.d.apply({"params": params}, x)

    old = [judge(before.discriminator, x) for x in (real, fake)]
    want = np.log1p(np.exp(-np.asarray(old[0]))).mean() + np.log1p(np.exp(old[1])).mean()
    np.testing.assert_allclose(metrics["d_loss"], want, rtol=1e-4)
    # The encoder's term is of the discriminator after both of its updates.
    adversarial = np.log1p(np.exp(-np.asarray(judge(after.discriminator, fake)))).mean()
    np.testing.assert_allclose(metrics["adversarial"], adversarial, rtol=1e-4)
    l2 = np.square(np.asarray(fake) - real).mean()
    np.testing.assert_allclose(metrics["loss"], l2 + 0.08 * adversarial, rtol=1e-4)
    assert metrics["r1"] > 0 and after.r1 == metrics["r1"]
    assert int(after.discriminator_opt[0].count) == 2
    for name in ("params", "discriminator"):
        moved = jax.tree.map(
            lambda a, b: jnp.any(a != b), getattr(before, name), getattr(after, name)
        )
        assert any(jax.tree.leaves(moved))
    assert [task.phase(i) for i in range(3)] == [("r1",), (), ("r1",)]


def test_what_is_written_inverts_and_starts_another(step, config, tmp_path):
    task, _, _, after, _ = step
    task.export(task.exported(after), tmp_path / "weights", extra={})
    weights = load_weights(tmp_path / "weights")
    assert {"encoder", "generator", "discriminator", "w_avg"} <= set(weights.variables)
    config = config.copy_and_resolve_references()
    config.weights.discriminator = str(tmp_path / "weights")
    other = InDomainEncoderTask(config)
    assert other.d == task.d
    jax.tree.map(np.testing.assert_array_equal, other.initial["discriminator"], after.discriminator)
    assert "discriminator" in other.weight_digests


def test_terms_add_up_and_are_left_out():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32) for _ in range(2))

    def features(x):
        return 2 * x[..., :1]

    def judge(x):
        return x.mean((1, 2, 3))

    base = ImageLoss({"l2": 1.0})
    total, parts = InDomainLoss(base, features, 5e-5, judge, 0.08)(a, b, None)
    conv = np.square(features(a) - features(b)).mean((1, 2, 3))
    adversarial = np.log1p(np.exp(-judge(b)))
    np.testing.assert_allclose(parts["conv4_3"], conv, rtol=1e-5)
    want = np.square(a - b).mean((1, 2, 3)) + 5e-5 * conv + 0.08 * adversarial
    np.testing.assert_allclose(total, want, rtol=1e-5)
    assert set(InDomainLoss(base, None, 5e-5, None, 0.08)(a, b, None)[1]) == {"l2"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("in_domain.perceptual", "conv4_3", "config.weights.vgg: expected lpips_vgg weights"),
        ("in_domain.perceptual", "vgg", "expected one of conv4_3, lpips"),
        ("in_domain.r1_every", 0, "r1_every: expected from 1"),
        ("in_domain.weight", -1.0, "weight: expected from 0"),
        ("method.interest_loss", True, "expected 0 with several iterations or an interest loss"),
    ],
)
def test_bad_fields_are_named(config, field, value, words):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=words):
        InDomainEncoderTask(config)


def test_the_preset_is_switched_on_and_off():
    config = encoder_config("interestyle")
    assert config.in_domain.weight == 0
    set_preset(config, "idinvert")
    assert config.in_domain.weight == 0.08 and config.method.num_iterations == 1
    assert config.encoder.input_channels == 3
    set_preset(config, "restyle_psp")
    assert config.in_domain.weight == 0 and config.method.num_iterations == 5
