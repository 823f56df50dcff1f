"""`interestyle align` and `interestyle invert --align` as a user types them."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image, save_image
from interestyle_jax.interest.providers import make_provider
from interestyle_jax.jobs import aligned_faces, alignments
from interestyle_jax.photos.ffhq_alignment import align
from interestyle_jax.photos.landmarks import find_face, make_landmarker
from interestyle_jax.photos.paste_back import paste_back


@pytest.fixture(scope="module")
def portraits(shared_dir, tmp_path_factory):
    """A folder with three portraits of 400 pixels in different modes, and an image without one."""
    folder = tmp_path_factory.mktemp("portraits")
    for name, mode in [("female_02", "RGB"), ("male_01", "L"), ("male_13", "RGBA")]:
        image = Image.open(shared_dir / "portraits" / f"{name}.jpg").resize((400, 400))
        image.convert(mode).save(folder / f"{name}.png")
    save_image(folder / "beach.png", np.full((60, 80, 3), 200, np.uint8))
    return folder


@pytest.fixture
def fails(capfd, tmp_path):
    """Runs a command line that must fail with status 2 and leave no output folder."""

    def run(*argv):
        assert main([str(a) for a in argv]) == 2
        lines = capfd.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("interestyle: error: ")]
        assert len(errors) == 1 and lines[-1] == errors[0]
        assert not (tmp_path / "out").exists()
        return errors[0]

    return run


def test_align_writes_faces_quads_and_a_sheet(portraits, tmp_path, capfd):
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    argv = ["align", "--input", str(portraits), "--out", str(out), "--size=128", "--workers=2"]
    assert main(argv) == 0
    printed = capfd.readouterr()
    assert "aligned 3 images" in printed.out and "skipped 1" in printed.out
    reason = f"{portraits / 'beach.png'}: no face found in 80 x 60 pixels"
    assert f"interestyle: skipped: {reason}" in printed.err
    names = ["female_02", "male_01", "male_13"]
    own = {"alignment.json", "overlays", "progress.jsonl", "mine"}
    assert {p.name for p in out.iterdir()} == {f"{name}.png" for name in names} | own

    report = json.loads((out / "alignment.json").read_text())
    assert report["status"] == "done" and report["size"] == 128
    assert report["landmarks"] == "litert" and report["command"][1] == "align"
    assert report["skipped"] == {str(portraits / "beach.png"): reason}
    assert list(report["images"]) == names
    landmarker = make_landmarker("litert")
    for name, entry in report["images"].items():
        photo = read_image(entry["source"])
        assert entry["source_size"] == [400, 400] and entry["num_faces"] == 1
        assert entry["score"] > 0.9
        face, _ = find_face(photo, landmarker, name=name)
        aligned, quad = align(photo, face.points, size=128)
        np.testing.assert_allclose(entry["quad"], quad, atol=0.01)
        np.testing.assert_allclose(entry["points"], face.points, atol=0.01)
        np.testing.assert_array_equal(read_image(out / f"{name}.png"), aligned)

    sheet = read_image(out / "overlays" / "sheet_000.png")
    red = (np.abs(sheet.astype(int) - alignments.QUAD_COLOUR).max(-1) < 8).sum()
    assert red > 3 * 4 * 50


def test_align_takes_one_file_and_tells_of_several_faces(portraits, tmp_path, capfd):
    small = Image.open(portraits / "male_01.png").convert("RGB").resize((300, 300))
    both = np.full((400, 700, 3), 128, np.uint8)
    both[:, :400], both[50:350, 400:] = read_image(portraits / "female_02.png"), small
    save_image(tmp_path / "two.png", both)
    argv = ["align", "--input", str(tmp_path / "two.png"), "--out", str(tmp_path / "out")]
    assert main([*argv, "--size=64"]) == 0
    assert "two.png: 2 faces, took the largest" in capfd.readouterr().err
    entry = json.loads((tmp_path / "out" / "alignment.json").read_text())["images"]["two"]
    assert entry["num_faces"] == 2 and np.mean(entry["points"], axis=0)[0] < 400


def test_more_than_half_without_a_face_is_an_error(portraits, tmp_path, fails, capfd):
    folder = tmp_path / "mixed"
    folder.mkdir()
    argv = ["align", "--input", folder, "--out", tmp_path / "out", "--size=64"]
    grey = np.full((60, 80, 3), 200, np.uint8)
    save_image(folder / "a.png", grey)
    assert "a.png: no face found in 80 x 60 pixels" in fails(*argv)
    (folder / "b.png").write_bytes(b"no image")
    save_image(folder / "c.png", read_image(portraits / "female_02.png"))
    assert main([str(a) for a in argv]) == 2
    assert "2 of 3 images cannot be used" in capfd.readouterr().err
    assert not (tmp_path / "out" / "alignment.json").exists()
    save_image(folder / "d.png", read_image(portraits / "male_13.png"))
    assert main([str(a) for a in argv]) == 0
    report = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert sorted(report["images"]) == ["c", "d"]
    assert any("is not an image" in reason for reason in report["skipped"].values())


def test_a_stopped_alignment_goes_on(portraits, tmp_path, monkeypatch, capfd):
    calls = []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return align(*args, **options)

    argv = ["align", "--input", str(portraits), "--size=64", "--workers=1"]
    with monkeypatch.context() as patch:
        patch.setattr(aligned_faces, "align", stop)
        assert main([*argv, "--out", str(tmp_path / "out")]) == 130
    assert not (tmp_path / "out" / "alignment.json").exists()
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    for path in (tmp_path / "whole").rglob("*.png"):
        again = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size=8"], "size: 8, expected 16 to 2048"),
        (["--input=nowhere"], "nowhere: no such file or directory"),
        (["--landmarks=dlib", "--dlib-file=nowhere"], "dlib"),
    ],
)
def test_align_rejects(portraits, tmp_path, fails, options, message):
    assert message in fails("align", "--input", portraits, "--out", tmp_path / "out", *options)


def test_results_may_not_overwrite_the_input(portraits, fails):
    message = fails("align", "--input", portraits, "--out", portraits)
    assert "would overwrite its own input" in message


@pytest.fixture
def invert(tiny_weights, portraits, tmp_path):
    """The command line of `invert` with options."""

    def argv(*options):
        paths = ["--input", str(portraits), "--out", str(tmp_path / "out")]
        weights = str(tiny_weights / "inverter")
        return ["invert", "--weights", weights, *paths, "--steps=1", "--batch-size=2", *options]

    return argv


def test_invert_align_inverts_the_aligned_face_and_pastes_it_back(
    invert, portraits, tiny_weights, tmp_path, capfd
):
    assert main(invert("--align", "--paste-back", "--feather=0.2", "--paste-shape=ellipse")) == 0
    assert "beach.png: no face found" in capfd.readouterr().err
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["num_images"] == 3
    alignment = report["alignment"]
    assert alignment["size"] == 256 and alignment["paste_back"]
    assert list(alignment["skipped"]) == [str(portraits / "beach.png")]
    with np.load(out / "latents.npz") as latents:
        names = latents["names"].tolist()
        latents = latents["w_plus"]
    assert names == ["female_02", "male_01", "male_13"] == list(alignment["quads"])

    landmarker = make_landmarker("litert")
    (tmp_path / "aligned").mkdir()
    for name in names:
        photo = read_image(portraits / f"{name}.png")
        face, _ = find_face(photo, landmarker, name=name)
        aligned, quad = align(photo, face.points, size=256)
        save_image(tmp_path / "aligned" / f"{name}.png", aligned)
        np.testing.assert_allclose(alignment["quads"][name], quad, atol=0.01)
        inversion, pasted = (read_image(out / f"{name}{end}.png") for end in ("", "_pasted"))
        assert pasted.shape == photo.shape
        expected = paste_back(photo, inversion, quad, feather=0.2, shape="ellipse")
        np.testing.assert_array_equal(pasted, expected)
        assert 0.05 < (pasted != photo).any(-1).mean() < 0.9

    weights = ["--weights", str(tiny_weights / "inverter")]
    again = ["--input", str(tmp_path / "aligned"), "--out", str(tmp_path / "again")]
    assert main(["invert", *weights, *again, "--steps=1", "--batch-size=2"]) == 0
    with np.load(tmp_path / "again" / "latents.npz") as same:
        np.testing.assert_allclose(same["w_plus"], latents, atol=1e-5)


def test_only_the_interest_region_is_pasted(invert, portraits, tmp_path):
    one = str(portraits / "female_02.png")
    argv = invert("--align", "--paste-back", "--paste-mask=selfie", "--feather=0.05")
    assert main([*argv, "--input", one]) == 0
    out, photo = tmp_path / "out", read_image(one)
    report = json.loads((out / "report.json").read_text())["alignment"]
    assert report["mask"] == "selfie"
    face, _ = find_face(photo, make_landmarker("litert"), name=one)
    aligned, quad = align(photo, face.points, size=256)
    interest = make_provider("selfie")(aligned).interest
    assert 0.2 < (interest > 0).mean() < 0.9
    pasted, inversion = (read_image(out / f"female_02{end}.png") for end in ("_pasted", ""))
    shrunk = np.asarray(
        Image.fromarray(interest[..., 0]).resize((32, 32), Image.Resampling.BILINEAR)
    )
    expected = paste_back(photo, inversion, quad, mask=shrunk, feather=0.05)
    np.testing.assert_array_equal(pasted, expected)
    whole = paste_back(photo, inversion, quad, feather=0.05)
    assert 0 < (pasted != photo).any(-1).mean() < 0.9 * (whole != photo).any(-1).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paste-back"], "need --align"),
        (["--landmarks=litert"], "need --align"),
        (["--align", "--feather=0.1"], "need --paste-back"),
        (["--align", "--paste-back", "--feather=0.7"], "feather: 0.7, expected a share"),
        (["--align", "--paste-back", "--paste-mask=folder"], "mask: 'folder', expected one of"),
        (["--align", "--paste-back", "--paste-mask-weights=x"], "needs --paste-mask"),
    ],
)
def test_invert_rejects(invert, fails, options, message):
    assert message in fails(*invert(*options))


def test_pasted_names_may_not_meet_an_inversion(invert, portraits, tmp_path, fails):
    folder = tmp_path / "twins"
    folder.mkdir()
    for name in ("a", "a_pasted"):
        save_image(folder / f"{name}.png", np.zeros((9, 9, 3), np.uint8))
    argv = invert("--align", "--paste-back", "--input", str(folder))
    assert "its result a_pasted.png is also that of" in fails(*argv)


@pytest.mark.parametrize("command", ["align", "invert"])
def test_a_missing_litert_is_told_with_its_extra(command, invert, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    argv = invert("--align")
    argv = argv if command == "invert" else ["align", *argv[3:7]]
    assert "pip install 'interestyle_jax[photos]'" in fails(*argv)


def test_long_lists_are_cut_on_stderr(capfd):
    aligned_faces.tell_of_several({f"{i}.png": 1 + (i > 0) for i in range(13)})
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "interestyle: notice: 1.png: 2 faces, took the largest"
    assert lines[10:] == ["interestyle: ... and 2 more, as the report says"]
