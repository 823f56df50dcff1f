"""CelebA-HQ's splits: those of CelebA, through the list that maps one index to the other."""

import re
from pathlib import Path

from interestyle_jax.errors import InputError, file_error

# Names under which the list is published: CelebAMask-HQ's, and that of the original CelebA-HQ.
MAPPINGS = ("CelebA-HQ-to-CelebA-mapping.txt", "image_list.txt")
# Index (from 0) in CelebA of the first validation and the first test image, as in CelebAMask-HQ's
# face_parsing/Data_preprocessing/g_partition.py. Of CelebA-HQ's 30,000 images 24,183 are
# training, 2,993 validation and 2,824 test images then.
FIRST_VALIDATION, FIRST_TEST = 162771, 182638
_NUMBER = re.compile(r"(?:imgHQ)?(\d{1,5})")


def read_mapping(path: Path) -> dict[int, int]:
    """Reads {index in CelebA-HQ: index in CelebA}, both from 0.

    The lines are "INDEX CELEBA_INDEX CELEBA_FILE ..."; a heading line is passed over.

    Raises InputError naming the line where it is not of this form, where CELEBA_FILE is not the
    file of CELEBA_INDEX (CelebA counts its files from 000001.jpg), or where an index comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise file_error(error, f"{path}: cannot be read") from error
    mapping: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or (number == 1 and not words[0].isdecimal()):
            continue
        if len(words) < 3 or not (words[0].isdecimal() and words[1].isdecimal()):
            raise InputError(f"{path}: line {number} is not 'INDEX CELEBA_INDEX CELEBA_FILE'")
        index, original = int(words[0]), int(words[1])
        if Path(words[2]).stem != f"{original + 1:06d}":
            raise InputError(
                f"{path}: line {number} has {words[2]} for CelebA's index {original}, expected "
                f"{original + 1:06d}.jpg"
            )
        if index in mapping:
            raise InputError(f"{path}: line {number} has index {index} again")
        mapping[index] = original
    if not mapping:
        raise InputError(f"{path}: is empty, expected 'INDEX CELEBA_INDEX CELEBA_FILE' lines")
    return mapping


def find_mapping(images: Path) -> Path | None:
    """The list in a folder of images or the one above it, or None."""
    for folder in (images, images.parent):
        for name in MAPPINGS:
            if (folder / name).is_file():
                return folder / name
    return None


def image_number(path: Path) -> int:
    """The index in CelebA-HQ that an image's name holds: 123.jpg, 00123.png, imgHQ00123.png.

    Raises InputError for another name.
    """
    match = _NUMBER.fullmatch(path.stem)
    if match is None:
        raise InputError(f"{path}: is not named as CelebA-HQ's images are, expected e.g. 123.jpg")
    return int(match[1])


def split_images(images: list[Path], mapping: dict[int, int]) -> dict[str, list[Path]]:
    """Deals images to train, validation and test, each in the order of their numbers.

    Raises InputError when a number is not in the mapping (names that count from 1, as some copies
    have, end one past it), or comes twice.
    """
    numbered: dict[int, Path] = {}
    for path in images:
        number = image_number(path)
        if number not in mapping:
            hint = "; are its names counted from 1?" if number == len(mapping) else ""
            raise InputError(f"{path}: number {number} is not in CelebA-HQ's list{hint}")
        other = numbered.setdefault(number, path)
        if other is not path:
            raise InputError(f"{path}: has the same number as {other}")
    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for number in sorted(numbered):
        original = mapping[number]
        if original >= FIRST_TEST:
            splits["test"].append(numbered[number])
        elif original >= FIRST_VALIDATION:
            splits["validation"].append(numbered[number])
        else:
            splits["train"].append(numbered[number])
    return splits
