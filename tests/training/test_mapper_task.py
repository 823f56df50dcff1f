"""StyleCLIP's mapper is trained for a text, without a data set, and is an edit afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.config.presets import mapper_config
from interestyle_jax.data.avatars.captions import captions_of_style
from interestyle_jax.data.numbered import NumberedBatches, numbered_evaluation
from interestyle_jax.editing.styleclip.mapper import load_mapper
from interestyle_jax.errors import InputError
from interestyle_jax.models import registry
from interestyle_jax.models.clip import CLIP
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.training.mapper_task import MapperTask
from interestyle_jax.training.train_loop import train
from interestyle_jax.weights import load_weights, save_weights

TOKENS = captions_of_style("toon-head").token_ids
TOWERS = {"vision_layers": 1, "vision_width": 8, "vision_heads": 2, "vision_mlp": 8}
TOWERS |= {"text_layers": 1, "text_width": 8, "text_heads": 2, "text_mlp": 8, "embed_dim": 6}
SIZES = {"image_size": 16, "patch_size": 8, "context_length": 24, "vocab_size": len(TOKENS)}
NETWORKS = {
    "clip": CLIP(**TOWERS, **SIZES, token_ids=TOKENS, quick_gelu=False),
    "embedder": FaceEmbedder((1, 1), (4, 4, 8), dim=4, input_size=16),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weight directories "clip" and "embedder" of tiny random networks."""
    folder, rng = tmp_path_factory.mktemp("mapper"), np.random.default_rng(0)

    def draw(path, spec):
        if path[-1].key in ("scale", "var"):
            return np.ones(spec.shape, np.float32)
        spread = 0.1 if len(spec.shape) < 2 else np.prod(spec.shape[:-1]) ** -0.5
        return np.asarray(spread * rng.normal(size=spec.shape), np.float32)

    for part, module in NETWORKS.items():
        architecture = registry.describe(module)
        shapes = registry.variable_shapes(architecture)
        save_weights(
            folder / part,
            {part: jax.tree_util.tree_map_with_path(draw, shapes)},
            family=part,
            architectures={part: architecture},
            licence="none",
        )
    return folder


@pytest.fixture(scope="module")
def make_config(folder, tiny_weights):
    def make(**changes):
        config = mapper_config()
        config.update({"text": "a face with a smile", "num_steps": 2, "validation_samples": 3})
        config.weights.generator = str(tiny_weights / "inverter")
        config.weights.clip = str(folder / "clip")
        config.loss.id = 0.0
        config.update_from_flattened_dict(changes)
        return config

    return make


def run(task, steps):
    state = task.init(jax.random.key(0), {})
    step = jax.jit(task.train_step)
    batch, history = {"id": jnp.arange(4)}, []
    for i in range(steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        state, metrics = step(key, state, task.frozen, batch)
        history.append(jax.device_get(metrics))
    return state, history


def test_a_mapper_learns_its_text_and_edits(make_config, folder, tmp_path):
    task = MapperTask(make_config(**{"loss.id": 0.1, "weights.id": str(folder / "embedder")}))
    validate = jax.jit(task.validate_step)
    start = task.init(jax.random.key(0), {})
    batch = {"id": jnp.arange(4)}
    before = validate(jax.random.key(5), start, task.frozen, batch)
    assert set(before) == {"loss", "clip", "latent", "id"} and before["loss"].shape == (4,)
    expected = before["clip"] + 0.8 * before["latent"] + 0.1 * before["id"]
    np.testing.assert_allclose(before["loss"], expected, rtol=1e-5)
    state, history = run(task, 30)
    after = validate(jax.random.key(5), state, task.frozen, batch)
    assert np.all(np.isfinite([x["loss"] for x in history]))
    assert after["clip"].mean() < before["clip"].mean()
    task.export(task.exported(state), tmp_path / "weights", extra={})
    edit = load_mapper(tmp_path / "weights", task.g.style_layers, w_dim=16)
    assert edit.name == "a face with a smile"
    w_plus = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 16)), jnp.float32)
    change = task.mapper.apply({"params": state.params}, w_plus)
    np.testing.assert_allclose(edit(w_plus, 0.1), w_plus + 0.1 * change, rtol=1e-5, atol=1e-6)
    grid = task.images(jax.random.key(0), state, task.frozen, batch)
    assert grid.shape == (4, 2, 32, 32, 3)


def test_a_run_needs_no_data_set_and_resumes(make_config, tmp_path):
    config = make_config(levels=("coarse",), batch_size=8, checkpoint_every=1, log_every=1)
    config.num_steps = 1
    assert train(config, tmp_path / "run", command=["test"])["last_step"] == 1
    config.num_steps = 2
    assert train(config, tmp_path / "run", command=["test"])["last_step"] == 2
    found = load_weights(tmp_path / "run" / "weights")
    assert found.metadata["architectures"]["mapper"]["levels"] == ["coarse"]
    assert found.metadata["extra"]["text"] == "a face with a smile"


def test_latents_of_a_file(make_config, tmp_path):
    w_plus = np.random.default_rng(0).normal(size=(20, 2, 8, 16)).astype(np.float32)
    np.savez(tmp_path / "latents.npz", names=np.arange(20), w_plus=w_plus)
    task = MapperTask(make_config(latents=str(tmp_path / "latents.npz")))
    drawn = {
        held_out: np.asarray(task._latents(jax.random.key(0), task.frozen, 200, held_out=held_out))
        for held_out in (False, True)
    }
    for held_out, (low, high) in {False: (0, 18), True: (18, 20)}.items():
        found = {row.tobytes() for row in drawn[held_out]}
        assert found == {row.tobytes() for row in w_plus[low:high, -1]}


def test_numbers_in_place_of_a_data_set():
    whole = NumberedBatches(4, range(4), seed=0)
    next(whole)
    part = NumberedBatches(4, [2, 3], seed=0)
    part.set_state(whole.get_state())
    assert next(whole)["id"].tolist() == [4, 5, 6, 7]
    assert next(part)["id"].tolist() == [6, 7]
    with pytest.raises(InputError, match="data state: seed was 0 when it was saved and is 1 now"):
        NumberedBatches(4, range(4), seed=1).set_state(whole.get_state())
    first, last = numbered_evaluation(4, [0, 1], num_samples=5)
    assert first["id"].tolist() == [0, 1] and first["valid"].all()
    assert last["id"].tolist() == [4, 5] and last["valid"].tolist() == [True, False, False, False]


def test_bad_input(make_config, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((3, 18, 512), np.float32))
    for changes, message in [
        ({"text": ""}, "config.text: expected what the edit should show"),
        ({"text": "a hat"}, "was not trained with"),
        ({"loss.id": 0.1}, "config.weights.id: expected ArcFace's weights"),
        ({"loss.clip": -1.0}, "config.loss.clip: expected from 0, got -1.0"),
        ({"latents": str(tmp_path / "no.npy")}, "config.latents: .*no.npy is not readable"),
        ({"latents": str(tmp_path / "other.npy")}, r"holds \[3, 18, 512\].*takes \[N, 8, 16\]"),
    ]:
        with pytest.raises(InputError, match=message):
            MapperTask(make_config(**changes))
