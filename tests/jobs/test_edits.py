"""`interestyle edit` as a job: what it writes is the formula's, and what it refuses."""

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
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.editing.style_space import flat_index, join_styles
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.identity import Identity
from interestyle_jax.jobs import edits
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.edits import edit_files
from interestyle_jax.jobs.inversions import invert_files
from interestyle_jax.jobs.kept_region import Keep
from interestyle_jax.jobs.latents import LatentFile
from interestyle_jax.jobs.run import run_job
from interestyle_jax.jobs.shard import Shard

RANDOM = np.random.default_rng(0)
NAMES = ("a", "b", "two\nlines")


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in NAMES:
        pixels = RANDOM.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return str(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def model(weights):
    return ij.load(weights)


@pytest.fixture(scope="module")
def smile(tmp_path_factory, model):
    array = RANDOM.normal(size=16).astype(np.float32)
    direction = Direction(
        "smile", "w", array, default_range=(-2.0, 2.5), generator=model.generator_fingerprint
    )
    return save_direction(tmp_path_factory.mktemp("directions") / "smile.npz", direction)


@pytest.fixture(scope="module")
def inverted(weights, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("inverted")
    monkey = pytest.MonkeyPatch()
    monkey.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    invert_files(weights, images, out, num_iterations=2, batch_size=2)
    monkey.undo()
    return out


@pytest.fixture
def edit(weights, inverted):
    def run(out, *directions, **options):
        options = {"latents": inverted, "batch_size": 2} | options
        return edit_files(weights, out, edits=[str(d) for d in directions], **options)

    return run


def pngs(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


def assert_drawn(path, model, w_plus=None, styles=None):
    """An image file is what the model draws, to a grey level."""
    drawn = model.synthesize(w_plus) if styles is None else model.synthesize_from_styles(styles)
    want = to_uint8(np.asarray(drawn[0])).astype(int)
    assert np.abs(read_image(path) - want).max() <= 1


def test_images_are_inverted_edited_and_drawn(
    weights, images, inverted, smile, model, tmp_path, capfd
):
    out = tmp_path / "out"
    argv = ["edit", f"--weights={weights}", f"--input={images}", f"--out={out}", "--steps=2"]
    argv += [f"--direction={smile}", "--strength=-3,0,2.5", "--rows=2-4", "--batch-size=2"]
    assert main(argv) == 0
    notice = "notice: smile: strength -3 is outside of -2 to 2.5, in which it is known to work"
    assert notice in capfd.readouterr().err
    array = np.load(smile)["array"]
    latents, original = LatentFile(out), LatentFile(inverted)
    assert latents.names == list(NAMES) and latents.shape == (3, 3, 8, 16)
    assert latents.generator == original.generator == model.generator_fingerprint
    for name in NAMES:
        for k, (strength, label) in enumerate([(-3, "-3"), (0, "0"), (2.5, "+2.5")]):
            want = original[name][-1].copy()
            want[2:5] += np.float32(strength) * array
            np.testing.assert_allclose(latents[name][k], want, atol=1e-5)
            assert_drawn(out / f"{name}_{label}.png", model, latents[name][k][None])
        inversion = read_image(inverted / f"{name}.png").astype(int)
        assert np.abs(read_image(out / f"{name}_0.png") - inversion).max() <= 1
    report = json.loads((out / "report.json").read_text())
    assert report["strengths"] == [-3, 0, 2.5] and report["outside_range"]
    assert report["edits"][0]["rows"] == "2-4"
    assert report["edits"][0]["norm"] == pytest.approx(np.linalg.norm(array), rel=1e-5)
    # A column for the input and one a strength, a row an image, cells of 128 pixels.
    height, width, _ = read_image(out / "sheet.png").shape
    assert 4 * 132 < width < 4 * 132 + 100 and 3 * 132 < height < 3 * 132 + 50

    before = pngs(out)
    (out / "a_0.png").unlink()
    assert main(argv) == 0
    assert json.loads((out / "report.json").read_text())["num_new"] == 1
    assert pngs(out) == before


def test_latents_give_what_images_do_in_any_parts(edit, smile, model, inverted, tmp_path):
    edit(tmp_path / "whole", smile)
    # The ends of the direction's range, and 0.
    labels = ["-2", "0", "+2.5"]
    names = {f"{name}_{label}.png" for name in NAMES for label in labels} | {"sheet.png"}
    assert set(pngs(tmp_path / "whole")) == names
    assert edit(tmp_path / "parts", smile, shard=Shard(0, 2))["status"] == "part done"
    assert edit(tmp_path / "parts", smile, shard=Shard(1, 2))["status"] == "done"
    assert pngs(tmp_path / "parts") == pngs(tmp_path / "whole")
    # The edited latents are latents again; the last entry is taken.
    edit(tmp_path / "again", smile, latents=tmp_path / "whole" / "latents.npz", strengths=[0])
    for name in NAMES:
        want = read_image(tmp_path / "whole" / f"{name}_+2.5.png")
        np.testing.assert_array_equal(read_image(tmp_path / "again" / f"{name}_0.png"), want)


def test_eight_devices_give_the_bits_of_one_which_is_sent_nothing_unasked(
    edit, smile, inverted, tmp_path, monkeypatch
):
    def guarded(*args, **options):
        with jax.transfer_guard("disallow"):
            return run_job(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(edits, "run_job", guarded)
        report = edit(tmp_path / "one", smile, "channel:3,5:2", batch_size=None)
    assert (report["num_devices"], report["batch_size"]) == (1, 3)
    monkeypatch.setattr(jax, "local_devices", jax.devices)
    report = edit(tmp_path / "eight", smile, "channel:3,5:2", batch_size=None)
    assert (report["num_devices"], report["batch_size"]) == (8, 24)
    for name in ("latents.npz", *pngs(tmp_path / "one")):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "eight" / name).read_bytes()


def test_several_edits_and_channels_of_s(edit, smile, model, inverted, tmp_path):
    report = edit(tmp_path / "out", f"{smile}:2", "channel:3,5", strengths=[-4, 1])
    assert [each["strength"] for each in report["edits"]] == [2.0, None]
    array, original = np.load(smile)["array"], LatentFile(inverted)
    place = flat_index(model.style_layers, 3, 5)
    for name in NAMES:
        w_plus = original[name][-1] + 2 * array
        latents = LatentFile(tmp_path / "out")[name]
        np.testing.assert_allclose(latents, np.stack([w_plus] * 2), atol=1e-5)
        with np.load(tmp_path / "out" / f"{name}_styles.npz") as file:
            saved = file["styles"]
        styles = model.styles(w_plus[None])
        flat = np.asarray(join_styles(styles, model.style_layers))[0]
        for k, strength in enumerate([-4, 1]):
            want = flat.copy()
            want[place] += strength
            np.testing.assert_allclose(saved[k], want, atol=1e-4)
        changed = [np.array(style) for style in styles]
        changed[3][:, 5] += 1
        assert_drawn(tmp_path / "out" / f"{name}_+1.png", model, styles=changed)


def test_outside_of_the_kept_region_the_image_stays(
    weights, images, edit, smile, inverted, tmp_path
):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in NAMES:
        mask = np.zeros((32, 32), np.uint8)
        mask[:, :20] = 255
        Image.fromarray(mask).save(masks / f"{name}.png")
    keep = Keep("interest", masks=str(masks), feather=0.1)
    options = {"strengths": [2], "keep": keep, "num_iterations": 2, "latents": None}
    report = edit(tmp_path / "photos", smile, source=images, **options)
    assert report["keep"]["region"] == "interest"
    edit(tmp_path / "latents", smile, strengths=[2], keep=keep)
    edit(tmp_path / "plain", smile, strengths=[0, 2])
    for name in NAMES:
        edited = read_image(tmp_path / "plain" / f"{name}_+2.png")
        for folder, original in (
            ("photos", images / f"{name}.png"),
            ("latents", tmp_path / "plain" / f"{name}_0.png"),
        ):
            got, original = read_image(tmp_path / folder / f"{name}_+2.png"), read_image(original)
            np.testing.assert_array_equal(got[:, 20:], original[:, 20:])
            # The edge is soft over 0.1 of the side, inside.
            np.testing.assert_allclose(got[:, :16], edited[:, :16], atol=1)
            low, high = np.minimum(original, edited), np.maximum(original, edited)
            assert ((got >= low.astype(int) - 1) & (got <= high.astype(int) + 1)).all()
    with pytest.raises(InputError, match="know no face"):
        edit(tmp_path / "face", smile, keep=Keep("face", masks=str(masks)))


def test_identity_compares_with_the_input(weights, images, smile, edit, tmp_path, monkeypatch):
    """Of images with the image itself, of latents with their image at no edit."""
    seen = []

    class Faces:
        bbox, landmarks = None, None

    def detect(image):
        seen.append(image)
        return [] if image.mean() < 0 else [Faces]

    def embed(faces):
        flat = np.asarray(faces).reshape(len(faces), -1)[:, :8] + 1e-3
        return jax.numpy.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))

    def align(image, landmarks):
        return np.asarray(Image.fromarray(image).resize((112, 112)))

    monkeypatch.setattr("interestyle_jax.evaluation.identity.align_face", align)
    monkeypatch.setattr(edits, "load_identity", lambda *a, **o: Identity(detect, embed))
    report = edit(tmp_path / "latents", smile, strengths=[0, 2])
    assert report["id_similarity"]["0"] == {"mean": pytest.approx(1, abs=1e-6), "num_images": 3}
    assert report["id_similarity"]["+2"]["mean"] < 1 - 1e-6
    # Without a detector images are compared as they are, of any size.
    monkeypatch.setattr(edits, "load_identity", lambda *a, **o: Identity(None, embed))
    whole = edit(tmp_path / "whole", smile, strengths=[0, 2])["id_similarity"]
    assert whole["0"] == {"mean": pytest.approx(1, abs=1e-6), "num_images": 3}
    monkeypatch.setattr(edits, "load_identity", lambda *a, **o: Identity(detect, embed))
    seen.clear()
    options = {"latents": None, "source": images, "num_iterations": 2, "strengths": [0]}
    report = edit(tmp_path / "images", smile, **options)
    inputs = [read_image(images / f"{name}.png") for name in NAMES]
    assert all(any(np.array_equal(x, y) for y in seen) for x in inputs)


def test_photographs_may_be_without_a_face(weights, images, smile, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(edits, "run_job", lambda job, *args, **options: jobs.append(job))
    for alignment in (None, Alignment()):
        edit_files(weights, tmp_path, edits=[str(smile)], source=images, alignment=alignment)
    assert [job.max_skipped for job in jobs] == [0.01, 0.5]


def test_latents_and_directions_of_another_generator(edit, tiny_weights, smile, inverted, tmp_path):
    other = str(tiny_weights / "other")

    def run(out, **options):
        return edit_files(
            other, out, edits=[str(smile)], latents=inverted, strengths=[0], **options
        )

    with pytest.raises(InputError, match="smile.npz: was made for generator"):
        run(tmp_path / "out")
    # Latents of earlier versions do not say whose they are.
    with np.load(inverted / "latents.npz") as file:
        names, w_plus = file["names"], file["w_plus"]
    np.savez(tmp_path / "old.npz", names=names, w_plus=w_plus)
    assert edit(tmp_path / "old", smile, latents=tmp_path / "old.npz", strengths=[0])
    free = save_direction(tmp_path / "free.npz", Direction("free", "w", np.ones(16, np.float32)))
    with pytest.raises(InputError, match="inverted: was made with generator|was made with gener"):
        edit_files(other, tmp_path / "out", edits=[str(free)], latents=inverted)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "taken", other_generator=True)["status"] == "done"


def test_a_direction_of_another_length_is_told(model, smile, tmp_path):
    """generators-with-stylegan2's are no unit vectors; strengths are told against their length."""
    np.save(tmp_path / "age.npy", np.full((1, 16), 0.25, np.float32) * 0.43)
    np.save(tmp_path / "unit.npy", np.full((1, 16), 0.25, np.float32))
    given = [str(tmp_path / "age.npy"), str(tmp_path / "unit.npy"), str(smile), "channel:1,2"]
    (line,) = edits.of_other_length(edits.plan_edits(model, given))
    assert line == "age: is no unit vector (norm 0.43), a strength of 1 is its whole length"


def test_wrong_command_lines_are_refused(weights, images, inverted, smile, tmp_path, capfd):
    np.savez(tmp_path / "wide.npz", names=np.array(["x"]), w_plus=np.ones((1, 1, 18, 512), "f"))
    np.savez(tmp_path / "path.npz", names=np.array(["../x"]), w_plus=np.ones((1, 1, 8, 16), "f"))
    np.savez(tmp_path / "twice.npz", names=np.array(["x", "x"]), w_plus=np.ones((2, 1, 8, 16), "f"))
    own, latents = f"--direction={smile}", f"--latents={inverted}"
    for argv, message in [
        ([own], "--input, --latents: expected one of them"),
        ([own, latents, f"--input={images}"], "--input, --latents: expected one of them"),
        ([latents], "--direction: none, expected at least one"),
        ([latents, own, "--steps=2"], "--align, --steps: go with images"),
        ([latents, own, "--rows=1", "--bands=fine"], "--rows, --bands: expected one of them"),
        ([latents, own, "--rows=8"], "row 8: this generator has the rows 0 to 7"),
        ([latents, own, "--bands=fine"], "fine begins at 64 pixels, this generator has 32"),
        ([latents, own, "--rows=b"], "rows: 'b', expected rows such as"),
        ([latents, own, "--strength=1,1.0"], "--strength: +1 is given twice"),
        ([latents, own, "--strength=nan"], "expected numbers"),
        ([latents, f"{own}:1", "--strength=1"], "every direction has one of its own"),
        ([latents, "--direction=smil"], "smil: no such file, and no direction of that name"),
        ([latents, "--direction=channel:99,1"], "layer 99: expected 0 to 10"),
        ([latents, "--direction=channel:1,1", "--absolute"], "has no coordinates"),
        ([latents, own, "--keep-feather=0.1"], "need --keep"),
        ([latents, own, "--keep=hair"], "--keep: 'hair', expected some of background, person"),
        ([latents, own, "--keep=interest", "--keep-masks=x"], "expected a folder or one of"),
        ([latents, own, "--paste-back"], "need --align"),
        ([own, f"--latents={tmp_path / 'no'}"], "no such file or folder"),
        ([own, f"--latents={tmp_path / 'wide.npz'}"], "of shape [18, 512], but this generator"),
        ([own, f"--latents={tmp_path / 'path.npz'}"], "'../x' is no name of an image"),
        ([own, f"--latents={tmp_path / 'twice.npz'}"], "two of its latents have the same name"),
        ([own, latents, "--identity=a"], "expected an embedder and a face detector"),
    ]:
        argv = ["edit", f"--weights={weights}", f"--out={tmp_path / 'out'}", *argv]
        assert main(argv) == 2
        err = capfd.readouterr().err
        assert message in err and err.count("\n") == 1, (argv, err)
    assert not (tmp_path / "out").exists()


def test_photographs_get_their_edited_faces_back(weights, smile, shared_dir, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    with Image.open(shared_dir / "portraits" / "male_01.jpg") as portrait:
        portrait.resize((200, 200)).save(photos / "me.png")
    out = tmp_path / "out"
    argv = ["edit", f"--weights={weights}", f"--input={photos}", f"--out={out}", "--steps=1"]
    argv += [f"--direction={smile}", "--strength=0,2", "--align", "--paste-back", "--feather=0.2"]
    argv += ["--keep=interest", "--keep-masks=selfie"]
    assert main(argv) == 0
    names = {"me_0.png", "me_+2.png", "me_0_pasted.png", "me_+2_pasted.png", "sheet.png"}
    assert set(pngs(out)) == names
    photo, pasted = read_image(photos / "me.png"), read_image(out / "me_+2_pasted.png")
    assert pasted.shape == photo.shape
    changed = (pasted != photo).any(axis=-1)
    assert changed.any() and not changed[:3].any()
    assert not np.array_equal(pasted, read_image(out / "me_0_pasted.png"))
