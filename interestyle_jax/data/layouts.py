"""Where known data sets keep their images, and which split each image belongs to."""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np

from interestyle_jax.data import celeba_hq
from interestyle_jax.data.avatars.variation import Draws
from interestyle_jax.data.images import (
    is_image,
    list_images,
    no_image,
    tell_left_out,
)
from interestyle_jax.errors import InputError

LAYOUTS = ("folder", "ffhq", "celebahq", "afhq")
SPLITS = ("train", "validation", "test")
# How images come to splits: dealt by the seed, all to train, or as the data set's authors say.
DEALINGS = ("dealt", "train", "official")
FFHQ_IMAGES, FFHQ_TRAIN = 70_000, 60_000
CELEBAHQ_IMAGES = 30_000
_FFHQ_FOLDER = re.compile(r"\d{2}000")
_FFHQ_NAME = re.compile(r"\d{5}")
_AFHQ_FOLDERS = {"train": "train", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a data set.

    Attributes:
      layout: one of LAYOUTS.
      splits: {split: paths}, in a fixed order, none empty.
      notes: what is unusual about them, for the report.
    """

    layout: str
    splits: dict[str, list[Path]]
    notes: tuple[str, ...] = ()


def find_images(
    images: Path,
    *,
    layout: str = "auto",
    dealing: str | None = None,
    class_name: str | None = None,
    mapping: Path | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> Images:
    """Finds the images of a data set's directory and their splits.

    Args:
      images: the data set's directory, or the one that holds its images.
      layout: "folder" (images in one directory, or in those below it), "ffhq"
        (`images1024x1024/00000/00000.png`, or all in one directory), "celebahq"
        (`CelebA-HQ-img/0.jpg` beside the list that maps to CelebA), "afhq" (`train/wild`, and
        `val/wild` or `test/wild`), or "auto", which recognises them by these directories.
      dealing: one of DEALINGS. None: FFHQ's images all to train (StyleGAN, pSp and those after
        it train on all 70,000), CelebA-HQ and AFHQ as their authors say, a folder's dealt.
        "official" for FFHQ is the first 60,000 and the remaining 10,000.
      class_name: AFHQ's class; may be left out where there is one.
      mapping: CelebA-HQ's list; None: found beside the images.
      validation, test: numbers of images. Dealt: None is 5 % each, at least one. Official: the
        first so many of the split (None: all), 0 leaves the split out.
      seed: of the dealing.

    Raises InputError when the layout is not there, a name is not of the layout, two images have
    the same name up to the suffix, or the numbers do not fit.
    """
    images = Path(images)
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"layout: '{layout}' is none of auto, {', '.join(LAYOUTS)}")
    if dealing not in (None, *DEALINGS):
        raise InputError(f"splits: '{dealing}' is none of {', '.join(DEALINGS)}")
    if not images.exists():
        raise InputError(f"{images}: no such file or directory")
    layout = detect_layout(images) if layout == "auto" else layout
    if class_name is not None and layout != "afhq":
        raise InputError(f"{images}: has no classes (layout {layout}), so --class does not apply")
    if mapping is not None and layout != "celebahq":
        raise InputError(f"{images}: layout {layout} needs no --mapping, celebahq does")
    if layout == "celebahq":
        official, notes = _celebahq(images, mapping)
    elif layout == "afhq":
        official, notes = _afhq(images, class_name)
    else:
        official, notes = _ffhq(images) if layout == "ffhq" else _folder(images)
    if dealing is None:
        dealing = {"folder": "dealt", "ffhq": "train"}.get(layout, "official")
    if dealing == "official":
        if layout == "folder":
            raise InputError(f"{images}: a plain folder has no official splits")
        splits = _shortened(official, {"validation": validation, "test": test})
    else:
        together = [path for split in SPLITS for path in official.get(split, [])]
        if dealing == "train":
            if validation is not None or test is not None:
                raise InputError("--validation, --test: all images go to train here")
            splits = {"train": together}
        else:
            splits = _deal(together, validation, test, seed)
    _check_names(splits)
    return Images(layout, {s: splits[s] for s in SPLITS if splits.get(s)}, tuple(notes))


def held_out_images(
    images: Path,
    *,
    class_name: str | None = None,
    mapping: Path | None = None,
    count: int | None = None,
) -> Images:
    """Images to validate on, as the split "validation": the first `count` (None: all).

    Of CelebA-HQ they are its test images, of AFHQ those of `val` or `test`, else all of the
    directory. `class_name` and `mapping` apply where the layout has them.

    Raises InputError as `find_images`.
    """
    images = Path(images)
    layout = detect_layout(images)
    found = find_images(
        images,
        layout=layout,
        dealing="official" if layout in ("celebahq", "afhq") else "train",
        class_name=class_name if layout == "afhq" else None,
        mapping=mapping if layout == "celebahq" else None,
    )
    if layout == "celebahq":
        chosen = found.splits.get("test", [])
    elif layout == "afhq":
        chosen = found.splits.get("validation") or found.splits.get("test", [])
    else:
        chosen = found.splits["train"]
    if not chosen:
        raise InputError(f"{images}: has no test image of CelebA-HQ")
    splits = _shortened({"validation": chosen}, {"validation": count})
    if not splits["validation"]:
        raise InputError("--validation: 0 images asked for, expected 1 or more")
    return Images(layout, splits, found.notes)


def detect_layout(images: Path) -> str:
    """One of LAYOUTS, recognised by the directories that are there."""
    if not images.is_dir():
        return "folder"
    if (images / "images1024x1024").is_dir() or images.name == "images1024x1024":
        return "ffhq"
    if (images / "CelebA-HQ-img").is_dir() or images.name == "CelebA-HQ-img":
        return "celebahq"
    folders = {path.name for path in images.iterdir() if path.is_dir()}
    if "train" in folders and folders & {"val", "test"}:
        return "afhq"
    if folders and all(_FFHQ_FOLDER.fullmatch(name) for name in folders):
        return "ffhq"
    return "folder"


def list_tree(path: Path) -> list[Path]:
    """The images of a directory and of those below it, sorted by name up to the suffix.

    Raises InputError when there is none, or two have the same name up to the suffix, also in
    different directories.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such directory")
    found, others, seen = [], [], set()
    # Large data sets are often put together by links, which Path.rglob does not follow.
    for folder, below, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # A link to a folder around it, or a second one to the same folder.
            below.clear()
            continue
        seen.add(real)
        files = [Path(folder) / name for name in names]
        found += [p for p in files if is_image(p)]
        others += [p for p in files if not is_image(p)]
    if not found:
        raise no_image(path, others)
    tell_left_out(path, others)
    found.sort(key=lambda p: (p.stem, str(p)))
    for one, other in zip(found, found[1:], strict=False):
        if one.stem == other.stem:
            raise InputError(f"{other}: has the same name as {one} up to the suffix")
    return found


