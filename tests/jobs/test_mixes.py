"""`interestyle mix`: rows of one image, the others of another."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image
from interestyle_jax.data.pixels import to_uint8
from interestyle_jax.errors import InputError
from interestyle_jax.jobs import mixes
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.mixes import mix_files, parse_styles

RANDOM = np.random.default_rng(0)
CONTENTS, STYLES = ("a", "b", "c"), ("x", "y")


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return str(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def model(weights):
    return ij.load(weights)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    """Two files of latents, each with two iterations of which the last one counts."""
    folder = tmp_path_factory.mktemp("latents")
    for file, names in (("contents", CONTENTS), ("styles", STYLES)):
        w_plus = RANDOM.normal(size=(len(names), 2, 8, 16)).astype(np.float32)
        np.savez(folder / f"{file}.npz", names=np.array(names), w_plus=w_plus)
    return folder


def last(path):
    file = LatentFile(path)
    return {name: file[name][-1] for name in file.names}


def test_rows_come_from_the_style(weights, model, latents, tmp_path):
    out = tmp_path / "out"
    argv = ["mix", f"--weights={weights}", f"--latents={latents / 'contents.npz'}"]
    argv += [f"--style-latents={latents / 'styles.npz'}", f"--out={out}", "--batch-size=2"]
    argv += ["--styles=middle", "--shares=0,0.5,1"]
    assert main(argv) == 0
    contents, styles = last(latents / "contents.npz"), last(latents / "styles.npz")
    mixed = LatentFile(out)
    assert mixed.shape == (3, 6, 8, 16)
    for name, content in contents.items():
        columns = [(style, share) for style in STYLES for share in (0, 0.5, 1)]
        for k, (style, share) in enumerate(columns):
            want = content.copy()
            want[4:8] = (1 - share) * content[4:8] + share * styles[style][4:8]
            np.testing.assert_allclose(mixed[name][k], want, atol=1e-6)
            drawn = to_uint8(np.asarray(model.synthesize(mixed[name][k][None]))[0]).astype(int)
            assert np.abs(read_image(out / f"{name}_{style}_{share:g}.png") - drawn).max() <= 1
        np.testing.assert_array_equal(
            read_image(out / f"{name}_x_0.png"), read_image(out / f"{name}_y_0.png")
        )
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["styles"]) == ("4-7", list(STYLES))
    # Above the contents the styles, on their left what they are without a style.
    height, width, _ = read_image(out / "sheet.png").shape
    assert 7 * 132 < width < 7 * 132 + 150 and 4 * 132 < height < 4 * 132 + 50
    before = (out / "sheet.png").read_bytes()
    for file in (out / "sheet.png", out / "b_y_1.png"):
        file.unlink()
    assert main(argv) == 0
    assert (out / "sheet.png").read_bytes() == before


def test_images_are_styles_of_each_other(weights, model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = RANDOM.integers(0, 256, (2, 32, 32, 3), np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    out = tmp_path / "out"
    mix_files(weights, out, styles="0-3", source=folder, num_iterations=1, batch_size=2)
    names = {f"{a}_{b}.png" for a in "ab" for b in "ab"} | {"sheet.png"}
    assert {path.name for path in out.glob("*.png")} == names
    w_plus = np.asarray(model.invert(pixels / np.float32(127.5) - 1, 1).w_plus[-1])
    mixed = LatentFile(out)["b"]
    np.testing.assert_allclose(mixed[1], w_plus[1], atol=1e-4)
    np.testing.assert_allclose(mixed[0][:4], w_plus[0][:4], atol=1e-4)
    np.testing.assert_allclose(mixed[0][4:], w_plus[1][4:], atol=1e-4)


def test_styles_are_bands_or_rows():
    assert parse_styles("fine", 18) == tuple(range(8, 18))
    assert parse_styles("coarse, fine", 10) == (0, 1, 2, 3, 8, 9)
    assert parse_styles("0,1,2", 10) == (0, 1, 2)
    for text, message in (
        ("10", "--styles: row 10, this generator has the rows 0 to 9"),
        ("0-", "--styles: '0-', expected rows such as 0-3,6 or coarse, middle, fine"),
        ("thin", "'thin', expected some of coarse, middle, fine"),
        ("", "--styles: ''"),
    ):
        with pytest.raises(InputError, match=message):
            parse_styles(text, 10)


def test_wrong_command_lines_are_refused(weights, latents, tmp_path, capfd, monkeypatch):
    out = tmp_path / "out"
    contents = f"--latents={latents / 'contents.npz'}"
    styles = f"--style-latents={latents / 'styles.npz'}"
    np.savez(
        tmp_path / "same.npz", names=np.array(["a", "a_x"]), w_plus=np.ones((2, 1, 8, 16), "f")
    )
    np.savez(tmp_path / "two.npz", names=np.array(["x_x", "x"]), w_plus=np.ones((2, 1, 8, 16), "f"))
    monkeypatch.setattr(mixes, "MOST_STYLES", 2)
    for argv, message in [
        ([styles], "--input, --latents: expected one of them"),
        ([contents, styles, f"--style-input={latents}"], "--style-input, --style-latents"),
        ([contents, styles, "--shares=2"], "--shares: 2.0, expected 0 to 1"),
        ([contents, styles, "--shares=1,1"], "--shares: 1, 1, expected different ones"),
        ([contents], "styles: 3 of them, expected at most 2"),
        ([contents, styles, "--steps=2"], "--align, --steps: go with images"),
        ([contents, styles, "--landmarks=litert"], "need --align"),
        ([f"--latents={tmp_path / 'same.npz'}", f"--style-latents={tmp_path / 'two.npz'}"],
         "the result a_x_x.png of a_x is also that of a"),
    ]:  # fmt: skip
        argv = ["mix", f"--weights={weights}", f"--out={out}", "--styles=coarse", *argv]
        assert main(argv) == 2
        err = capfd.readouterr().err
        assert message in err and err.count("\n") == 1, (argv, err)
    assert not Path(out).exists()
