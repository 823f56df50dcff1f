"""`interestyle invert` and `edit` on films: faces followed, cuts, stops, what stays, bad input."""

import functools
import json
import sys

import jax
import numpy as np
import pytest

from interestyle_jax.cli import main
from interestyle_jax.data.images import save_image
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.identity import Identity
from interestyle_jax.inversion.inverter import load
from interestyle_jax.inversion.optimisation.recipes import Terms
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.film_smoothing import Smoothing
from interestyle_jax.jobs.film_tuning import Tuning
from interestyle_jax.jobs.films import edit_film, invert_film
from interestyle_jax.jobs.kept_region import Keep
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.shard import Shard
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.ffhq_alignment import quad_points
from interestyle_jax.photos.quads import square_quad
from interestyle_jax.video.films import read_frames, scan_film
from interestyle_jax.video.smoothing import smoothing_weights
from tests.film_files import moving_frames, sound_packets, write_film

CUT, COUNT, BATCH = 8, 16, 8
# Of frames 4 and 5 the face is followed; the last ones stay.
MISSED, ENDS = (4, 5), (14, 15)
SMOOTHING = Smoothing(latents=1.5, shared_rows=(6, 7))


class Squares:
    """Finds the bright square of `moving_frames`, a little beside where it is."""

    name = "squares"

    def __call__(self, image):
        found = np.argwhere(image[..., 2] > 170)
        if not len(found):
            return []
        noise = np.random.default_rng(int(image.sum())).normal(0, 0.5, 2)
        quad = square_quad(found.mean(0)[::-1] + noise, np.array([8.0, 0.0]))
        return [Face(np.zeros(4), 1.0, quad_points(quad))]


