"""A small CLIP of avatars learns, is exported, and reads texts and images afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import clip_config
from interestyle_jax.data.avatars import clean_sample
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.editing.clip import load_clip
from interestyle_jax.errors import InputError
from interestyle_jax.training.clip_task import ClipTask

SIZE, BATCH, STEPS = 16, 16, 150
TOWERS = {
    "embed_dim": 16,
    "image_size": SIZE,
    "patch_size": 8,
    "vision_layers": 1,
    "vision_width": 32,
    "vision_heads": 2,
    "vision_mlp": 64,
    "text_layers": 1,
    "text_width": 32,
    "text_heads": 2,
    "text_mlp": 64,
}


def make_config(**changes):
    config = clip_config()
    config.clip.update(TOWERS)
    config.update({"num_steps": STEPS, "noise": 0.05, "ema_steps": 20.0})
    config.optimizer.learning_rate = 0.005
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def batch():
    drawn = [clean_sample(index, size=SIZE) for index in range(BATCH)]
    return {n: jnp.asarray(np.stack([x[n] for x in drawn])) for n in ("clean", "factors")}


@pytest.fixture(scope="module")
def task():
    return ClipTask(make_config())


@pytest.fixture(scope="module")
def trained(task, batch):
    """The state, and the validation's figures before and after."""
    state = jax.jit(task.init)(jax.random.key(0), {})
    step, validate = jax.jit(task.train_step), jax.jit(task.validate_step)
    before = validate(jax.random.key(9), state, {}, batch)
    for i in range(STEPS):
        state, metrics = step(jax.random.fold_in(jax.random.key(1), i), state, {}, batch)
    assert all(np.isfinite(x) for x in metrics.values())
    return state, before, validate(jax.random.key(9), state, {}, batch)


def test_captions_find_their_images(trained):
    _, before, after = trained
    assert before["loss"].shape == after["accuracy"].shape == (BATCH,)
    assert after["loss"].mean() < 0.6 * before["loss"].mean()
    assert after["accuracy"].mean() > before["accuracy"].mean() + 0.3


def test_it_is_exported_and_read_back(task, trained, batch, tmp_path):
    state = task.exported(trained[0])
    assert state.params is None
    task.export(state, tmp_path / "clip", extra={})
    clip = load_clip(tmp_path / "clip")
    images = normalize({"clean": batch["clean"]})["clean"]
    features = clip.image_features(images)
    texts = clip.text_features(["a face with a beard", "a face with no beard"])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    names = task.captions.phrases
    with_beard = np.asarray(task.captions.true_phrases(batch["factors"]))[:, names.index("a beard")]
    cosines = np.asarray(features @ texts.T)
    difference = cosines[:, 0] - cosines[:, 1]
    assert 0 < with_beard.sum() < BATCH
    assert difference[with_beard].mean() > difference[~with_beard].mean()
    with pytest.raises(InputError, match="'freckles'.*it knows .*beard"):
        clip.text_features("a face with freckles")
    grid = task.images(jax.random.key(0), trained[0], {}, batch)
    assert grid.shape == (BATCH, 4, SIZE, SIZE, 3)


def test_bad_input(task, batch):
    config = make_config()
    config.data.flip = True
    with pytest.raises(InputError, match="config.data.flip: expected False"):
        ClipTask(config)
    with pytest.raises(InputError, match="style: 'personas' has no captions"):
        ClipTask(make_config(style="personas"))
    state = jax.eval_shape(task.init, jax.random.key(0), {})
    wrong = batch | {"clean": jnp.zeros((BATCH, 8, 8, 3), jnp.uint8)}
    with pytest.raises(InputError, match="its images are 8 x 8, config.clip.image_size is 16"):
        jax.eval_shape(task.train_step, jax.random.key(0), state, {}, wrong)
