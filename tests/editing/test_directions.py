"""Directions: our file, the files of others, and what does not fit a generator."""

import json
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from interestyle_jax.editing.direction_files import find_direction, parse_direction
from interestyle_jax.editing.directions import Direction, load_direction, save_direction
from interestyle_jax.editing.style_space import flat_index, num_channels, split_styles
from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import Generator

FFHQ = Generator().style_layers
SMALL = Generator(resolution=16, channel_base=64, channel_max=8).style_layers
RANDOM = np.random.default_rng(0)


def unit(*shape):
    array = RANDOM.normal(size=shape).astype(np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def find(path, layers=SMALL, w_dim=8, **options):
    return find_direction(path, layers, w_dim=w_dim, **options)


@pytest.mark.parametrize("name", ["age", "smile", "pose"])
def test_official_files_edit_as_the_official_formula(name, golden_dir):
    """ReStyle's and e4e's editing: w_plus + strength * direction."""
    path = golden_dir.parent / "official" / f"{name}.pt"
    direction = find(path, FFHQ, 512)
    array = torch.load(path, map_location="cpu", weights_only=True).numpy()
    # The rows of pose.pt, [18, 512], are equal.
    assert (direction.kind, direction.unit, direction.name) == ("w", "length", name)
    w_plus = RANDOM.normal(size=(2, 18, 512)).astype(np.float32)
    for strength in (-3.0, 0.0, 5.0):
        want = w_plus + np.float32(strength) * array.reshape(1, -1, 512)
        got = direction.edit(FFHQ)(w_plus, strength)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        assert np.array_equal(got, w_plus) == (strength == 0)


def test_strengths_of_a_batch_are_each_samples_own():
    edit = Direction("a", "w", unit(8)).edit(SMALL)
    w_plus = jnp.zeros((2, 6, 8))
    both = edit(w_plus, jnp.array([1.0, -2.0]))
    np.testing.assert_array_equal(both[0], edit(w_plus, 1.0)[0])
    np.testing.assert_array_equal(both[1], edit(w_plus, -2.0)[1])


def test_rows_outside_stay_to_the_bit():
    w_plus = jnp.asarray(RANDOM.normal(size=(1, 6, 8)), jnp.float32)
    direction = Direction("a", "w", unit(8), rows=(1, 2))
    changed = np.any(np.asarray(direction.edit(SMALL)(w_plus, 3.0)) != w_plus, axis=(0, 2))
    assert changed.tolist() == [False, True, True, False, False, False]
    changed = np.asarray(direction.edit(SMALL, rows=[5])(w_plus, 3.0)) != w_plus
    assert np.any(changed, axis=(0, 2)).tolist() == [False] * 5 + [True]


def test_absolute_strengths_are_coordinates():
    """GANSpace's edit in e4e's code; of one w in all rows its row 0 is every row."""
    comp, std, mean = unit(8), np.float32(2.5), RANDOM.normal(size=8).astype(np.float32)
    direction = Direction("pc", "w", comp * std, unit="std", origin=mean)
    w = RANDOM.normal(size=8).astype(np.float32)
    coordinate = (w - mean) @ comp / std
    want = w + (1.5 - coordinate) * comp * std
    edit = direction.edit(SMALL, absolute=True)
    got = edit(jnp.broadcast_to(w, (1, 6, 8)), 1.5)
    np.testing.assert_allclose(got, np.broadcast_to(want, (1, 6, 8)), atol=1e-5)
    np.testing.assert_allclose(edit(got, 1.5), got, atol=1e-5)
    whole = Direction("pose", "w_plus", unit(6, 8)).edit(SMALL, absolute=True)
    reached = np.asarray(whole(jnp.ones((2, 6, 8)), 0.0))
    np.testing.assert_allclose(
        np.sum(reached * np.asarray(whole.variables["array"]), (1, 2)), 0, atol=1e-5
    )


def test_file_keeps_everything(tmp_path):
    direction = Direction(
        "smile",
        "w_plus",
        unit(6, 8) * 0.3,
        rows=(0, 3),
        unit="raw",
        source="my svm",
        default_range=(-2.0, 4.5),
        generator="0123456789abcdef",
        origin=unit(6, 8),
        extra={"accuracy": 0.9},
    )
    path = save_direction(tmp_path / "a.npz", direction)
    loaded = load_direction(path)
    np.testing.assert_array_equal(loaded.array, direction.array)
    np.testing.assert_array_equal(loaded.origin, direction.origin)
    fields = ("name", "kind", "rows", "unit", "source", "default_range", "generator", "extra")
    for field in fields:
        assert getattr(loaded, field) == getattr(direction, field)
    assert loaded.norm == pytest.approx(0.3 * 6**0.5, rel=1e-5)
    assert find(path, generator="0123456789abcdef").name == "smile"


def test_file_of_another_generator_is_refused(tmp_path):
    path = save_direction(tmp_path / "a.npz", Direction("a", "w", unit(8), generator="0" * 16))
    with pytest.raises(InputError, match="a.npz: was made for generator 0{16}, these weights hold"):
        find(path, generator="1" * 16)
    assert find(path).generator == "0" * 16


def damage(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    metadata = json.loads(str(arrays["metadata"])) | changes
    np.savez(path, **arrays | {"metadata": np.array(json.dumps(metadata))})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": 2.0}, "norm is 2, but that of its array 1"),
        ({"kind": "z"}, "kind: 'z', expected one of w, w_plus, style"),
        ({"kind": "w_plus"}, r"array: shape \[8\], expected \[L, D\]"),
        ({"format_version": 7}, "format_version is 7, this version reads 1"),
        ({"format": "x"}, "not a direction"),
        ({"default_range": [3, 1]}, "expected a low and a higher number"),
        ({"rows": [-1]}, "expected whole numbers from 0"),
        ({"rows": 3}, "a.npz: "),
        ({"name": "a/b"}, "expected a word without"),
        ({"unit": "metres"}, "expected one of length, std, raw"),
    ],
)
def test_damaged_fields_are_refused(tmp_path, changes, message):
    path = save_direction(tmp_path / "a.npz", Direction("a", "w", unit(8)))
    damage(path, **changes)
    with pytest.raises(InputError, match=f"a.npz: .*{message}|{message}"):
        load_direction(path)


