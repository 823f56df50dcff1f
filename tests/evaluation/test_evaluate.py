"""`evaluate` on a small avatar set, against the same figures computed by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.evaluation.identity import load_identity
from interestyle_jax.evaluation.measurement import as_measured
from interestyle_jax.evaluation.results import encoder_names
from interestyle_jax.jobs import evaluation_job, evaluations
from interestyle_jax.jobs.evaluations import evaluate

SIZE, COUNT, STEPS = 32, 7, 2
# The data set's images are larger than what encoders see.
STORED = 40
SIZES = {"train": 1, "validation": 1, "test": COUNT}


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "avatars"
    return write_avatars(directory, sizes=SIZES, size=STORED, seed=3, workers=0)


@pytest.fixture(scope="module")
def evaluated(avatars, tiny_weights, tmp_path_factory):
    """(metrics, folder) of two encoders; seven images in batches of four, so one is padded."""
    out = tmp_path_factory.mktemp("report")
    weights = [tiny_weights / "inverter", tiny_weights / "other"]
    names = ["trained here", "other"]
    return evaluate(weights, avatars, out, batch_size=4, names=names, num_iterations=STEPS), out


def by_pil(image, size=SIZE):
    """uint8 [H, W, C] resized by PIL's bilinear filter."""
    parts = [Image.fromarray(x).resize((size, size), 2) for x in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(x) for x in parts], -1)


def saved(images):
    """Floats [..., 3] as an 8-bit file holds them: uint8."""
    return np.rint(np.clip(images, -1, 1) * 127.5 + 127.5).astype(np.uint8)


@pytest.fixture(scope="module")
def samples(avatars):
    """The test images, decoded by TFDS and resized by PIL: in [-1, 1], masks in [0, 1]."""
    source = tfds.builder_from_directory(str(avatars)).as_data_source("test")
    rows = [source[i] for i in range(COUNT)]
    scaled = {
        name: np.stack([by_pil(row[name]) for row in rows]).astype(np.float32) / 255
        for name in ("image", "clean", "interest_mask", "face_mask")
    }
    return {name: x if "mask" in name else x * 2 - 1 for name, x in scaled.items()}


@pytest.fixture(scope="module")
def inversions(samples, tiny_weights):
    """w_plus and saved inversions of the images and the clean ones, four at a time."""
    model = ij.load(tiny_weights / "inverter")

    def invert(inputs):
        padded = np.concatenate([inputs, inputs[-1:]])
        parts = [model.invert(padded[i : i + 4], STEPS) for i in (0, 4)]
        w_plus = np.concatenate([p.w_plus for p in parts], axis=1)[:, :COUNT]
        images = np.concatenate([p.images for p in parts], axis=1)[-1, :COUNT]
        assert np.abs(images).max() > 1.1
        return w_plus, saved(images) / np.float32(127.5) - 1

    return invert(samples["image"]), invert(samples["clean"])


def distances(a, b, mask):
    lpips = ij.load("lpips_alex")
    a, b = a * mask, b * mask
    return {"l2": float(((a - b) ** 2).mean()), "lpips": float(lpips.distance(a, b).mean())}


def close(found, expected):
    return found == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}


def test_metrics_have_the_shape_of_the_contract(evaluated, avatars):
    metrics, out = evaluated
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert list(metrics) == ["num_images", "data", "mean_latent", "encoders"]
    assert metrics["num_images"] == COUNT
    assert metrics["data"] == str(avatars)
    assert list(metrics["mean_latent"]) == ["interest", "face"]
    assert list(metrics["encoders"]) == ["trained here", "other"]
    for encoder in metrics["encoders"].values():
        assert set(encoder) == {
            "interest", "face", "whole", "psnr", "ms_ssim", "id_similarity", "boundary_iou", "fid",
            "edit_fid", "leakage", "latent_variance", "nscd", "nscd_of_samples",
            "seconds_per_image",
        }  # fmt: skip
        assert encoder["id_similarity"] is None and encoder["edit_fid"] is None
        assert 0 <= encoder["nscd_of_samples"] < encoder["nscd"] < 2
        assert len(encoder["latent_variance"]) == STEPS
        assert encoder["seconds_per_image"] > 0
    assert metrics["encoders"]["trained here"] != metrics["encoders"]["other"]