@pytest.fixture(scope="module", autouse=True)
def small():
    """One device, faces aligned to 32 pixels, and weights that are read once."""
    once = functools.cache(load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interestyle_jax.jobs.film_stages.load", once)
        patch.setattr("interestyle_jax.jobs.edits.load", once)
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        patch.setattr("interestyle_jax.jobs.film_frames.SMALLEST_ALIGNED", 32)
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    frames = moving_frames(COUNT)
    frames[CUT:] = moving_frames(COUNT - CUT, red=150)[:, ::-1]
    for i in (*MISSED, *ENDS):
        frames[i][frames[i][..., 2] > 170] = 150
    return scan_film(write_film(tmp_path_factory.mktemp("film") / "a.mp4", frames))


@pytest.fixture(scope="module")
def invert(tiny_weights, film):
    def run(out, **options):
        options = {"num_iterations": 1, "batch_size": BATCH, "landmarker": Squares()} | options
        options = {"alignment": Alignment()} | options
        return invert_film(str(tiny_weights / "inverter"), film.path, out, **options)

    return run


@pytest.fixture(scope="module")
def inverted(invert, tmp_path_factory):
    """A folder, and its report."""
    out = tmp_path_factory.mktemp("inverted")
    return out, invert(out, smoothing=SMOOTHING)


def difference(frames, others, where=np.s_[:]):
    pairs = zip(frames, others, strict=True)
    return [float(np.abs(a[where].astype(int) - b[where]).mean()) for a, b in pairs]


def test_faces_are_followed_and_the_rest_of_the_film_stays(inverted, film):
    out, report = inverted
    assert report["films"] == ["film.mp4"] and report["cuts"] == [CUT]
    assert report["as_they_were"] == [f"{i:06d}" for i in ENDS]
    assert report["interpolated"] == [f"{i:06d}" for i in MISSED]
    jitter = report["jitter"]
    assert jitter["quads"]["smoothed"] < 0.6 * jitter["quads"]["found"]
    assert jitter["latents"]["smoothed"] < 0.6 * jitter["latents"]["found"]
    assert json.loads((out / "report.json").read_text()) == report
    written = scan_film(out / "film.mp4")
    np.testing.assert_allclose(written.seconds, film.seconds)
    assert sound_packets(written.path) == sound_packets(film.path) != []
    before, after = list(read_frames(film)), list(read_frames(written))
    changes = difference(before, after)
    assert max(changes[i] for i in ENDS) < 2.5 < 4 < min(changes[: ENDS[0]])
    # Beside all faces.
    assert max(difference(before, after, np.s_[26:, :])) < 4


def test_latents_are_smoothed_within_their_scene(inverted, film):
    out, _ = inverted
    raw, smoothed = LatentFile(out / "inversions"), LatentFile(out)
    assert smoothed.names == raw.names and smoothed.generator == raw.generator
    values = np.stack([raw[name][-1] for name in raw.names])
    for run in (range(0, CUT), range(CUT, ENDS[0])):
        for i in run:
            window, weights = smoothing_weights(film.seconds, run, i, 1.5 / 25)
            assert set(window) <= set(run)
            expected = np.tensordot(weights, values[window.start : window.stop], 1)
            found = smoothed[f"{i:06d}"][-1]
            np.testing.assert_allclose(found[:6], expected[:6], atol=1e-5)
            shared = values[run.start : run.stop, 6:].mean(0)
            np.testing.assert_allclose(found[6:], shared, atol=1e-5)


def test_frame_by_frame_nothing_is_smoothed(invert, tmp_path):
    report = invert(tmp_path, smoothing=Smoothing(0, 0, (), 0))
    raw, smoothed = LatentFile(tmp_path / "inversions"), LatentFile(tmp_path)
    for name in raw.names:
        np.testing.assert_array_equal(smoothed[name][-1], raw[name][-1])
    assert report["as_they_were"] == [f"{i:06d}" for i in (*MISSED, *ENDS)]
    assert report["interpolated"] == [] and report["smoothing"]["shared_rows"] == []
    quads = report["jitter"]["quads"]
    assert quads["found"] == pytest.approx(quads["smoothed"])


def test_a_stopped_film_is_resumed_and_only_what_changed_is_done_again(
    invert, inverted, monkeypatch
):
    out, first = inverted
    film, latents = ((out / name).read_bytes() for name in ("film.mp4", "latents.npz"))
    for name in ("inversions/000003.png", "frames/000009_inversion.png", "film.mp4"):
        (out / name).unlink()
    times = {p: p.stat().st_mtime_ns for p in out.rglob("0*.png")}
    # Of a process that was killed while it wrote the film.
    (out / ".film.mp4.1").write_bytes(b"half")

    def again():
        report = invert(out, smoothing=SMOOTHING)
        assert (out / "film.mp4").read_bytes() == film
        assert (out / "latents.npz").read_bytes() == latents
        assert report["jitter"] == first["jitter"]

    again()
    assert not (out / ".film.mp4.1").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    # Other latents are drawn anew, from the same inversions.
    monkeypatch.setattr("interestyle_jax.jobs.film_stages.FrameInversionJob.compute", None)
    other = invert(out, smoothing=Smoothing(latents=4))
    assert other["jitter"]["latents"]["smoothed"] < first["jitter"]["latents"]["smoothed"]
    assert (out / "film.mp4").read_bytes() != film
    again()


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A film of aligned images, as they are."""
    frames = moving_frames(9, width=32, height=32)
    return scan_film(write_film(tmp_path_factory.mktemp("squares") / "s.mkv", frames, sound=False))


@pytest.fixture(scope="module")
def direction(tmp_path_factory, tiny_weights):
    shape = load(tiny_weights / "inverter").latents_shape
    path = tmp_path_factory.mktemp("direction") / "smile.npy"
    np.save(path, 3 * np.random.default_rng(0).normal(size=shape).astype(np.float32))
    return path


def test_aligned_squares_by_the_command_line(tiny_weights, squares, direction, tmp_path, capsys):
    shared = ["--weights", str(tiny_weights / "inverter"), "--input", str(squares.path)]
    shared += ["--steps=1", f"--batch-size={BATCH}"]
    assert main(["invert", *shared, f"--out={tmp_path / 'i'}", "--smooth-latents=2"]) == 0
    assert "film.mkv: 9 frames, 0 of them as they were" in capsys.readouterr().out
    inverted = scan_film(tmp_path / "i/film.mkv")
    assert (inverted.width, inverted.height, inverted.num_sounds) == (32, 32, 0)
    np.testing.assert_allclose(inverted.seconds, squares.seconds)
    edit = ["edit", *shared, f"--out={tmp_path / 'e'}", f"--direction={direction}"]
    assert main([*edit, "--strength=0,2", "--share-rows=none", "--smooth-latents=2"]) == 0
    report = json.loads((tmp_path / "e/report.json").read_text())
    assert report["films"] == ["film_0.mkv", "film_+2.mkv"]
    still, moved = (list(read_frames(scan_film(tmp_path / "e" / n))) for n in report["films"])
    plain = list(read_frames(inverted))
    assert max(difference(plain, still)) < 4 < min(difference(plain, moved))


@pytest.mark.slow
def test_outside_of_the_interest_region_frames_stay(
    tiny_weights, squares, direction, film, tmp_path
):
    def left(image, name):
        mask = np.zeros((*image.shape[:2], 1), np.uint8)
        mask[:, : image.shape[1] // 2] = 255
        return mask

    options = {"num_iterations": 1, "batch_size": BATCH, "edits": [str(direction)]}
    options |= {"strengths": [2.0]}
    weights = str(tiny_weights / "inverter")
    edit_film(
        weights,
        film.path,
        tmp_path / "pasted",
        alignment=Alignment(feather=0.05),
        landmarker=Squares(),
        paste_mask=left,
        **options,
    )
    before = list(read_frames(film))
    after = list(read_frames(scan_film(tmp_path / "pasted/film_+2.mp4")))
    middle = square_quad(np.argwhere(before[0][..., 2] > 170).mean(0)[::-1], np.array([8.0, 0]))
    x = int(middle[:, 0].mean())
    one = np.s_[8:20, x - 6 : x - 2], np.s_[8:20, x + 2 : x + 6]
    inside, outside = (difference(before[:1], after[:1], where)[0] for where in one)
    assert outside < 4 < 2 * outside < inside
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(len(squares)):
        # The third frame has no region.
        mask = left(np.zeros((32, 32, 3), np.uint8), "") * (i != 2)
        save_image(masks / f"{i:06d}.png", mask)
    keep = Keep("interest", masks=str(masks), feather=0.1)
    report = edit_film(weights, squares.path, tmp_path / "kept", keep=keep, **options)
    assert report["as_they_were"] == ["000002"] and len(report["inversions"]["skipped"]) == 1
    before = list(read_frames(squares))
    after = list(read_frames(scan_film(tmp_path / "kept/film_+2.mkv")))
    changes = difference(before, after, np.s_[:, :10])
    outside = max([*difference(before, after, np.s_[:, 18:]), changes.pop(2)])
    assert outside < 4 < 2 * outside < min(changes)


@pytest.mark.slow
def test_identity_from_frame_to_frame(tiny_weights, squares, direction, tmp_path, monkeypatch):
    def embed(images):
        small = np.asarray(images, np.float32)[:, ::8, ::8].reshape(len(images), -1)
        lengths = np.linalg.norm(small, axis=1, keepdims=True)
        return jax.numpy.asarray(small / np.maximum(lengths, 1e-9))

    def given(identity, face_detector, *, mesh=None):
        return Identity(None, embed)

    monkeypatch.setattr("interestyle_jax.jobs.film_stages.load_identity", given)
    report = edit_film(
        str(tiny_weights / "inverter"),
        squares.path,
        tmp_path,
        edits=[str(direction)],
        strengths=[0.0],
        num_iterations=1,
        batch_size=BATCH,
    )
    found = report["temporal_identity"]["0"]
    assert 0.5 < found["local"] < 1.5 and found["global"] < 3


@pytest.mark.slow
def test_one_generator_is_tuned_on_all_frames(
    tiny_weights, squares, direction, tmp_path, monkeypatch
):
    # LPIPS takes a minute to compile.
    terms = "interestyle_jax.inversion.optimisation.shared_tuning.TERMS"
    monkeypatch.setattr(terms, Terms(pixel=1.0, lpips_network="alex"))
    options = {"num_iterations": 1, "batch_size": BATCH}
    weights = str(tiny_weights / "inverter")
    plain = invert_film(weights, squares.path, tmp_path / "plain", **options)
    own = {"tuning": Tuning(passes=12, rate=3e-3), **options}
    report = invert_film(weights, squares.path, tmp_path / "tuned", **own)
    assert report["tuning"] == {"passes": 12, "rate": 3e-3} and plain["tuning"]["passes"] == 0
    before = list(read_frames(squares))
    far = [
        np.mean(difference(before, read_frames(scan_film(tmp_path / name / "film.mkv"))))
        for name in ("plain", "tuned")
    ]
    assert far[1] < 0.8 * far[0]
    # What is tuned is neither tuned nor drawn again.
    film = (tmp_path / "tuned/film.mkv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("interestyle_jax.jobs.film_tuning.tune_generator", None)
        invert_film(weights, squares.path, tmp_path / "tuned", **own)
    assert (tmp_path / "tuned/film.mkv").read_bytes() == film
    # The weights that are left draw its latents, and directions of the generator move them.
    model = load(tmp_path / "tuned/tuned")
    assert model.latents_shape == LatentFile(tmp_path / "tuned").shape[2:]
    edited = {**own, "edits": [str(direction)], "strengths": [2.0]}
    report = edit_film(weights, squares.path, tmp_path / "edited", **edited)
    assert report["films"] == ["film_+2.mkv"]


def refused(arguments, capsys, *words):
    assert main([str(a) for a in arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in told for word in words), told


def test_what_a_film_does_not_go_with(tiny_weights, film, squares, direction, tmp_path, capsys):
    weights = tiny_weights / "inverter"
    shared = ["invert", f"--weights={weights}", f"--input={film.path}", f"--out={tmp_path / 'o'}"]
    refused(shared, capsys, "48 x 32", "--align")
    refused([*shared, "--smooth-quads=-1"], capsys, "--smooth-quads", "0 or more")
    refused([*shared, "--share-rows=7-9"], capsys, "--share-rows", "0-7")
    refused([*shared, "--tune-rate=0"], capsys, "--tune-rate", "above 0")
    refused([*shared, "--method=pti"], capsys, "--method")
    refused([*shared, "--shard=0/2"], capsys, "--shard", "one process")
    edit = ["edit", f"--weights={weights}", f"--input={squares.path}", f"--out={tmp_path / 'o'}"]
    refused([*edit, "--direction=none.npy"], capsys, "none.npy")
    refused([*edit, f"--direction={direction}", "--latents=a"], capsys, "--latents")
    image = tmp_path / "a.png"
    image.write_bytes(b"")
    for option in ("--max-gap=1", "--share-rows=none", "--tune-passes=2"):
        refused([*shared[:2], f"--input={image}", shared[3], option], capsys, "film as --input")
    assert not (tmp_path / "o").exists()
    no = tmp_path / "no.mp4"
    no.write_text("no film")
    refused([*shared[:2], f"--input={no}", shared[3]], capsys, str(no), "no film")


def test_a_film_without_faces_or_with_too_few(invert, film, tmp_path):
    class Blind(Squares):
        def __call__(self, image):
            return []

    with pytest.raises(InputError, match=r"a\.mp4: no face found in any of 16 frames"):
        invert(tmp_path / "none", landmarker=Blind())
    with pytest.raises(InputError, match="4 of 16 frames show no face, more than --max-skipped"):
        invert(tmp_path / "few", max_skipped=0.2)
    with pytest.raises(InputError, match="one process"):
        invert(tmp_path / "part", shard=Shard(0, 2))


def test_foreign_folders_and_the_input_are_left_alone(invert, tiny_weights, squares, tmp_path):
    (tmp_path / "film.mp4").write_text("mine")
    with pytest.raises(InputError, match=r"film\.mp4: exists already"):
        invert(tmp_path)
    assert (tmp_path / "film.mp4").read_text() == "mine"
    own = tmp_path / "own" / "film.mkv"
    own.parent.mkdir()
    own.write_bytes(squares.path.read_bytes())
    with pytest.raises(InputError, match="is the input"):
        invert_film(str(tiny_weights / "inverter"), own, own.parent)


def test_without_the_extra(tiny_weights, squares, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"interestyle_jax\[video\]"):
        invert_film(str(tiny_weights / "inverter"), squares.path, tmp_path)
