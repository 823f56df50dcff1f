"""What the page's buttons do, without the page."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.data.avatars.world import sample
from interestyle_jax.editing import direction_files
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.editing.style_space import counted_layers
from interestyle_jax.errors import MachineError
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.page import regions as regions_module
from interestyle_jax.page.handlers import KEPT_SECONDS, Handlers, in_words
from interestyle_jax.page.regions import Regions, pasted
from interestyle_jax.page.studio import Studio
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.quads import square_quad
from interestyle_jax.weights import save_weights

SIZE, ROWS, W_DIM = 32, 8, 16


class ShortModel(ij.Model):
    """Two iterations compile sooner than five."""

    def invert(self, images, num_steps=2, **options):
        return super().invert(images, num_steps, **options)


@pytest.fixture(scope="module")
def studio(tiny_weights):
    model = ij.load(tiny_weights / "inverter")
    return Studio(ShortModel(model.variables, model.metadata, model.directory))


@pytest.fixture(scope="module")
def regions():
    return Regions("avatars", avatars=True, resolution=SIZE)


@pytest.fixture
def handlers(studio, regions, tmp_path):
    return Handlers(studio, regions, tmp_path)


@pytest.fixture
def upload(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "my face!.png")
    return str(tmp_path / "my face!.png")


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as image:
        return np.array(image)


def test_an_image_from_upload_to_files(studio, handlers, upload):
    state, shown, last = handlers.invert(upload, False)
    assert [label for _, label in shown] == ["image", "interest mask", "ŷ₁", "ŷ₂"]
    assert shown[-1][0] == last
    # Small images are shown enlarged.
    assert pixels(last).shape == (8 * SIZE, 8 * SIZE, 3)
    assert [slider.name for slider in studio.sliders] == ["SeFa 1", "SeFa 2", "SeFa 3"]
    np.testing.assert_array_equal(pixels(handlers.edit(state, 0, 0, 0)), pixels(last))
    high = studio.sliders[0].high
    edited = pixels(handlers.edit(state, high, 0, 0))
    assert (edited != pixels(last)).any()
    # A request may hold any number.
    np.testing.assert_array_equal(pixels(handlers.edit(state, 100 * high, 0, 0)), edited)

    other, _, style = handlers.example(3)
    mixed, file = handlers.mix(state, upload, ["coarse"], 1, False)
    np.testing.assert_array_equal(pixels(file), pixels(last))
    current = studio.mix(state["current"], other["current"], bands=["coarse"], share=0.5)
    np.testing.assert_allclose(current[4:], state["current"][4:])
    half = (state["current"][:4] + other["current"][:4]) / 2
    np.testing.assert_allclose(current[:4], half, rtol=1e-5)

    latents, changed, image, back = handlers.download(
        {**mixed, "mask": np.full((20, 25, 1), 255, np.uint8)}, high, 0, 0
    )
    assert [Path(f).name for f in (latents, changed, image, back)] == [
        "my_face__latents.npz",
        "my_face__edited.npz",
        "my_face_.png",
        "my_face__pasted.png",
    ]
    assert pixels(back).shape == (40, 50, 3)
    saved = LatentFile(latents)
    assert saved.names == ["my_face_"] and saved.shape == (1, 2, ROWS, W_DIM)
    assert saved.generator is not None
    np.testing.assert_array_equal(saved["my_face_"], state["w_plus"])
    moved = LatentFile(changed)["my_face_"][0] - state["current"]
    assert np.abs(moved[:4]).max() > 0 and not moved[4:].any()
    assert pixels(image).shape == (SIZE, SIZE, 3)


def test_what_cannot_be_done_is_said(handlers, upload, tmp_path):
    for call in (
        lambda: handlers.edit(None, 0, 0, 0),
        lambda: handlers.mix(None, upload, ["coarse"], 1, False),
        lambda: handlers.download(None, 0, 0, 0),
    ):
        with pytest.raises(ij.InputError, match="nothing is inverted yet"):
            call()
    with pytest.raises(ij.InputError, match="no image: choose a file"):
        handlers.invert(None, False)
    state = {"name": "a", "w_plus": None, "current": None, "text": None, "mask": None}
    with pytest.raises(ij.InputError, match="no interest mask here"):
        handlers.paste(state, 0, 0, 0)
    gone = {**state, "mask": np.ones((2, 2, 1), np.uint8), "source": f"{tmp_path}/gone.png"}
    with pytest.raises(ij.InputError, match=r"^gone\.png: was deleted after ten minutes"):
        handlers.paste(gone, 0, 0, 0)
    with pytest.raises(ij.InputError, match="no edits by text: .*avatar_texts: measured with a w"):
        handlers.text(state, "a face with a beard", 0, 0, 0)
    with pytest.raises(ij.InputError, match="faces are not aligned here"):
        handlers.invert(upload, True)
    with pytest.raises(ij.InputError, match="no other image"):
        handlers.mix(state, None, ["coarse"], 1, False)
    with pytest.raises(ij.InputError, match="choose one band"):
        handlers.mix(state, upload, [], 1, False)
    for strengths in [(0,), (0, 0, float("nan"))]:
        with pytest.raises(ij.InputError, match="strengths: expected 3 numbers"):
            handlers.edit(state, *strengths)
    with pytest.raises(ij.InputError, match="^passwd: is no upload"):
        handlers.invert("/etc/passwd", False)
    with pytest.raises(ij.InputError, match="^passwd: is no upload"):
        handlers.invert(str(tmp_path / ".." / ".." / ".." / ".." / "etc" / "passwd"), False)


def test_old_results_are_deleted(handlers, tmp_path):
    old, new = (tmp_path / f"results-{name}" for name in "ab")
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, os.stat(new).st_mtime - KEPT_SECONDS - 1))
    handlers._new_folder()
    assert not old.exists() and new.exists()


def test_errors_and_progress_are_told_in_words():
    class Told(Exception):
        def __init__(self, text, print_exception):
            assert not print_exception
            super().__init__(text)

    class Gradio:
        Error = Told
        Progress = list

    def fail(error):
        raise error

    call = in_words(fail, Gradio)
    with pytest.raises(Told, match="a.png: is no upload"):
        call(None, ij.InputError("a.png: is no upload"))
    with pytest.raises(Told, match="no space"):
        call(None, MachineError("a.png: no space"))
    with pytest.raises(KeyError):
        call(None, KeyError("a"))

    said = []
    call = in_words(lambda name, *, tell: tell(0.5, f"reading {name}"), Gradio)
    call(lambda share, desc: said.append((share, desc)), "a.png")
    assert said == [(0.5, "reading a.png")]


def test_mask_of_an_avatar_is_its_drawing_or_read(handlers, regions):
    told = []
    state, shown, _ = handlers.example(3, tell=lambda *words: told.append(words))
    drawn = sample(3, size=256, split="test")
    np.testing.assert_array_equal(state["mask"], drawn["interest_mask"])
    # As the page's: of the upload, and of an inversion that sees the avatar without its obstacle.
    read = regions.mask(drawn["image"], drawn["clean"])
    both = [(mask > 0).squeeze() for mask in (read, drawn["interest_mask_full"])]
    assert (both[0] & both[1]).sum() / (both[0] | both[1]).sum() > 0.8
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and [words for _, words in told][-2:] == [
        "inverting",
        "finding the interest region",
    ]
    back, original = pixels(handlers.paste(state, 0, 0, 0)), drawn["image"]
    changed = (back != original).any(-1)
    assert changed.any() and not changed[state["mask"][..., 0] == 0].any()


def test_pasting_back_stays_inside_the_face_and_its_mask():
    upload = np.zeros((60, 80, 3), np.uint8)
    edited = np.full((SIZE, SIZE, 3), 200, np.uint8)
    mask = np.zeros((16, 16, 1), np.uint8)
    mask[4:12, 4:12] = 255
    quad = square_quad(np.array([50.0, 30]), np.array([16.0, 0]))
    back = pasted(upload, edited, mask, quad)
    rows, columns = np.nonzero(back.any(-1))
    assert 34 < columns.min() and columns.max() < 66 and 14 < rows.min() and rows.max() < 46
    assert back[30, 50].min() == 200
    whole = pasted(upload, edited, mask, None)
    assert whole[30, 40].min() == 200 and not whole[:10].any() and not whole[:, :15].any()
    # A soft edge.
    assert len(np.unique(whole)) > 4
    with pytest.raises(ij.InputError, match="mask is empty"):
        pasted(upload, edited, 0 * mask, None)


def test_photographs_are_aligned(studio, upload, tmp_path, monkeypatch):
    points = np.array([[20.0, 15], [30, 15], [21, 25], [29, 25]])
    found = [Face(np.array([10.0, 5, 40, 35]), 1.0, points)]
    monkeypatch.setattr(regions_module, "make_landmarker", lambda name: lambda image: found)
    monkeypatch.setattr(regions_module.importlib.util, "find_spec", lambda name: name)
    photographs = Handlers(studio, Regions("none", avatars=False, resolution=SIZE), tmp_path)
    state, shown, _ = photographs.invert(upload, True)
    assert [label for _, label in shown] == ["image", "aligned face", "ŷ₁", "ŷ₂"]
    assert state["quad"].shape == (4, 2) and state["mask"] is None
    found.clear()
    with pytest.raises(ij.InputError, match=r"no face found .* without alignment the whole"):
        photographs.invert(upload, True)
    with pytest.raises(ij.InputError, match="--masks: 'faces', expected one of avatars, selfie"):
        Regions("faces", avatars=False, resolution=SIZE)


def test_edits_by_text(tiny_weights, upload, tmp_path):
    model = ij.load(tiny_weights / "inverter")
    layers = model.style_layers
    count = sum(layers[i].channels for i in counted_layers(layers, with_rgb=False))
    fs3 = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    variables = {
        "fs3": fs3 / np.linalg.norm(fs3, axis=1, keepdims=True),
        "s_std": {f"layer_{i}": np.ones(x.channels, np.float32) for i, x in enumerate(layers)},
    }
    folder = tmp_path / "channels"
    save_weights(folder, variables, family="a", architectures={}, licence="none: random numbers")
    studio = Studio(ShortModel(model.variables, model.metadata, model.directory), channels=folder)
    assert studio.text_slider == ("Strength", -5, 5)
    handlers = Handlers(studio, Regions("none", avatars=True, resolution=SIZE), tmp_path)
    state, _, last = handlers.invert(upload, False)
    plain = pixels(handlers.edit(state, 0, 0, 0, 2))
    np.testing.assert_array_equal(plain, pixels(last))
    state, file = handlers.text(state, "a face with a beard", 0, 0, 0, 2)
    assert (pixels(file) != plain).any()
    np.testing.assert_array_equal(pixels(handlers.edit(state, 0, 0, 0, 2)), pixels(file))
    np.testing.assert_array_equal(pixels(handlers.edit(state, 0, 0, 0, 0)), plain)
    with pytest.raises(ij.InputError, match="text: 0 letters, expected 1 to 200"):
        handlers.text(state, " ", 0, 0, 0, 2)
    with pytest.raises(ij.InputError, match="strengths: expected 4 numbers"):
        handlers.edit(state, 0, 0, 0)
    # Those of another generator.
    with pytest.raises(ij.InputError, match="channels: .*statistics of S for layers"):
        Studio(ij.load("avatar_interestyle"), channels=folder)


def test_directions_and_their_ranges(tiny_weights, tmp_path, monkeypatch):
    model = ij.load(tiny_weights / "inverter")
    array = np.eye(W_DIM, dtype=np.float32)[0]
    files = [tmp_path / f"{name}.npz" for name in ("free", "known")]
    save_direction(files[0], Direction("free", "w", array))
    save_direction(files[1], Direction("known", "w", array, default_range=(-1.0, 2.0)))
    free, known = Studio(model, files).sliders
    # What ships is taken where it fits: "free" is of any generator.
    monkeypatch.setattr(direction_files, "SHIPPED", tmp_path)
    save_direction(tmp_path / "other.npz", Direction("other", "w", array, generator="0" * 16))
    assert Studio(model).sliders == [free, known]
    assert known == ("known", -1.0, 2.0)
    assert free.name == "free" and free.low == -free.high < 0
    # Half as far for a direction of twice the length, also where its rows cancel out.
    rows = np.zeros((model.latents_shape[0], W_DIM), np.float32)
    rows[:2] = 2 * array, -2 * array
    save_direction(tmp_path / "rows.npz", Direction("rows", "w_plus", rows))
    (by_rows,) = Studio(model, [tmp_path / "rows.npz"]).sliders
    assert by_rows.high == pytest.approx(free.high / 2, rel=0.1)
    with pytest.raises(ij.InputError, match="--direction: 17 given, expected at most 16"):
        Studio(model, files * 8 + files[:1])
    with pytest.raises(ValueError, match="no encoder"):
        Studio(ij.load(tiny_weights / "generator"))


def test_without_gradio_the_command_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["serve"]) == 2
    assert "pip install 'interestyle_jax[serve]'" in capsys.readouterr().err