def test_regions_equal_hand_computed_distances(evaluated, samples, inversions):
    found = evaluated[0]["encoders"]["trained here"]
    (_, image), (_, clean) = inversions
    interest, face = samples["interest_mask"], samples["face_mask"]
    assert close(found["interest"], distances(samples["image"], image, interest))
    assert close(found["face"], distances(samples["image"], image, face))
    assert close(found["whole"], distances(samples["image"], image, np.ones_like(face)))
    assert close(found["leakage"], distances(image, clean, interest))
    assert found["interest"] != found["face"]


def test_inversions_are_measured_as_saved_and_resized_by_pil():
    images = np.random.default_rng(0).normal(0, 1, (2, 1, 96, 80, 3)).astype(np.float32)
    found = as_measured(jnp.asarray(images), (24, 40))
    assert found.dtype == np.float32 and found.shape == (2, 1, 24, 40, 3)
    for image, small in zip(images[:, 0], found[:, 0], strict=True):
        want = np.asarray(Image.fromarray(saved(image)).resize((40, 24), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(saved(small), want)
        # Neither the pooled image nor the unclipped one.
        pooled = image.reshape(24, 4, 40, 2, 3)
        for other in (pooled.clip(-1, 1).mean((1, 3)), pooled.mean((1, 3))):
            assert np.abs(small - other).mean() > 0.02


def test_latent_variance_equals_numpy(evaluated, inversions):
    (w_plus, _), _ = inversions
    expected = w_plus.var(axis=2).mean(axis=(1, 2))
    assert evaluated[0]["encoders"]["trained here"]["latent_variance"] == pytest.approx(
        list(expected), rel=1e-4
    )


def test_the_mean_latent_is_its_own_image(evaluated, samples, tiny_weights):
    model = ij.load(tiny_weights / "inverter")
    average = saved(model.synthesize(model.mean_latent())) / np.float32(127.5) - 1
    average = np.broadcast_to(average, samples["image"].shape)
    for region in ("interest", "face"):
        expected = distances(samples["image"], average, samples[f"{region}_mask"])
        assert close(evaluated[0]["mean_latent"][region], expected)


def test_files_and_figures(evaluated):
    _, out = evaluated
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert found == {"metrics.json", "table.md", "report.json", "progress.jsonl"} | {
        f"figures/{name}.png"
        for name in (
            "latent_variance", "latent_variance_histogram", "comparison", "grid_trained_here",
            "grid_other", "leakage_trained_here", "leakage_other",
        )
    }  # fmt: skip
    for path in (out / "figures").iterdir():
        image = np.asarray(Image.open(path).convert("RGB"))
        assert image.std() > 1, path
    assert (out / "table.md").read_text().count("\n| ") == 4


def test_the_table_holds_the_metrics(evaluated):
    metrics, out = evaluated
    lines = (out / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    header, _, mean, *encoders = rows
    assert [row[0] for row in (mean, *encoders)] == ["mean latent", *metrics["encoders"]]
    assert "ID similarity" not in header
    column = header.index("LPIPS interest")
    own, reference = (
        metrics["encoders"]["other"]["interest"]["lpips"],
        metrics["mean_latent"]["interest"]["lpips"],
    )
    assert encoders[1][column] == f"{own:.4f}"
    assert encoders[1][-1] == f"{own / reference:.3f}"
    assert mean[header.index("leakage L2")] == "–"
    assert all(len(row) == len(header) for row in rows)


def test_plain_images_have_the_whole_alone(tiny_weights, samples, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(samples["image"][:3]):
        Image.fromarray(np.rint(image * 127.5 + 127.5).astype(np.uint8)).save(folder / f"{i}.png")
    weights = [tiny_weights / "inverter"]
    metrics = evaluate(weights, folder, tmp_path / "out", batch_size=4, num_iterations=STEPS)
    found = metrics["encoders"]["inverter"]
    assert metrics["num_images"] == 3
    assert found["whole"]["l2"] > 0 and found["whole"]["lpips"] > 0
    nothing = {"l2": None, "lpips": None}
    assert found["interest"] == found["face"] == found["leakage"] == nothing
    assert metrics["mean_latent"] == {"interest": nothing, "face": nothing}
    figures = sorted(p.name for p in (tmp_path / "out" / "figures").iterdir())
    assert figures == ["grid_inverter.png", "latent_variance.png", "latent_variance_histogram.png"]


@pytest.mark.parametrize(
    ("weights", "changes", "message"),
    [
        (["inverter", "generator"], {}, "generator: no encoder"),
        (["missing"], {}, "no such weight directory"),
        (["inverter"], {"data": "nowhere"}, "nowhere: no such data set"),
        (["inverter"], {"split": "tset"}, "no split 'tset'"),
        (["inverter"], {"names": ["a", "b"]}, "2 for 1 weights"),
        (["inverter", "other"], {"names": ["a", "a"]}, "not all different"),
        (["inverter"], {"lpips": "lpips"}, "no such weight directory"),
        ([], {}, "none given"),
        (["inverter"], {"edits": ["x.npz:2"]}, "edits: expected --fid-weights=DIR with them"),
        (["inverter"], {"edits": ["x.npz:2"], "fid_mode": "lpips"}, "x.npz: no such file"),
        (["inverter"], {"edits": ["channel:2,1"], "fid_mode": "lpips"}, "expected channel:2,1:2"),
        (["inverter"], {"fid_mode": "lpips", "fid_statistics": "x.npz"}, "x.npz"),
        (["inverter"], {"edit_statistics": "x.npz"}, "edits: expected --fid-weights=DIR"),
        (["inverter"], {"fid_mode": "clean", "fid_weights": "lpips_alex"}, "no inception"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    tiny_weights, avatars, tmp_path, weights, changes, message
):
    options = {"data": avatars, "out": tmp_path / "out", "num_iterations": STEPS} | changes
    with pytest.raises(ij.InputError, match=message):
        evaluate([tiny_weights / name for name in weights], **options)
    assert list(tmp_path.iterdir()) == []


def test_names_come_from_the_directories():
    assert encoder_names(["runs/a/weights", "runs/b/weights/", "avatar_interestyle"], None) == [
        "a", "b", "avatar_interestyle",
    ]  # fmt: skip
    assert encoder_names(["x/a", "y/a", "z/a"], None) == ["a", "a-2", "a-3"]
    assert encoder_names(["x", "y"], ["one", "two"]) == ["one", "two"]


def test_id_similarity_is_the_mean_over_images_with_a_face(
    avatars, tiny_weights, samples, inversions, tmp_path, monkeypatch
):
    seen, cosines = [], np.linspace(0.1, 0.5, COUNT)

    class Known:
        """Tells images apart by their pixels; the first one has no face."""

        def faces(self, image, inversion):
            seen.append((image, inversion))
            index = int(np.abs(wanted - image).mean((1, 2, 3)).argmin())
            return None if index == 0 else np.full((2, 112, 112, 3), cosines[index], np.float32)

        def embed(self, faces):
            cosine = faces[:, 0, 0, 0, :1]
            pair = np.stack([np.ones_like(cosine), cosine], axis=1)
            return np.concatenate([pair, np.zeros_like(pair)], axis=-1)

    wanted = np.rint(samples["image"] * samples["interest_mask"] * 127.5 + 127.5)
    monkeypatch.setattr(evaluations, "load_identity", lambda *args, **options: Known())
    monkeypatch.setattr(evaluation_job, "draw_figures", lambda measurements, folder: None)
    weights = [tiny_weights / "inverter"]
    metrics = evaluate(weights, avatars, tmp_path, batch_size=4, num_iterations=STEPS)
    similarity = metrics["encoders"]["inverter"]["id_similarity"]
    assert similarity == pytest.approx(cosines[1:].mean())
    assert "ID similarity" in (tmp_path / "table.md").read_text()
    # Grey outside of the interest mask, the image inside.
    order = [int(np.abs(wanted - image).mean((1, 2, 3)).argmin()) for image, _ in seen]
    assert sorted(order) == list(range(COUNT))
    images = np.stack([image for image, _ in seen])
    assert images.dtype == np.uint8
    np.testing.assert_allclose(images, wanted[order], atol=1)
    masked = inversions[0][1] * samples["interest_mask"]
    found = np.stack([inversion for _, inversion in seen])
    np.testing.assert_allclose(found, saved(masked)[order], atol=2)


def test_embedder_and_face_detector_go_together(tiny_weights):
    assert load_identity(None, None) is None
    with pytest.raises(ij.InputError, match="got one of them"):
        load_identity(tiny_weights / "encoder", None)
    with pytest.raises(ij.InputError, match="no embedder"):
        load_identity(tiny_weights / "encoder", tiny_weights / "encoder")