def _folder(images: Path) -> tuple[dict[str, list[Path]], list[str]]:
    files = list_images(images) if _is_flat(images) else list_tree(images)
    return {"train": files}, []


def _is_flat(folder: Path) -> bool:
    """Whether images lie in the folder itself, not in folders below it."""
    return folder.is_file() or any(is_image(path) for path in folder.iterdir())


def _ffhq(images: Path) -> tuple[dict[str, list[Path]], list[str]]:
    below = images / "images1024x1024"
    folder = below if below.is_dir() else images
    files = list_images(folder) if _is_flat(folder) else list_tree(folder)
    for path in files:
        if not _FFHQ_NAME.fullmatch(path.stem) or int(path.stem) >= FFHQ_IMAGES:
            raise InputError(f"{path}: is not named as FFHQ's images are, 00000 ... 69999")
    splits = {
        "train": [path for path in files if int(path.stem) < FFHQ_TRAIN],
        "validation": [path for path in files if int(path.stem) >= FFHQ_TRAIN],
    }
    return splits, _count_note("FFHQ", len(files), FFHQ_IMAGES)


def _celebahq(images: Path, mapping: Path | None) -> tuple[dict[str, list[Path]], list[str]]:
    below = images / "CelebA-HQ-img"
    folder = below if below.is_dir() else images
    listed = mapping or celeba_hq.find_mapping(folder)
    if listed is None:
        raise InputError(
            f"{folder}: {' or '.join(celeba_hq.MAPPINGS)} is neither in it nor above; "
            "give it as --mapping"
        )
    files = list_images(folder)
    splits = celeba_hq.split_images(files, celeba_hq.read_mapping(listed))
    return splits, _count_note("CelebA-HQ", len(files), CELEBAHQ_IMAGES)


def _afhq(images: Path, class_name: str | None) -> tuple[dict[str, list[Path]], list[str]]:
    splits: dict[str, list[Path]] = {}
    for folder, split in _AFHQ_FOLDERS.items():
        if not (images / folder).is_dir():
            continue
        classes = sorted(path.name for path in (images / folder).iterdir() if path.is_dir())
        if class_name is None and len(classes) != 1:
            raise InputError(
                f"{images / folder}: has the classes {', '.join(classes) or '(none)'}; "
                "choose one with --class"
            )
        chosen = class_name or classes[0]
        if chosen not in classes:
            raise InputError(f"{images / folder}: has no class '{chosen}' ({', '.join(classes)})")
        splits[split] = list_images(images / folder / chosen)
    if "train" not in splits or len(splits) == 1:
        raise InputError(f"{images}: is not laid out as AFHQ: train/CLASS and val|test/CLASS")
    return splits, []


def _check_names(splits: dict[str, list[Path]]) -> None:
    """Masks are found by name, so names differ between splits too."""
    seen: dict[str, Path] = {}
    for path in (path for paths in splits.values() for path in paths):
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise InputError(f"{path}: has the same name as {other} up to the suffix")


def _count_note(name: str, count: int, expected: int) -> list[str]:
    return [] if count == expected else [f"{count} of {name}'s {expected} images are there"]


def _shortened(
    splits: dict[str, list[Path]], wanted: dict[str, int | None]
) -> dict[str, list[Path]]:
    result = dict(splits)
    for split, count in wanted.items():
        if count is None:
            continue
        there = len(splits.get(split, []))
        if not 0 <= count <= there:
            raise InputError(f"--{split}: {count} images asked for, the split has {there}")
        result[split] = splits.get(split, [])[:count]
    return result


def _deal(
    images: list[Path], validation: int | None, test: int | None, seed: int
) -> dict[str, list[Path]]:
    count = len(images)
    share = max(1, round(0.05 * count))
    sizes = [share if wanted is None else wanted for wanted in (validation, test)]
    if min(sizes) < 0 or sum(sizes) >= count:
        raise InputError(
            f"{count} images cannot give {sizes[0]} for validation, {sizes[1]} for test and "
            "some for training: set --validation and --test"
        )
    order = np.argsort(Draws(seed).array(count), kind="stable").tolist()
    cuts = [0, sizes[0], sizes[0] + sizes[1]]
    chosen = {
        "train": order[cuts[2] :], "validation": order[: cuts[1]], "test": order[cuts[1] : cuts[2]],
    }  # fmt: skip
    return {split: [images[i] for i in sorted(indices)] for split, indices in chosen.items()}
