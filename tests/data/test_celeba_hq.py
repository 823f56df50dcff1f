"""CelebA-HQ's test images, through its list."""

import pytest

from interestyle_jax.data.celeba_hq import image_number, read_mapping, split_images
from interestyle_jax.errors import InputError

HEADING = "idx   orig_idx    orig_file"


def write(path, originals, *, heading=HEADING, more=""):
    lines = [f"{i:<6} {o:<8} {o + 1:06d}.jpg{more}" for i, o in enumerate(originals)]
    path.write_text("\n".join([heading, *lines] if heading else lines) + "\n")
    return path


@pytest.mark.parametrize("heading", [HEADING, ""])
@pytest.mark.parametrize("more", ["", "  0a1b2c  ffffff"])
def test_both_published_lists(tmp_path, heading, more):
    path = write(tmp_path / "list.txt", [119613, 99094, 200121], heading=heading, more=more)
    assert read_mapping(path) == {0: 119613, 1: 99094, 2: 200121}


def test_split_is_by_celeba_index(tmp_path):
    originals = [5, 162770, 162771, 182637, 182638, 202598]
    mapping = read_mapping(write(tmp_path / "list.txt", originals))
    images = [tmp_path / f"{i}.jpg" for i in (5, 3, 4, 0, 1, 2)]
    splits = split_images(images, mapping)
    found = {split: [path.stem for path in paths] for split, paths in splits.items()}
    assert found == {"train": ["0", "1"], "validation": ["2", "3"], "test": ["4", "5"]}


def test_names(tmp_path):
    names = ["7.jpg", "00007.png", "imgHQ00007.png"]
    assert [image_number(tmp_path / name) for name in names] == [7, 7, 7]
    with pytest.raises(InputError, match="face7.png: is not named as CelebA-HQ"):
        image_number(tmp_path / "face7.png")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.jpg", "2.jpg"], "2.jpg: number 2 is not in .* counted from 1?"),
        (["7.jpg"], "number 7 is not in CelebA-HQ's list$"),
        (["1.jpg", "00001.jpg"], "has the same number as"),
    ],
)
def test_images_that_do_not_fit(tmp_path, names, words):
    mapping = read_mapping(write(tmp_path / "list.txt", [1, 2]))
    with pytest.raises(InputError, match=words):
        split_images([tmp_path / name for name in names], mapping)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("idx orig_idx orig_file\n0 5\n", "line 2 is not"),
        ("0 5 000005.jpg\n", "line 1 has 000005.jpg for CelebA's index 5, expected 000006.jpg"),
        ("0 5 000006.jpg\n0 6 000007.jpg\n", "line 2 has index 0 again"),
    ],
)
def test_damaged_list(tmp_path, text, words):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        read_mapping(tmp_path / "list.txt")


def test_digits_that_are_no_numbers_are_told(tmp_path):
    (tmp_path / "list.txt").write_text(f"{HEADING}\n² 5 000006.jpg\n")
    with pytest.raises(InputError, match="line 2 is not 'INDEX CELEBA_INDEX CELEBA_FILE'"):
        read_mapping(tmp_path / "list.txt")
