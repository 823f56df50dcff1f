"""StyleCLIP against the official code's numbers (`golden/README.md`), through files and edits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.editing.styleclip import global_directions as gd
from interestyle_jax.editing.styleclip.mapper import load_mapper
from interestyle_jax.inversion.optimisation.schedule import learning_rates
from interestyle_jax.models.clip_pixels import area_pixels
from interestyle_jax.models.stylegan2 import Generator
from interestyle_jax.weights import load_weights, save_weights
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.source_file import SourceFile

# One forward pass.
REL_L2, REL_MAX = 1e-5, 3e-5


@pytest.fixture(scope="module")
def numbers(golden_dir):
    found = {}
    for name in ("mapper", "global", "clip_input"):
        with np.load(golden_dir / "public" / f"styleclip_{name}.npz") as file:
            found[name] = dict(file)
    return found


@pytest.fixture(scope="module")
def recipes(numbers, goldenfill):
    """(file, input's name) -> the input."""

    def make(file, name):
        recipe = json.loads(str(numbers[file]["recipe_json"]))
        entry = next(r for r in recipe if r["name"] == name)
        return getattr(goldenfill, entry["call"])(name, *entry["args"], **entry["kwargs"])

    return make


def check(goldenfill, got, stored, name):
    got = np.asarray(got, np.float64)
    if f"{name}.sub" in stored:
        assert got.shape == tuple(stored[f"{name}.shape"])
        key = f"{name}.sub_f64"
        got = got.ravel()[goldenfill.subset_index(got.size, len(stored[key]))]
    else:
        key = f"{name}_f64"
    want = np.asarray(stored[key], np.float64)
    error = got.reshape(want.shape) - want
    rel_l2 = np.linalg.norm(error) / np.linalg.norm(want)
    rel_max = np.abs(error).max() / np.abs(want).max()
    assert rel_l2 < REL_L2 and rel_max < REL_MAX, (name, rel_l2, rel_max)


@pytest.fixture(scope="module")
def mapper(golden_manifest, goldenfill, tmp_path_factory):
    """The edit of a golden mapper by way of a weight directory, its module and its variables."""

    def make(section="state_dict", *, without="none", levels=None):
        entries = golden_manifest("styleclip_mapper_1024")[section]
        keys = {key for key, _, _ in entries}
        state = {
            k: goldenfill.fill(k, s, keys)
            for k, s, _ in entries
            if k.startswith("mapper.") and without not in k
        }
        source = SourceFile.of("mapper.pt", {"state_dict": state, "opts": {"stylegan_size": 1024}})
        family = FAMILIES["styleclip_mapper"]
        conversion = family.convert_with([source], levels=levels)
        directory = tmp_path_factory.mktemp("mapper") / "weights"
        save_weights(
            directory,
            {"mapper": conversion.parts["mapper"].variables},
            family=family.name,
            architectures=conversion.architectures,
            licence=family.licence,
        )
        module, variables = load_weights(directory).part("mapper")
        edit = load_mapper(directory, Generator().style_layers, w_dim=512)
        return edit, module, variables

    return make


CASES = {
    "all": {},
    "no_fine": {"without": "fine_mapping", "levels": "coarse,medium"},
    "single": {"section": "mapper_single"},
}


@pytest.mark.parametrize("case", CASES)
def test_mappers_of_w_plus(case, mapper, numbers, recipes, goldenfill):
    edit, module, variables = mapper(**CASES[case])
    w_plus = jnp.asarray(0.5 * recipes("mapper", "input:styleclip:w"))
    check(goldenfill, jax.jit(module.apply)(variables, w_plus), numbers["mapper"], f"{case}/delta")
    edited = jax.jit(lambda edit, w: edit(w, 0.1))(edit, w_plus)
    if case == "all":
        check(goldenfill, edited, numbers["mapper"], "all/w_hat")
    if case == "no_fine":
        np.testing.assert_array_equal(edited[:, 8:], w_plus[:, 8:])


def test_every_layer_of_a_mapper(mapper, numbers, recipes, goldenfill):
    _, module, variables = mapper()
    w_plus = 0.5 * recipes("mapper", "input:styleclip:w")
    options = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, state = jax.jit(lambda v, w: module.apply(v, w, **options))(variables, w_plus)
    for level, source in (("coarse", "course"), ("medium", "medium"), ("fine", "fine")):
        for i in range(4):
            got = state["intermediates"][level][f"dense_{i}"]["__call__"][0]
            stored = numbers["mapper"]
            name = f"all/tap/{source}_mapping.{i + 1}"
            assert got.shape == tuple(stored[f"{name}.shape"])
            want = stored[f"{name}.sub"]
            found = np.asarray(got).ravel()[goldenfill.subset_index(got.size, len(want))]
            assert np.linalg.norm(found - want) < REL_L2 * np.linalg.norm(want), name
            # mean, std, sum of |x|, min, max.
            whole = np.asarray(got, np.float64)
            stats = [whole.mean(), whole.std(), np.abs(whole).sum(), whole.min(), whole.max()]
            np.testing.assert_allclose(stats, stored[f"{name}.stats_f64"], rtol=1e-4, atol=1e-6)


def test_the_mapper_of_styles(mapper, numbers, recipes, goldenfill):
    edit, module, variables = mapper("mapper_stylespace")
    assert edit.space == "style"
    styles = tuple(jnp.asarray(recipes("mapper", f"input:styleclip:s{i}")) for i in range(26))
    assert json.loads(str(numbers["mapper"]["meta_json"]))["stylespace_dims"] == [*module.channels]
    changes = jax.jit(lambda v, s: module.apply(v, s))(variables, styles)
    check(goldenfill, jnp.concatenate(changes, 1), numbers["mapper"], "stylespace/delta_concat")
    edited = edit(styles, 0.1)
    np.testing.assert_array_equal(edited[1], styles[1])
    np.testing.assert_allclose(edited[2], styles[2] + 0.1 * changes[2], rtol=1e-6)


@pytest.mark.parametrize("size", [256, 1024])
def test_what_clip_sees_of_an_image(size, numbers, recipes, goldenfill):
    image = recipes("clip_input", f"input:clip:{size}").transpose(0, 2, 3, 1)
    stored = numbers["clip_input"]

    def pixels(x):
        return area_pixels(x, 224)

    if size == 1024:
        got = jax.jit(pixels)(image)
    else:
        cotangent = recipes("clip_input", f"input:clip:ct{size}").transpose(0, 2, 3, 1)
        got, (grad,) = jax.jit(lambda x, ct: (pixels(x), jax.vjp(pixels, x)[1](ct)))(
            image, cotangent
        )
        check(goldenfill, grad.transpose(0, 3, 1, 2), stored, f"{size}/grad")
    check(goldenfill, got.transpose(0, 3, 1, 2), stored, f"{size}/clip_input")


def unit_rows(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def effects(recipes):
    """(rows, generator) -> the golden fs3 and statistics, and the text's direction."""
    fs3 = unit_rows(recipes("global", "input:global:fs3"))
    direction = unit_rows(recipes("global", "input:global:dt"))

    def make(rows, generator):
        stds = [
            np.abs(recipes("global", f"input:global:std{i}"))
            for i in range(len(generator.style_layers))
        ]
        return gd.ChannelEffects(fs3[:rows], tuple(stds)), direction

    return make


def test_the_effect_of_channels(numbers, recipes):
    features = recipes("global", "input:global:features")
    got = gd.channel_effects(features)
    want = numbers["global"]["fs3_from_features"]
    assert np.linalg.norm(got - want) < REL_L2 * np.linalg.norm(want)


@pytest.mark.parametrize(("rows", "beta"), [(6048, 0.1), (5376, 0.12)])
def test_directions_for_a_text(rows, beta, effects, numbers, recipes, goldenfill):
    stored, generator = numbers["global"], Generator()
    found, direction = effects(rows, generator)
    made = gd.global_direction(found, direction, generator.style_layers, name="text", beta=beta)
    edit = made.edit(generator.style_layers)
    assert made.extra["num_channels"] == stored[f"rows{rows}/num_channels"]
    flat = np.concatenate(edit.variables).astype(np.float64)
    (kept,) = np.nonzero(flat)
    assert len(kept) == stored[f"rows{rows}/num_channels"]
    np.testing.assert_array_equal(kept, stored[f"rows{rows}/nonzero_index"])
    np.testing.assert_allclose(flat[kept], stored[f"rows{rows}/nonzero_value_f64"], rtol=1e-5)
    relevance = gd.relevance(found.fs3, direction)
    assert gd.channels_by_beta(relevance) == stored[f"rows{rows}/num_by_beta"].tolist()
    styles = tuple(jnp.asarray(recipes("global", f"input:global:s{i}")) for i in range(26))
    codes = [np.concatenate(edit(styles, alpha), axis=1) for alpha in (4.1, -3.0)]
    check(goldenfill, np.stack(codes, axis=1), stored, f"rows{rows}/codes")
    same = gd.global_direction(
        found, direction, generator.style_layers, name="text", num_channels=len(kept)
    )
    np.testing.assert_array_equal(same.array, made.array)


def test_the_learning_rate(numbers):
    np.testing.assert_allclose(learning_rates(300), numbers["global"]["lr_schedule"], rtol=1e-12)


@pytest.mark.slow
def test_an_edit_of_a_256_generator(golden_weights, effects, numbers, recipes, goldenfill):
    """S of a latent, and the images before and after the edit."""
    stored = numbers["global"]
    layout = {"g.pt": lambda fill: {"g_ema": fill("g_ema"), **fill("latent_avg")}}
    model = ij.load(golden_weights("rosinality_256", layout))
    found, direction = effects(5760, Generator(resolution=256))
    made = gd.global_direction(found, direction, model.style_layers, name="text", beta=0.1)
    edit = made.edit(model.style_layers)
    flat = np.concatenate(edit.variables)
    np.testing.assert_array_equal(np.nonzero(flat)[0], stored["g256/nonzero_index"])
    np.testing.assert_allclose(flat[flat != 0], stored["g256/nonzero_value"], rtol=1e-5)
    styles = model.styles(0.5 * recipes("global", "input:global:w256"))
    check(goldenfill, np.concatenate(styles, axis=1), stored, "g256/S")
    for name, drawn in (("image", styles), ("edited", edit(styles, 4.1))):
        image = np.asarray(model.synthesize_from_styles(drawn)).transpose(0, 3, 1, 2)
        check(goldenfill, image, stored, f"g256/{name}")
