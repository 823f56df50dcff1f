"""The avatar world: the same everywhere, exact masks, every kind of obstacle and background."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from interestyle_jax import errors
from interestyle_jax.data import avatars
from interestyle_jax.data.avatars import backgrounds, obstacles, raster, render
from interestyle_jax.data.avatars.variation import Draws

MASKS = ("interest_mask", "face_mask", "interest_mask_full", "face_mask_full")

# Digests of every image and mask of `sample(index, style=style)`.
DIGESTS = {
    ("personas", 0): "1da834dcf8241068",
    ("personas", 3): "e09867ae6d596af6",
    ("personas", 11): "0be383a082edb735",
    ("toon-head", 0): "8bccb94452524b40",
    ("toon-head", 3): "69ad94d4f47d1c21",
    ("toon-head", 11): "4a3bb3a9fb92c9cb",
}


def digest(sample: dict) -> str:
    names = ("image", "clean", *MASKS)
    return hashlib.sha256(b"".join(sample[name].tobytes() for name in names)).hexdigest()[:16]


def eroded(mask: np.ndarray) -> np.ndarray:
    """Pixels whose 3 x 3 neighbours are all inside, so that no edge is blended into them."""
    return np.asarray(Image.fromarray(mask[..., 0]).filter(ImageFilter.MinFilter(3))) == 255


@pytest.fixture(scope="module")
def samples() -> list[dict]:
    return [avatars.sample(i) for i in range(40)]


@pytest.mark.parametrize(("style", "index"), sorted(DIGESTS))
def test_same_sample_as_ever(style, index):
    assert digest(avatars.sample(index, style=style)) == DIGESTS[style, index]


def test_another_process_draws_the_same():
    code = (
        "import hashlib; from interestyle_jax.data import avatars; s = avatars.sample(5, size=32);"
        "print(hashlib.sha256(s['image'].tobytes() + s['face_mask'].tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(p for p in sys.path if p)},
    ).stdout.strip()  # fmt: skip
    here = avatars.sample(5, size=32)
    mine = hashlib.sha256(here["image"].tobytes() + here["face_mask"].tobytes()).hexdigest()
    assert other == mine


def test_splits_seeds_and_indices_differ():
    images = [
        avatars.clean_sample(index, size=16, split=split, seed=seed)["clean"].tobytes()
        for index in (0, 1)
        for split in avatars.SPLITS
        for seed in (0, 1)
    ]
    assert len(set(images)) == len(images)


def test_shapes_and_values(samples):
    for sample in samples[:5]:
        for name in ("image", "clean"):
            assert sample[name].shape == (64, 64, 3) and sample[name].dtype == np.uint8
        for name in MASKS:
            assert sample[name].shape == (64, 64, 1) and sample[name].dtype == np.uint8
            assert set(np.unique(sample[name])) == {0, 255}
        assert {"mouth", "eyes", "hair", "skin_colour", "tilt"} <= set(sample["labels"])


def test_masks_nest(samples):
    for sample in samples:
        assert (sample["face_mask"] <= sample["interest_mask"]).all()
        assert (sample["interest_mask"] <= sample["interest_mask_full"]).all()
        assert (sample["face_mask"] <= sample["face_mask_full"]).all()
        assert (sample["face_mask_full"] <= sample["interest_mask_full"]).all()


def test_clean_and_obstructed_agree_inside_the_visible_interest_region(samples):
    """Same position, light and colours; one level of rounding where an edge runs nearby."""
    for sample in samples:
        # Blending at the rim of the head or of the obstacle reaches one pixel inwards.
        inside = eroded(sample["interest_mask"])
        difference = np.abs(sample["image"].astype(int) - sample["clean"].astype(int)).max(-1)
        assert inside.sum() > 60
        assert (difference[inside] > 2).mean() < 0.01
        outside = eroded(255 - sample["interest_mask_full"])
        assert difference[outside].mean() > 10


def test_masks_leave_out_what_an_obstacle_covers(samples):
    seen = 0
    for sample in samples:
        hidden = (sample["face_mask_full"] == 255) & (sample["face_mask"] == 0)
        if sample["obstacle"] == "none":
            assert not hidden.any()
            continue
        seen += 1
        share = hidden.sum() / (sample["face_mask_full"] == 255).sum()
        assert 0.03 < share < 0.55
        changed = (sample["image"] != sample["clean"]).any(-1, keepdims=True)
        assert changed[hidden].mean() > 0.95
    assert seen > 30


def test_typical_cover_of_the_face():
    """Most obstacles hide 5-35 % of the face; the worst drawing stays below a half."""
    shares = []
    for index in range(60):
        sample = avatars.sample(index, size=32, split="validation")
        full = (sample["face_mask_full"] > 0).sum()
        shares.append(1 - (sample["face_mask"] > 0).sum() / full)
    assert 0.1 < np.median(shares) < 0.3
    assert np.mean(np.array(shares) < 0.4) > 0.9


def test_all_kinds_appear():
    drawn = [avatars.sample(i, size=16) for i in range(90)]
    assert {sample["obstacle"] for sample in drawn} == set(obstacles.KINDS)
    assert {sample["background"] for sample in drawn} == set(backgrounds.KINDS)
    assert len(set(obstacles.KINDS) - {"none"}) >= 6


@pytest.mark.parametrize("kind", [kind for kind in obstacles.KINDS if kind != "none"])
def test_each_obstacle_varies(kind):
    face = obstacles.FaceBox(0.5, 0.55, 0.27, 0.6)
    first, again, other = (obstacles.draw_kind(Draws(k), kind, face, 64) for k in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[..., 3] >= 128).mean() > 0.02


@pytest.mark.parametrize("kind", backgrounds.KINDS)
def test_each_background_varies(kind):
    first, again, other = (backgrounds.draw_kind(Draws(k), kind, 32) for k in (1, 1, 2))
    assert first.shape == (32, 32, 3) and first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02
    assert first.std() > 0.02


def test_size_changes_only_the_resolution(samples):
    for index in (0, 3, 9):
        large = avatars.sample(index, size=128)
        small = samples[index]
        assert (large["obstacle"], large["background"]) == (small["obstacle"], small["background"])
        assert large["labels"] == small["labels"]
        reduced = raster.shrink(large["clean"].astype(float), 64)
        assert np.abs(reduced - small["clean"]).mean() < 2.0
        area = raster.shrink((large["interest_mask_full"] / 255.0), 64)
        assert np.abs(area - small["interest_mask_full"] / 255.0).mean() < 0.02


def test_part_map_equals_layer_by_layer_rendering():
    """The one-pass map against the definition: the topmost layer whose own alpha is >= 1/2."""
    import copy

    for style, index in (("toon-head", 1), ("toon-head", 4), ("toon-head", 12)):
        drawing = render.draw_avatar(Draws(index), style, f"layers-{index}")
        expected = np.zeros((128, 128), np.uint8)
        uses = list(drawing.tree[-1])
        for position, use in enumerate(uses):
            tree = copy.deepcopy(drawing.tree)
            for other in reversed(range(len(uses))):
                if other != position:
                    del tree[-1][other]
            part = use.get("href")[1:].split("-")[0]
            single = dataclasses.replace(drawing, tree=tree)
            alpha = render.image_of(single, 128)[..., 3]
            expected[alpha >= 128] = render.PARTS.index(part)
        assert (render.parts_of(drawing, 128) != expected).mean() < 0.012


def test_held_out_style_has_its_own_labels():
    sample = avatars.sample(0, style="personas")
    assert {"facial_hair", "eyes", "hair", "nose"} <= set(sample["labels"])
    assert (sample["face_mask_full"] > 0).mean() > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"split": "dev"}, "split: 'dev'"), ({"style": "x"}, "style: 'x'"), ({"size": 4}, "size: 4")],
)
def test_bad_arguments(options, words):
    with pytest.raises(errors.InputError, match=words):
        avatars.sample(0, **options)
