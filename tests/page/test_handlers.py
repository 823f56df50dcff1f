"""What the page's buttons do, without the page."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.editing import direction_files
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.page.handlers import KEPT_SECONDS, Handlers, in_words
from interestyle_jax.page.studio import Studio

SIZE, ROWS, W_DIM = 32, 8, 16


class ShortModel(ij.Model):
    """Two iterations compile sooner than five."""

    def invert(self, images, num_steps=2, **options):
        return super().invert(images, num_steps, **options)


@pytest.fixture(scope="module")
def studio(tiny_weights):
    model = ij.load(tiny_weights / "inverter")
    return Studio(ShortModel(model.variables, model.metadata, model.directory))


@pytest.fixture
def handlers(studio, tmp_path):
    return Handlers(studio, tmp_path)


@pytest.fixture
def upload(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "my face!.png")
    return str(tmp_path / "my face!.png")


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as image:
        return np.array(image)


def test_an_image_from_upload_to_files(studio, handlers, upload):
    state, shown, last = handlers.invert(upload)
    assert [label for _, label in shown] == ["image", "ŷ₁", "ŷ₂"]
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
    mixed, file = handlers.mix(state, upload, ["coarse"], 1)
    np.testing.assert_array_equal(pixels(file), pixels(last))
    current = studio.mix(state["current"], other["current"], bands=["coarse"], share=0.5)
    np.testing.assert_allclose(current[4:], state["current"][4:])
    half = (state["current"][:4] + other["current"][:4]) / 2
    np.testing.assert_allclose(current[:4], half, rtol=1e-5)

    latents, changed, image = handlers.download(mixed, high, 0, 0)
    assert [Path(f).name for f in (latents, changed, image)] == [
        "my_face__latents.npz",
        "my_face__edited.npz",
        "my_face_.png",
    ]
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
        lambda: handlers.mix(None, upload, ["coarse"], 1),
        lambda: handlers.download(None, 0, 0, 0),
    ):
        with pytest.raises(ij.InputError, match="nothing is inverted yet"):
            call()
    with pytest.raises(ij.InputError, match="no image: choose a file"):
        handlers.invert(None)
    state = {"name": "a", "w_plus": None, "current": None}
    with pytest.raises(ij.InputError, match="no other image"):
        handlers.mix(state, None, ["coarse"], 1)
    with pytest.raises(ij.InputError, match="choose one band"):
        handlers.mix(state, upload, [], 1)
    for strengths in [(0,), (0, 0, float("nan"))]:
        with pytest.raises(ij.InputError, match="strengths: expected 3 numbers"):
            handlers.edit(state, *strengths)
    with pytest.raises(ij.InputError, match="^passwd: is no upload"):
        handlers.invert("/etc/passwd")
    with pytest.raises(ij.InputError, match="^passwd: is no upload"):
        handlers.invert(str(tmp_path / ".." / ".." / ".." / ".." / "etc" / "passwd"))


def test_old_results_are_deleted(handlers, tmp_path):
    old, new = (tmp_path / f"results-{name}" for name in "ab")
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, os.stat(new).st_mtime - KEPT_SECONDS - 1))
    handlers._new_folder()
    assert not old.exists() and new.exists()


def test_only_bad_input_is_told_to_the_visitor():
    class Told(Exception):
        def __init__(self, text, print_exception):
            assert not print_exception
            super().__init__(text)

    def fail(error):
        raise error

    call = in_words(fail, Told)
    with pytest.raises(Told, match="a.png: is no upload"):
        call(ij.InputError("a.png: is no upload"))
    with pytest.raises(KeyError):
        call(KeyError("a"))


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
    with pytest.raises(ij.InputError, match="--direction: 17 given, expected at most 16"):
        Studio(model, files * 8 + files[:1])
    with pytest.raises(ValueError, match="no encoder"):
        Studio(ij.load(tiny_weights / "generator"))


def test_without_gradio_the_command_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["serve"]) == 2
    assert "pip install 'interestyle_jax[serve]'" in capsys.readouterr().err