def test_damaged_files_are_refused(tmp_path):
    path = save_direction(tmp_path / "a.npz", Direction("a", "w", unit(8)))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="a.npz: not a readable direction"):
        load_direction(path)
    np.savez(tmp_path / "latents.npz", w_plus=np.zeros((1, 1, 6, 8)))
    with pytest.raises(InputError, match="no direction of this package"):
        find(tmp_path / "latents.npz")
    with pytest.raises(InputError, match="expected a name that ends in .npz"):
        save_direction(tmp_path / "a.pt", Direction("a", "w", unit(8)))
    for array in (np.zeros(8, np.float32), np.full(8, np.nan, np.float32), np.arange(8)):
        with pytest.raises(InputError, match="array: "):
            Direction("a", "w", array)


def saved(path, content):
    if path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(
            {k: torch.as_tensor(v) for k, v in content.items()}
            if isinstance(content, dict)
            else torch.as_tensor(content),
            path,
        )
    return path


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 8), "w"), ((8,), "w"), ((6, 8), "w_plus"), ((1, 6, 8), "w_plus"), ((1, 48), "w_plus")],
)
@pytest.mark.parametrize("ending", [".pt", ".npy"])
def test_arrays_of_others_by_their_shape(tmp_path, shape, kind, ending):
    """e4e and InterFaceGAN, generators-with-stylegan2's .npy, StyleFeatureEditor's [1, L D]."""
    array = unit(*shape)
    direction = find(saved(tmp_path / f"smile{ending}", array))
    assert (direction.name, direction.kind) == ("smile", kind)
    np.testing.assert_array_equal(direction.array.ravel(), array.ravel())


def test_equal_rows_are_one_and_lengths_are_kept(tmp_path):
    """generators-with-stylegan2: float64 [L, D], all rows equal, not unit."""
    row = unit(8).astype(np.float64) * 0.7
    direction = find(saved(tmp_path / "a.npy", np.tile(row, (6, 1))))
    assert (direction.kind, direction.unit) == ("w", "raw")
    assert direction.norm == pytest.approx(0.7)


def test_flat_styles_are_a_direction_of_s(tmp_path):
    array = unit(1, num_channels(SMALL))
    direction = find(saved(tmp_path / "a.npy", array))
    assert direction.kind == "style"
    styles = split_styles(jnp.zeros((1, num_channels(SMALL))), SMALL)
    edited = direction.edit(SMALL)(styles, 2.0)
    np.testing.assert_array_equal(np.concatenate(edited, axis=1), 2 * array)


