"""`interestyle data` with masks that a provider makes on the way."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from interestyle_jax.cli import main


@pytest.fixture
def celebamask(tmp_path):
    """CelebAMask-HQ's layout: six images of 32, parts of 16, three of them test images."""
    root = tmp_path / "CelebAMask-HQ"
    (root / "CelebA-HQ-img").mkdir(parents=True)
    (root / "CelebAMask-HQ-mask-anno" / "0").mkdir(parents=True)
    rng = np.random.default_rng(0)
    originals = [1, 182638, 162771, 190000, 200000, 2]
    lines = "".join(f"{i} {o} {o + 1:06d}.jpg\n" for i, o in enumerate(originals))
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(f"idx orig_idx orig_file\n{lines}")
    for index in range(len(originals)):
        image = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(image).save(root / "CelebA-HQ-img" / f"{index}.jpg")
        for part, rows in {
            "skin": slice(6, 14),
            "hair": slice(2, 8),
            "cloth": slice(13, 16),
        }.items():
            mask = np.zeros((16, 16, 3), np.uint8)
            mask[rows, 4:12] = 255
            name = f"{index:05d}_{part}.png"
            Image.fromarray(mask).save(root / "CelebAMask-HQ-mask-anno" / "0" / name)
    return root


def test_celebamask_parts_become_masks_of_the_test_images(celebamask, capsys):
    out = celebamask.parent / "test"
    argv = [f"--images={celebamask}", "--masks=celebamask", "--only=test", "--test=2"]
    assert main(["data", *argv, f"--out={out}", "--size=32", "--workers=0"]) == 0
    source = tfds.builder_from_directory(str(out)).as_data_source("test")
    assert [record["name"].decode() for record in source] == ["1", "3"]
    interest, face = np.zeros((2, 32, 32), np.uint8)
    # Cloth is painted over the skin, hair too; hair and skin are the interest region.
    interest[4:26, 8:24], face[16:26, 8:24] = 255, 255
    for record in source:
        assert np.array_equal(record["interest_mask"][..., 0], interest)
        assert np.array_equal(record["face_mask"][..., 0], face)
    skin = celebamask.parent / "skin"
    classes = ["--masks-option=classes=skin", "--masks-option=face-classes=skin,hair"]
    assert main(["data", *argv, *classes, f"--out={skin}", "--size=32", "--workers=0"]) == 0
    record = tfds.builder_from_directory(str(skin)).as_data_source("test")[0]
    assert np.array_equal(record["interest_mask"][..., 0], face)
    assert np.array_equal(record["face_mask"][..., 0], interest)
    made = {path.stem for path in (celebamask.parent / "test-masks" / "labels").iterdir()}
    assert made == {"1", "3"}
    report = json.loads((out / "report.json").read_text())
    assert report["written"] == {"test": 2}
    assert report["notes"] == ["6 of CelebA-HQ's 30000 images are there"]


def test_label_maps_need_their_order_named(celebamask, capsys):
    maps = celebamask.parent / "maps"
    maps.mkdir()
    labels = np.zeros((32, 32), np.uint8)
    # Eyes above the nose, by CelebAMask-HQ's numbers.
    labels[8:24, 8:24], labels[10:12, 10:20], labels[16:18, 14:16], labels[2:8] = 1, 4, 2, 13
    for index in (1, 3, 4):
        Image.fromarray(labels).save(maps / f"{index}.png")
    out = celebamask.parent / "set"
    argv = ["data", f"--images={celebamask}", "--masks=celebamask", "--only=test", f"--out={out}"]
    argv += [f"--masks-option=labels={maps}", "--size=32", "--workers=0"]
    assert main(argv) == 2
    assert "say which order they have: celebamask-hq or face-parsing" in capsys.readouterr().err
    assert main([*argv, "--masks-option=order=face-parsing"]) == 2
    assert "its labels lie as in the order celebamask-hq" in capsys.readouterr().err
    assert not out.exists()
    # No mask was made in the wrong order: the folder of masks belongs to none.
    assert main([*argv, "--masks-option=order=celebamask-hq"]) == 0
    record = tfds.builder_from_directory(str(out)).as_data_source("test")[0]
    assert np.array_equal(record["interest_mask"][..., 0] > 0, labels > 0)


