"""The encoder's training task on tiny networks, from weight directories to a weight directory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interestyle_jax import load
from interestyle_jax.config.presets import encoder_config
from interestyle_jax.data.images import resize_image
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.resize import encoder_input
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.training.encoder_task import EncoderTask
from interestyle_jax.weights import load_weights, save_weights

BATCH, SIZE, COUNT = 4, 8, 3
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def generator_dir(tmp_path_factory):
    generator = Generator(
        resolution=SIZE, w_dim=6, z_dim=4, mapping_depth=1, channel_base=64, channel_max=4
    )
    variables = jax.jit(lambda key: registry.init(key, generator))(jax.random.key(0))
    w_avg = 0.3 * jax.random.normal(jax.random.key(1), (6,))
    return save_weights(
        tmp_path_factory.mktemp("weights") / "generator",
        {"generator": variables, "w_avg": w_avg},
        family="stylegan2",
        architectures={"generator": registry.describe(generator)},
        licence="none",
    )


@pytest.fixture(scope="module")
def make_config(generator_dir):
    def make(preset="interestyle", **method):
        config = encoder_config(preset)
        config.weights.generator = str(generator_dir)
        config.weights.lpips = ""
        config.encoder = {
            "type": "BackboneEncoder",
            "input_size": SIZE,
            "units": (1,),
            "widths": (4, 4),
            "head_width": 4,
        }
        config.method.update(
            {
                "num_iterations": COUNT,
                "dilation_radius": 1,
                "filter_reference": 64,
                "filter_radii": (8.0, 4.0),
                "noise": "const",
                **method,
            }
        )
        if preset == "restyle_psp":
            config.method.filter_radii = ()
        config.optimizer = {"name": "adam", "learning_rate": 1e-2}
        return config

    return make


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = np.zeros((BATCH, SIZE, SIZE, 1), np.uint8)
    mask[:, 2:6, 3:6] = 255
    return {
        "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8),
        "interest_mask": mask,
    }


def test_larger_images_are_resized_as_everywhere(make_config):
    """By the official filter, up to its rounding; an average of blocks would differ."""
    large = np.random.default_rng(1).integers(0, 256, (4 * SIZE, 4 * SIZE, 3), dtype=np.uint8)
    mask = np.where(large[..., :1] < 128, 0, 255).astype(np.uint8)
    task = EncoderTask(make_config(dilation_radius=0))
    image, inside = task._prepare({"image": large[None], "interest_mask": mask[None]})
    np.testing.assert_allclose(image[0], encoder_input(large, (SIZE, SIZE)), atol=1.01 / 127.5)
    want = resize_image(mask, (SIZE, SIZE)) / 255
    np.testing.assert_allclose(inside[0], want, atol=1.01 / 255)
    blocks = large.reshape(SIZE, 4, SIZE, 4, 3).mean((1, 3)) / 127.5 - 1
    assert np.abs(image[0] - blocks).max() > 0.1


def norm(tree):
    return np.sqrt(sum(float(jnp.vdot(x, x)) for x in jax.tree.leaves(tree)))


class Run:
    """A task with its compiled functions and first state."""

    def __init__(self, config, state=None):
        self.task = EncoderTask(config)
        self.state = jax.jit(self.task.init)(jax.random.key(2), {}) if state is None else state
        # One program for many tests; no donation, as the first state is used again.
        self.train_step = jax.jit(self.task.train_step)

    def step(self, batch, key=KEY):
        return self.train_step(key, self.state, self.task.frozen, batch)

    @functools.cached_property
    def modules(self):
        """encode(params, stats, x) -> (delta, stats) and synthesize(w_plus), straight from Flax."""
        encoder, generator = self.task.encoder, self.task.generator

        @jax.jit
        def encode(params, stats, x):
            delta, new = encoder.apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
            )
            return delta, new["batch_stats"]

        @jax.jit
        def synthesize(w_plus):
            variables = self.task.frozen["generator"]
            return generator.apply(variables, w_plus, "const", method="synthesize")

        return encode, synthesize


@pytest.fixture(scope="module")
def interestyle(make_config):
    return Run(make_config())


@pytest.fixture(scope="module")
def restyle(make_config, interestyle):
    return Run(make_config("restyle_psp"), interestyle.state)


def test_restyle_step_is_the_plain_reference(restyle, batch):
    encode, synthesize = restyle.modules
    image = batch["image"].astype(np.float32) / 127.5 - 1
    params, stats = restyle.state.params, restyle.state.batch_stats
    w_avg = load_weights(restyle.task.config.weights.generator).variables["w_avg"]
    w = jnp.broadcast_to(w_avg, (BATCH, 4, 6))
    y_hat = synthesize(w)
    grads = jax.tree.map(jnp.zeros_like, params)

    def one(params, stats, w, y_hat):
        delta, stats = encode(params, stats, jnp.concatenate([image, y_hat], axis=-1))
        w = w + delta
        y_hat = synthesize(w)
        return jnp.mean(jnp.square(y_hat - image)), (stats, w, y_hat)

    one = jax.jit(jax.value_and_grad(one, has_aux=True))
    total = 0.0
    for _ in range(COUNT):
        (loss, (stats, w, y_hat)), more = one(params, stats, w, y_hat)
        grads, total = jax.tree.map(jnp.add, grads, more), total + loss
    optimizer = optax.adam(1e-2)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)

    state, metrics = restyle.step(batch)
    assert int(state.step) == 1
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    np.testing.assert_allclose(metrics["l2"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm(grads), rtol=1e-4)
    assert "ind_loss" not in metrics
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, state.batch_stats, stats)
    # Adam's first moment after one step is a tenth of the gradient.
    scale = norm(grads)
    jax.tree.map(
        lambda mu, want: np.testing.assert_allclose(10 * mu, want, rtol=1e-3, atol=1e-5 * scale),
        state.opt_state[0].mu,
        grads,
    )
    changed = norm(jax.tree.map(jnp.subtract, state.params, params))
    np.testing.assert_allclose(changed, norm(updates), rtol=1e-3)


def test_statistics_move_on_all_passes_and_on_the_pair(interestyle, batch):
    encode, synthesize = interestyle.modules
    task, state = interestyle.task, interestyle.state
    image, mask = task._prepare(batch)
    blurred = image * (1 - mask)
    inputs = [image * mask + gaussian(blurred, radius) for radius in (1.0, 0.5)] + [image]
    stats = state.batch_stats
    w, y_hat = task.frozen["w_0"], jnp.broadcast_to(task.frozen["image_0"], image.shape)
    for x in inputs:
        delta, stats = encode(state.params, stats, jnp.concatenate([x, y_hat], axis=-1))
        w = w + delta
        y_hat = synthesize(w)
    delta_b, stats = encode(state.params, stats, jnp.concatenate([image, image * mask], axis=-1))
    y_b = synthesize(w + delta_b)

    new, metrics = interestyle.step(batch)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, new.batch_stats, stats)
    l2, ind_l2 = (float(jnp.mean(jnp.square((y - image) * mask))) for y in (y_hat, y_b))
    np.testing.assert_allclose(metrics["l2"], l2, rtol=1e-4)
    np.testing.assert_allclose(metrics["ind_l2"], ind_l2, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], l2 + 0.05 * ind_l2, rtol=1e-4)


def gaussian(image, radius):
    """Gaussian with repeated edges, cut off at three standard deviations."""
    from scipy import ndimage

    half = int(np.ceil(3 * radius))
    sigma, reach = (0, radius, radius, 0), (0, half, half, 0)
    return ndimage.gaussian_filter(np.asarray(image), sigma, mode="nearest", radius=reach)


def test_whole_image_losses_need_no_masks(restyle, interestyle, batch):
    assert restyle.task.optional_fields == ("interest_mask",)
    assert interestyle.task.optional_fields == ()
    plain = {"image": batch["image"]}
    _, mask = restyle.task._prepare(plain)
    assert mask.shape == (BATCH, SIZE, SIZE, 1) and np.all(np.asarray(mask) == 1)
    without, metrics = restyle.step(plain)
    state, want = restyle.step(batch)
    np.testing.assert_allclose(metrics["loss"], want["loss"], rtol=1e-6)
    moved = jax.tree.map(jnp.subtract, without.params, restyle.state.params)
    off = jax.tree.map(jnp.subtract, without.params, state.params)
    assert norm(off) < 1e-3 * norm(moved)
    grid = jax.eval_shape(restyle.task.images, KEY, state, restyle.task.frozen, plain)
    assert grid.shape == (BATCH, 1 + COUNT, SIZE, SIZE, 3)


def test_masks_are_dilated_before_anything_sees_them(interestyle, batch):
    _, mask = interestyle.task._prepare(batch)
    want = np.zeros((SIZE, SIZE))
    want[1:7, 3:6] = want[2:6, 2:7] = 1
    np.testing.assert_array_equal(mask[0, ..., 0], want)


def test_training_lowers_the_loss(interestyle, batch):
    state, losses = interestyle.state, []
    for i in range(40):
        state, metrics = interestyle.train_step(
            jax.random.key(i), state, interestyle.task.frozen, batch
        )
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert int(state.step) == 40


def test_validation_reads_no_mask_into_the_encoder(interestyle, batch):
    task, state = interestyle.task, interestyle.state
    values = jax.jit(task.validate_step)(KEY, state, task.frozen, batch)
    assert set(values) == {"loss", "l2"}
    draw = jax.jit(task.images)
    grid = draw(KEY, state, task.frozen, batch)
    assert grid.shape == (BATCH, 2 + COUNT, SIZE, SIZE, 3)
    assert float(jnp.abs(grid).max()) <= 1
    image, mask = task._prepare(batch)
    np.testing.assert_allclose(grid[:, 0], image, atol=1e-6)
    np.testing.assert_allclose(grid[:, 1, ..., 0], 2 * mask[..., 0] - 1)
    other = {**batch, "interest_mask": np.full_like(batch["interest_mask"], 255)}
    np.testing.assert_array_equal(draw(KEY, state, task.frozen, other)[:, 2:], grid[:, 2:])
    whole = jax.jit(task.validate_step)(KEY, state, task.frozen, other)
    assert np.all(np.asarray(whole["l2"]) != np.asarray(values["l2"]))


def test_exported_weights_invert_as_the_task_does(interestyle, batch, tmp_path):
    from interestyle_jax.inversion.inverter import load

    task, state = interestyle.task, interestyle.state
    task.export(jax.device_get(state), tmp_path / "weights", extra={"note": 1})
    model = load(tmp_path / "weights")
    assert model.metadata["family"] == "interestyle"
    assert model.metadata["extra"] == {"image_shape": [SIZE, SIZE], "note": 1}
    image, _ = task._prepare(batch)
    got = model.invert(image, num_steps=COUNT)
    want = jax.jit(task._invert)(state, task.frozen, image)
    np.testing.assert_allclose(got.w_plus, want.w_plus, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.images, want.images, rtol=1e-4, atol=1e-4)


def test_noise_average_and_three_channels(make_config, batch):
    # pSp: the image alone, one iteration; fresh noise; averaged weights.
    config = make_config(num_iterations=1, disentangle_weight=0.0, noise="random")
    config.encoder.input_channels = 3
    config.ema_decay = 0.75
    run = Run(config)
    noises = run.task.frozen["generator"]["params"]
    strengths = jax.tree_util.tree_map_with_path(
        lambda path, x: np.ones_like(x) if "noise_strength" in str(path) else x, noises
    )
    run.task.frozen["generator"] = {**run.task.frozen["generator"], "params": strengths}
    state, metrics = run.step(batch)
    _, same = run.step(batch)
    _, other = run.step(batch, jax.random.key(8))
    assert float(metrics["loss"]) == float(same["loss"])
    assert float(metrics["loss"]) != float(other["loss"])
    want = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, run.state.params, state.params)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.ema, want)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("method.num_iterations", 0),
        ("method.gradient", "first"),
        ("method.loop", "while"),
        ("method.noise", "none"),
        ("method.disentangle_weight", -0.1),
        ("method.swap", 1.5),
        ("loss.w_norm", -1.0),
        ("loss.consistency", -1.0),
        ("ema_decay", 1.0),
        ("weights.generator", ""),
        ("optimizer.name", "sgd"),
        ("optimizer.schedule", "steps"),
        ("encoder.widths", (4,)),
        ("encoder.type", "Backbone"),
        ("method.filter_radii", (1.0,)),
    ],
)
def test_bad_config_names_the_field(make_config, path, value):
    config = make_config()
    with config.unlocked():
        config.update_from_flattened_dict({path: value})
    field = path.split(".")[-1] if path.startswith("method.filter") else path
    field = "encoder" if path.startswith("encoder") else field
    with pytest.raises(InputError, match=field):
        EncoderTask(config)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedule_falls_to_nothing_at_the_last_step(make_config, schedule):
    config = make_config()
    config.num_steps = 2
    config.optimizer.schedule = schedule
    optimizer = EncoderTask(config).optimizer
    params = {"a": np.ones(3, np.float32)}
    state, sizes = optimizer.init(params), []
    for _ in range(3):
        updates, state = optimizer.update({"a": np.ones(3, np.float32)}, state, params)
        sizes.append(float(np.abs(updates["a"]).max()))
    np.testing.assert_allclose(sizes, [1e-2, 5e-3, 0.0], rtol=1e-4, atol=1e-9)


def test_frozen_batch_norm_trains_what_validation_measures(make_config, batch):
    config = make_config(filter_radii=(0.0, 0.0), disentangle_weight=0.0)
    config.freeze_batch_norm_after, config.num_steps = 0.75, 8
    task = EncoderTask(config)
    assert [bool(task.phase(i)) for i in range(8)] == 6 * [False] + 2 * [True]
    state = jax.jit(task.init)(jax.random.key(2), {})
    # Statistics unlike the batch's: normalising by the batch would show.
    state = state.replace(batch_stats=jax.tree.map(lambda x: x + 0.5, state.batch_stats))
    step = jax.jit(task.train_step, static_argnames="phase")
    after, metrics = step(KEY, state, task.frozen, batch, phase=task.phase(6))
    validation = jax.jit(task.validate_step)(KEY, state, task.frozen, batch)
    np.testing.assert_allclose(metrics["loss"], validation["loss"].mean(), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, state.batch_stats)
    assert norm(jax.tree.map(jnp.subtract, after.params, state.params)) > 0
    moved, _ = step(KEY, state, task.frozen, batch, phase=task.phase(5))
    assert norm(jax.tree.map(jnp.subtract, moved.batch_stats, state.batch_stats)) > 0


def test_steps_of_a_single_pass_come_first(make_config, batch):
    config = make_config()
    config.single_pass_until, config.num_steps = 0.5, 4
    config.freeze_batch_norm_after = 0.25
    task = EncoderTask(config)
    both = ("single_pass", "frozen_batch_norm")
    assert [task.phase(i) for i in range(4)] == [both[:1], both, both[1:], both[1:]]
    single = EncoderTask(make_config(num_iterations=1, filter_radii=(), disentangle_weight=0.0))
    state = jax.jit(task.init)(jax.random.key(2), {})
    got, metrics = jax.jit(task.train_step, static_argnames="phase")(
        KEY, state, task.frozen, batch, phase=both[:1]
    )
    want, expected = jax.jit(single.train_step)(KEY, state, task.frozen, batch)
    assert metrics.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_training_goes_on_from_a_named_encoder(make_config, interestyle, tmp_path):
    directory = tmp_path / "weights"
    state = interestyle.state
    interestyle.task.export(jax.device_get(state), directory, extra={})
    config = make_config()
    config.weights.encoder = str(directory)
    config.seed = 5
    task = EncoderTask(config)
    start = jax.jit(task.init)(jax.random.key(5), task.initial)
    for name in ("params", "batch_stats"):
        want, got = getattr(state, name), getattr(start, name)
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_identity_term_embeds_the_official_crop(make_config, tmp_path):
    embedder = FaceEmbedder(units=(1,), widths=(4, 4), dim=3, input_size=14)
    rng = np.random.default_rng(0)
    shapes = registry.variable_shapes(registry.describe(embedder))
    variables = jax.tree.map(lambda s: rng.random(s.shape).astype(np.float32), shapes)
    config = make_config()
    config.weights.id = str(tmp_path / "arcface")
    save_weights(
        tmp_path / "arcface",
        {"embedder": variables},
        family="arcface",
        architectures={"embedder": registry.describe(embedder)},
        licence="none",
    )
    task = EncoderTask(config)
    a, b = rng.uniform(-1, 1, (2, BATCH, SIZE, SIZE, 3)).astype(np.float32)
    mask = np.ones((BATCH, SIZE, SIZE, 1), np.float32)
    total, parts = jax.jit(lambda frozen: task._image_loss(frozen)(a, b, mask))(task.frozen)
    first, second = (embedder.apply(variables, id_crop(x, size=14)) for x in (a, b))
    want = 1 - np.sum(np.asarray(first) * np.asarray(second), axis=-1)
    np.testing.assert_allclose(parts["id"], want, atol=1e-6)
    np.testing.assert_allclose(total, parts["l2"] + 0.1 * want, rtol=1e-5)
    assert np.ptp(want) > 1e-4


@pytest.mark.parametrize("field", ["freeze_batch_norm_after", "single_pass_until"])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_of_steps_are_checked(make_config, field, share):
    config = make_config()
    config[field] = share
    with pytest.raises(InputError, match=f"{field}.*from 0"):
        EncoderTask(config)


def test_images_that_are_not_square(make_config, batch, tmp_path):
    """As official cars: the middle of the generator's image, from training to inversion."""
    config = make_config()
    config.image_shape = (6, 8)
    run = Run(config)
    task = run.task
    assert task.frozen["image_0"].shape == (1, 6, 8, 3)
    batch = {name: rows[:, 1:7] for name, rows in batch.items()}
    state, metrics = run.step(batch)
    assert all(np.isfinite(value) for value in metrics.values())
    image, mask = task._prepare(batch)
    np.testing.assert_allclose(image, batch["image"] / 127.5 - 1, atol=1e-6)
    assert jax.jit(task.images)(KEY, state, task.frozen, batch).shape == (4, 2 + COUNT, 6, 8, 3)
    values = jax.jit(task.validate_step)(KEY, state, task.frozen, batch)

    task.export(jax.device_get(state), tmp_path / "weights", extra={})
    model = load(tmp_path / "weights")
    assert model.input_shape == (6, 8)
    y_hat = model.invert(image, num_steps=COUNT).images[-1]
    assert y_hat.shape == image.shape
    want = np.mean(np.square((y_hat - image) * mask), axis=(1, 2, 3))
    np.testing.assert_allclose(values["l2"], want, rtol=1e-4)
    # Other proportions are squeezed, as in inversion.
    tall = {name: rows.repeat(2, axis=1) for name, rows in batch.items()}
    assert task._prepare(tall)[0].shape == image.shape


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((6, 6), "expected height and width, the longer of them the encoder's input size, 8"),
        ((8,), "expected height and width"),
        ((5, 8), "image of 8 pixels has no middle part"),
    ],
)
def test_bad_image_shapes_are_refused(make_config, shape, words):
    config = make_config()
    config.image_shape = shape
    with pytest.raises(InputError, match=f"config.image_shape: .*{words}"):
        EncoderTask(config)