def test_ganspace_components(tmp_path):
    comp, std, mean = unit(3, 1, 8), np.array([3.0, 2, 1], np.float32), unit(1, 8)
    path = saved(tmp_path / "pca.pt", {"mean": mean, "comp": comp, "std": std})
    direction = find(f"{path}#1")
    np.testing.assert_array_equal(direction.array, comp[1, 0] * 2)
    np.testing.assert_array_equal(direction.origin, mean[0])
    assert direction.unit == "std"
    with pytest.raises(InputError, match=r"holds 3 components, name one as .*pca.pt#0"):
        find(path)
    with pytest.raises(InputError, match="component 3, expected 0 to 2"):
        find(f"{path}#3")
    with pytest.raises(InputError, match="but this generator has a w of 16"):
        find(f"{path}#1", w_dim=16)
    with pytest.raises(InputError, match="holds one direction, no component 2"):
        find(f"{saved(tmp_path / 'a.pt', unit(1, 8))}#2")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "# layer,channel\n3,2\n0,1,-0.5\n"), ("a.json", "[[3, 2], [0, 1, -0.5]]")],
)
def test_channel_lists_of_style_space(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    direction = find(tmp_path / name)
    want = np.zeros(num_channels(SMALL))
    want[flat_index(SMALL, 3, 2)], want[flat_index(SMALL, 0, 1)] = 1, -0.5
    np.testing.assert_array_equal(direction.array, want)
    single = find("channel:3,2")
    assert np.flatnonzero(single.array).tolist() == [flat_index(SMALL, 3, 2)]


def test_channels_move_their_layer_alone():
    edit = find("channel:3,2").edit(SMALL)
    styles = split_styles(jnp.ones((2, num_channels(SMALL))), SMALL)
    for i, (old, new) in enumerate(zip(styles, edit(styles, jnp.array([5.0, -5])), strict=True)):
        want = np.zeros(old.shape)
        if i == 3:
            want[:, 2] = [5, -5]
        np.testing.assert_array_equal(new - old, want)
    # Layer 3 is conv_8, on row 2.
    kept = edit.on_rows([0, 1], SMALL)(styles, 5.0)
    assert all(np.array_equal(a, b) for a, b in zip(kept, styles, strict=True))


def test_what_does_not_fit_is_refused_with_both_sizes(tmp_path):
    path = saved(tmp_path / "age.pt", unit(1, 512))
    with pytest.raises(InputError, match=r"age.pt: an array of shape \[1, 512\].*\[1, 8\], \[6, 8"):
        find(path)
    path = saved(tmp_path / "pose.npy", unit(14, 8))
    with pytest.raises(InputError, match=r"pose.npy: an array of shape \[14, 8\].*\[6, 8\]"):
        find(path)
    path = save_direction(tmp_path / "own.npz", Direction("a", "w_plus", unit(18, 8)))
    with pytest.raises(InputError, match=r"own.npz: .* \[18, 8\], but .* takes \[6, 8\]"):
        find(path)
    path = save_direction(tmp_path / "rows.npz", Direction("a", "w", unit(8), rows=(4, 17)))
    with pytest.raises(InputError, match="rows.npz: row 17: this generator has the rows 0 to 5"):
        find(path)
    with pytest.raises(InputError, match="channel 9 of layer 0: expected 0 to 7"):
        find("channel:0,9")
    with pytest.raises(InputError, match="layer 99: expected 0 to 7"):
        find("channel:99,0")


def test_files_are_never_run(tmp_path):
    """idinvert's boundaries are pickled dicts in .npy; a pickle may name any function."""
    np.save(tmp_path / "old.npy", {"boundary": unit(1, 8)}, allow_pickle=True)
    with pytest.raises(InputError, match="StyleGAN1 boundary"):
        find(tmp_path / "old.npy")

    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "harm.pkl").write_bytes(pickle.dumps(Harm()))
    torch.save({"comp": Harm()}, tmp_path / "harm.pt")
    np.save(tmp_path / "harm.npy", Harm(), allow_pickle=True)
    for name in ("harm.pkl", "harm.pt", "harm.npy"):
        with pytest.raises(InputError, match=name):
            find(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_wrong_files_are_named(tmp_path):
    # What a zip archive names its members is read before its content.
    path = saved(tmp_path / "names.pt", unit(1, 8))
    content = path.read_bytes()
    at = content.rindex(b"names/")
    path.write_bytes(content[:at] + b"\xeb" * 5 + content[at + 5 :])
    with pytest.raises(InputError, match="names.pt"):
        find(path)
    with pytest.raises(InputError, match="nothing.pt: no such file, and no direction of that name"):
        find(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="a.pt: holds a dict of 'x'; expected one array"):
        find(saved(tmp_path / "a.pt", {"x": unit(1, 8)}))
    (tmp_path / "a.csv").write_text("1,2\n3\n")
    with pytest.raises(InputError, match="a.csv: entry 2 is"):
        find(tmp_path / "a.csv")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="b.json: not a readable list of channels"):
        find(tmp_path / "b.json")
    with pytest.raises(InputError, match="expected floats"):
        find(saved(tmp_path / "int.npy", np.ones((1, 8), int)))


def test_options_name_a_direction_and_its_strength():
    assert parse_direction("smile") == ("smile", None)
    assert parse_direction("a/age.pt:-3.5") == ("a/age.pt", -3.5)
    assert parse_direction("pca.pt#46:-20") == ("pca.pt#46", -20.0)
    assert parse_direction("channel:12,479") == ("channel:12,479", None)
    assert parse_direction("channel:12,479:7") == ("channel:12,479", 7.0)
    for text in ("", ":3", "a:nan", "a:inf"):
        with pytest.raises(InputError, match="--direction="):
            parse_direction(text)