def test_ffhq_with_celebahq_to_validate_on(celebamask):
    images = celebamask.parent / "ffhq" / "images1024x1024"
    rng = np.random.default_rng(1)
    for index in (0, 999, 1000):
        folder = images / f"{index // 1000:02d}000"
        folder.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{index:05d}.png")
    masks = celebamask.parent / "ffhq-masks"
    for part in ("interest", "face"):
        (masks / part).mkdir(parents=True)
        for index in (0, 999, 1000):
            Image.new("L", (40, 40), 255).save(masks / part / f"{index:05d}.png")
    out = celebamask.parent / "set"
    argv = ["data", f"--images={images.parent}", f"--masks={masks}", f"--out={out}"]
    argv += [f"--validation-images={celebamask}", "--validation-masks=celebamask"]
    assert main([*argv, "--size=16", "--workers=0"]) == 0
    builder = tfds.builder_from_directory(str(out))
    names = {
        split: [record["name"].decode() for record in builder.as_data_source(split)]
        for split in builder.info.splits
    }
    assert names == {"train": ["00000", "00999", "01000"], "validation": ["1", "3", "4"]}
    assert {"interest_mask", "face_mask"} <= set(builder.info.features)
    assert json.loads((out / "metadata.json").read_text())["layout"] == "ffhq"


def test_options_go_to_the_provider_that_has_them(celebamask, shared_dir):
    (celebamask.parent / "photos").mkdir()
    for path in sorted((shared_dir / "portraits").glob("male_0[0-1].jpg")):
        Image.open(path).resize((64, 64)).save(celebamask.parent / "photos" / f"{path.stem}.png")
    out = celebamask.parent / "set"
    argv = ["data", f"--images={celebamask.parent / 'photos'}", "--masks=selfie", f"--out={out}"]
    argv += [f"--validation-images={celebamask}", "--validation-masks=celebamask"]
    argv += ["--size=16", "--workers=0", "--masks-option=threshold=0.25"]
    # The selfie network knows no face, which CelebAMask-HQ's masks have: taken where both are.
    assert main([*argv, "--validation=2"]) == 0
    builder = tfds.builder_from_directory(str(out))
    assert {"interest_mask"} == {name for name in builder.info.features if "mask" in name}
    assert builder.info.splits["validation"].num_examples == 2
    report = json.loads((celebamask.parent / "set-masks" / "report.json").read_text())
    assert report["options"] == {"threshold": 0.25}


def test_portraits_with_selfie_masks(shared_dir, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for path in sorted((shared_dir / "portraits").glob("female_0[0-5].jpg")):
        Image.open(path).resize((128, 128)).save(tmp_path / "photos" / f"{path.stem}.png")
    argv = [f"--images={tmp_path / 'photos'}", "--masks=selfie", f"--out={tmp_path / 'set'}"]
    argv += ["--size=64", "--validation=1", "--test=1", "--workers=0"]
    assert main(["data", *argv]) == 0
    assert "masks of 6 images; look at its overlays" in capsys.readouterr().out
    assert list((tmp_path / "set-masks" / "overlays").glob("sheet_*.png"))
    builder = tfds.builder_from_directory(str(tmp_path / "set"))
    for record in builder.as_data_source("train"):
        # A person fills a good part of a portrait, and stands in its middle.
        assert 0.2 < (record["interest_mask"] > 0).mean() < 0.95
        assert record["interest_mask"][32, 32] == 255


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--masks=celebamask"], "CelebAMask-HQ-mask-anno: no such directory; give the parts"),
        (["--masks=selfie", "--masks-option=threshold"], "'threshold', expected NAME=VALUE"),
        (["--masks=selfie", "--masks-option=power=3"], "power: no option of provider selfie"),
        (["--masks=selfie", "--masks-option=threshold=high"], "'threshold=high', expected numbers"),
        (["--masks=selfie", "--masks-option=threshold=3"], "--threshold: 3"),
        (["--masks=graphonomy"], "--weights"),
    ],
)
def test_what_a_provider_lacks_is_one_line(tmp_path, more, words, capsys):
    (tmp_path / "photos").mkdir()
    for name in "abc":
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / f"{name}.png")
    argv = [f"--images={tmp_path / 'photos'}", f"--out={tmp_path / 'set'}", "--size=16", *more]
    assert main(["data", *argv]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("interestyle: error: ") and words in last
    assert not (tmp_path / "set").exists()