def test_swap_changes_what_the_encoder_sees_and_not_the_target(make_config, batch):
    """All samples swapped: the step is that of the images with their neighbours' rest."""
    plain = Run(make_config(swap=0.0, disentangle_weight=0.0, noise="const"))
    swapped = Run(
        make_config(swap=1.0, disentangle_weight=0.0, noise="const", dilation_radius=0), plain.state
    )
    _, metrics = swapped.step(batch)
    mask = batch["interest_mask"] == 255
    by_hand = batch | {"image": np.where(mask, batch["image"], np.roll(batch["image"], -1, axis=0))}
    reference = Run(
        make_config(swap=0.0, disentangle_weight=0.0, noise="const", dilation_radius=0), plain.state
    )
    _, want = reference.step(by_hand)
    # The loss looks inside of the mask, where both have the same target.
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(metrics[name], want[name], rtol=1e-5)
    _, unswapped = reference.step(batch)
    assert abs(metrics["grad_norm"] - unswapped["grad_norm"]) > 1e-3 * unswapped["grad_norm"]


def test_swap_needs_the_interest_loss(make_config):
    with pytest.raises(InputError, match="config.method.swap: expected 0 with a loss on the whole"):
        EncoderTask(make_config(swap=0.5, interest_loss=False))


def test_consistency_compares_an_image_with_its_swapped_form(make_config, batch):
    """Every image is seen both ways; the distance of the two inversions is added."""
    config = make_config(disentangle_weight=0.0, noise="const", dilation_radius=0)
    plain = Run(config)
    mask = batch["interest_mask"] == 255
    swapped = np.where(mask, batch["image"], np.roll(batch["image"], -1, axis=0))
    seen = np.stack([batch["image"], swapped], axis=1).reshape(-1, *swapped.shape[1:])
    both = {"image": seen, "interest_mask": np.repeat(batch["interest_mask"], 2, axis=0)}
    # The loss looks inside of the mask, where both have the same target.
    _, want = plain.step(both)
    results = []
    for weight in (0.25, 1.0):
        with config.unlocked():
            config.loss.consistency = weight
        _, metrics = Run(config, plain.state).step(batch)
        apart = metrics["consistency"]
        np.testing.assert_allclose(metrics["loss"], want["loss"] + weight * apart, rtol=1e-5)
        results.append(metrics)
    assert apart > 0
    assert abs(results[1]["grad_norm"] - results[0]["grad_norm"]) > 1e-4


@pytest.mark.parametrize("fields", [{"swap": 0.5}, {"interest_loss": False}])
def test_consistency_needs_the_interest_loss_and_is_a_swap_itself(make_config, fields):
    config = make_config(**fields)
    with config.unlocked():
        config.loss.consistency = 1.0
    with pytest.raises(InputError, match="config.loss.consistency: expected 0 with"):
        EncoderTask(config)


def test_w_norm_is_added_to_the_loss(make_config, batch):
    config = make_config(noise="const")
    plain = Run(config)
    _, before = plain.step(batch)
    with config.unlocked():
        config.loss.w_norm = 0.25
    _, after = Run(config, plain.state).step(batch)
    np.testing.assert_allclose(after["loss"], before["loss"] + 0.25 * after["w_norm"], rtol=1e-5)
    assert after["w_norm"] > 0
