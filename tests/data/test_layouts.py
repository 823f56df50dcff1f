"""Where known data sets keep their images, and the splits they come to."""

import pytest

from interestyle_jax.data import layouts
from interestyle_jax.data.layouts import find_images, held_out_images, list_tree
from interestyle_jax.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def stems(images) -> dict:
    return {split: [path.stem for path in paths] for split, paths in images.splits.items()}


@pytest.fixture
def ffhq(tmp_path):
    names = ["00000/00000", "00000/00999", "59000/59999", "60000/60000", "69000/69999"]
    return touch(tmp_path / "ffhq", *(f"images1024x1024/{name}.png" for name in names))


@pytest.fixture
def celebahq(tmp_path):
    originals = [1, 182638, 162771, 190000, 200000, 2]
    folder = touch(tmp_path / "celeba", *(f"CelebA-HQ-img/{i}.jpg" for i in range(6)))
    lines = "".join(f"{i} {o} {o + 1:06d}.jpg\n" for i, o in enumerate(originals))
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text(f"idx orig_idx orig_file\n{lines}")
    return folder


@pytest.fixture
def afhq(tmp_path):
    names = ["train/cat/c0", "train/wild/w0", "train/wild/w1", "val/cat/c1", "val/wild/w2"]
    return touch(tmp_path / "afhq", *(f"{name}.jpg" for name in names))


@pytest.mark.parametrize("below", ["", "images1024x1024"])
def test_ffhq(ffhq, below):
    every = ["00000", "00999", "59999", "60000", "69999"]
    found = find_images(ffhq / below)
    assert found.layout == "ffhq" and stems(found) == {"train": every}
    assert found.notes == ("5 of FFHQ's 70000 images are there",)
    official = find_images(ffhq / below, dealing="official")
    assert stems(official) == {"train": every[:3], "validation": every[3:]}
    short = find_images(ffhq / below, dealing="official", validation=1)
    assert stems(short) == {"train": every[:3], "validation": ["60000"]}
    dealt = stems(find_images(ffhq / below, dealing="dealt", seed=4))
    assert sorted(sum(dealt.values(), [])) == every
    assert [len(dealt[split]) for split in layouts.SPLITS] == [3, 1, 1]


def test_ffhq_without_folders(ffhq, tmp_path):
    flat = tmp_path / "flat"
    touch(flat, "00000.png", "69999.png")
    assert find_images(flat, dealing="train").layout == "folder"
    assert stems(find_images(flat, layout="ffhq")) == {"train": ["00000", "69999"]}
    touch(flat, "70000.png")
    with pytest.raises(InputError, match="70000.png: is not named as FFHQ"):
        find_images(flat, layout="ffhq")


def test_links_are_followed_and_hidden_files_left(tmp_path):
    disk = touch(tmp_path / "disk", "00000.png", "00001.png", "._00001.png", ".cache/x.png")
    (tmp_path / "ffhq" / "images1024x1024").mkdir(parents=True)
    (tmp_path / "ffhq" / "images1024x1024" / "00000").symlink_to(disk)
    (disk / ".cache" / "x.png").unlink()
    assert stems(find_images(tmp_path / "ffhq")) == {"train": ["00000", "00001"]}
    assert stems(find_images(disk, dealing="train")) == {"train": ["00000", "00001"]}


def test_link_to_a_folder_around_it_ends(tmp_path):
    touch(tmp_path / "all", "a/1.png", "b/2.png")
    (tmp_path / "all" / "a" / "back").symlink_to(tmp_path / "all")
    assert stems(find_images(tmp_path / "all", dealing="train")) == {"train": ["1", "2"]}


def test_flat_ffhq_with_its_masks_inside(tmp_path):
    touch(tmp_path / "ffhq", "00000.png", "00001.png", "masks/00000.png", "masks/00001.png")
    found = find_images(tmp_path / "ffhq", layout="ffhq")
    assert [path.parent for path in found.splits["train"]] == [tmp_path / "ffhq"] * 2


def test_equal_names_in_different_folders_are_refused(ffhq):
    touch(ffhq, "images1024x1024/59000/00999.jpg")
    with pytest.raises(InputError, match="59000/00999.jpg: has the same name as .*00999.png"):
        find_images(ffhq)
    with pytest.raises(InputError, match="has the same name as"):
        list_tree(ffhq)


@pytest.mark.parametrize("below", ["", "CelebA-HQ-img"])
def test_celebahq(celebahq, below):
    found = find_images(celebahq / below)
    assert found.layout == "celebahq"
    assert stems(found) == {"train": ["0", "5"], "validation": ["2"], "test": ["1", "3", "4"]}
    assert found.notes == ("6 of CelebA-HQ's 30000 images are there",)
    assert stems(find_images(celebahq / below, test=2, validation=0)) == {
        "train": ["0", "5"], "test": ["1", "3"],
    }  # fmt: skip
    with pytest.raises(InputError, match="--test: 4 images asked for, the split has 3"):
        find_images(celebahq / below, test=4)


def test_celebahq_list_elsewhere(celebahq, tmp_path):
    listed = celebahq / "CelebA-HQ-to-CelebA-mapping.txt"
    listed.rename(tmp_path / "list.txt")
    with pytest.raises(InputError, match="neither in it nor above; give it as --mapping"):
        find_images(celebahq)
    assert len(find_images(celebahq, mapping=tmp_path / "list.txt").splits["test"]) == 3


def test_afhq(afhq):
    found = find_images(afhq, class_name="wild")
    assert found.layout == "afhq"
    assert stems(found) == {"train": ["w0", "w1"], "validation": ["w2"]}
    with pytest.raises(InputError, match="has the classes cat, wild; choose one with --class"):
        find_images(afhq)
    with pytest.raises(InputError, match="has no class 'dog' .cat, wild"):
        find_images(afhq, class_name="dog")


def test_afhq_of_version_2_has_a_test_split(afhq):
    (afhq / "val").rename(afhq / "test")
    assert set(find_images(afhq, class_name="cat").splits) == {"train", "test"}


def test_one_name_in_two_splits_is_refused(afhq):
    touch(afhq, "val/wild/w0.jpg")
    with pytest.raises(InputError, match="val/wild/w0.jpg: has the same name as .*train/wild/w0"):
        find_images(afhq, class_name="wild")


def test_folder_of_folders(tmp_path):
    touch(tmp_path / "mine", "a/1.jpg", "b/2.jpg", "b/3.png")
    found = find_images(tmp_path / "mine", validation=1, test=1)
    assert found.layout == "folder"
    assert sorted(sum(stems(found).values(), [])) == ["1", "2", "3"]


def test_held_out_images(celebahq, afhq, ffhq):
    assert stems(held_out_images(celebahq)) == {"validation": ["1", "3", "4"]}
    assert stems(held_out_images(celebahq, count=2)) == {"validation": ["1", "3"]}
    assert stems(held_out_images(afhq, class_name="wild")) == {"validation": ["w2"]}
    assert len(held_out_images(ffhq).splits["validation"]) == 5
    with pytest.raises(InputError, match="--validation: 4 images asked for, the split has 3"):
        held_out_images(celebahq, count=4)


def test_numbers_without_a_split_to_give(ffhq):
    with pytest.raises(InputError, match="--validation, --test: all images go to train"):
        find_images(ffhq, test=3)
