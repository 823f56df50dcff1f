"""The network that reads avatars: it learns, is stored and read back, and names what it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import attribute_config
from interestyle_jax.data.avatars import sample
from interestyle_jax.data.pipeline import normalize
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attributes import AttributeReader
from interestyle_jax.training.attribute_task import REGIONS, AttributeTask

SIZE, BATCH = 16, 16


def make_config(**changes):
    config = attribute_config()
    config.update({"resolution": SIZE, "widths": (16, 16), "num_steps": 200, "noise": 0.05})
    config.optimizer.update({"learning_rate": 0.03, "adam_learning_rate": 0.01})
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def batch():
    drawn = [sample(index, size=SIZE) for index in range(BATCH)]
    return {
        name: jnp.asarray(np.stack([x[name] for x in drawn]))
        for name in ("clean", "factors", *REGIONS.values())
    }


@pytest.fixture(scope="module")
def task():
    return AttributeTask(make_config())


@pytest.fixture(scope="module")
def trained(task, batch):
    """State and metrics before and after 200 steps on one batch."""
    state = task.init(jax.random.key(0), {})
    step = jax.jit(task.train_step)
    history = []
    for i in range(200):
        state, metrics = step(jax.random.fold_in(jax.random.key(1), i), state, {}, batch)
        history.append(metrics)
    return state, history[0], history[-1]


def test_a_batch_is_learnt(trained):
    _, first, last = trained
    assert float(first["accuracy"]) < 0.5 < 0.95 < float(last["accuracy"])
    assert float(last["number_error"]) < 0.5 * float(first["number_error"])
    assert float(last["pixel_accuracy"]) > 0.9 > float(first["pixel_accuracy"])


def test_it_is_stored_and_says_what_the_avatars_show(task, batch, trained, tmp_path):
    state = task.exported(trained[0])
    assert state.params is None
    task.export(state, tmp_path / "weights", extra={})
    read = AttributeReader(tmp_path / "weights")
    images = np.asarray(normalize({"clean": batch["clean"]})["clean"])
    found = read(images)
    factors = dict(zip(task.factors.names, np.asarray(batch["factors"]).T, strict=True))
    right = []
    for part, kinds in task.factors.parts.items():
        wanted = np.argmax([factors[f"{part}={kind}"] for kind in kinds], axis=0)
        right.append([kinds[i] for i in wanted] == found.labels(part))
        np.testing.assert_allclose(sum(found.chances[part].values()), 1)
    assert np.mean(right) > 0.8
    np.testing.assert_allclose(found.scores("beard"), 1 - found.scores("beard=none"))
    assert np.corrcoef(found.scores("tilt"), factors["tilt"])[0, 1] > 0.7
    face = np.asarray(batch["face_mask_full"])[..., 0] > 127
    assert ((found.regions["face"] > 0.5) == face).mean() > 0.9
    validation = task.validate_step(jax.random.key(0), trained[0], {}, batch)
    assert validation["loss"].shape == (BATCH,)
    grid = task.images(jax.random.key(0), trained[0], {}, batch)
    assert grid.shape == (BATCH, 5, SIZE, SIZE, 3)
    with pytest.raises(InputError, match="'hat' is not known, expected one of beard, rear_hair"):
        found.scores("hat")
    with pytest.raises(InputError, match="attribute: expected one of beard, clothes"):
        found.labels("hat")
    with pytest.raises(InputError, match=r"images: expected \[B, 16, 16, 3\]"):
        read(images[:, :8])


def test_bad_input(task, batch):
    config = make_config()
    config.data.flip = True
    with pytest.raises(InputError, match="config.data.flip: expected False"):
        AttributeTask(config)
    with pytest.raises(ValueError, match="resolution: expected a multiple of 4, got 18"):
        AttributeTask(make_config(resolution=18)).init(jax.random.key(0), {})
    state = task.init(jax.random.key(0), {})
    with pytest.raises(InputError, match="config.data.dir: its images are 8 x 8"):
        wrong = batch | {"clean": np.zeros((BATCH, 8, 8, 3), np.uint8)}
        task.train_step(jax.random.key(0), state, {}, wrong)
