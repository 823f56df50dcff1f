"""The job behind `interestyle masks`: images in, label maps and interest masks out."""

import collections
import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from interestyle_jax.data.images import (
    encode_png,
    is_image,
    list_images,
    read_image,
    save_image,
)
from interestyle_jax.data.layouts import list_tree
from interestyle_jax.errors import InputError
from interestyle_jax.interest.overlay import COLUMNS, ROWS, Tile, sheets
from interestyle_jax.interest.providers import MaskProvider, Masks, make_provider
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result, RunOptions
from interestyle_jax.jobs.run import run_job

# One network for all threads: these run on the device, or on all cores, by themselves.
SHARED = ("segformer", "detr", "graphonomy")
# It gives each of its devices an image; the others take one image at a time.
MANY_AT_A_TIME = ("graphonomy",)
PARTS = ("labels", "interest", "face")


def write_masks(
    images: str | Path | Sequence[Path],
    out: str | Path,
    *,
    provider: str,
    options: Mapping[str, Any] | None = None,
    tiny: float = 0.01,
    num_sheets: int = 10,
    **run: Unpack[RunOptions],
) -> dict[str, Any]:
    """Writes the masks of images; a second call continues where the first was stopped.

    Into `out`, for every image NAME: `labels/NAME.png` (indices of the provider's labels),
    `interest/NAME.png` and, where the provider knows faces, `face/NAME.png` (0 and 255, not
    dilated). Then `overlays/sheet_000.png` ... and `report.json`. See `run_job`.

    Args:
      images: a folder of images (those below it where it holds none itself), or their paths.
      out: the folder to write; one provider with one set of options a folder.
      provider: name of a provider.
      options: the provider's options, see `make_provider`.
      tiny: share of the image below which an interest region counts as tiny.
      num_sheets: sheets of 5 x 4 images at most, taken evenly from all; 0 for none.
      run: see `RunOptions`; of the images 0.01 may be unreadable or unpaired.

    Returns:
      The report.

    Raises:
      InputError: no images, two of one name, a bad option, too many images without masks, or
        an `out` that holds other things under these names.
      MachineError: the disk is full or fails.
    """
    if not 0 <= tiny <= 1:
        raise InputError(f"--tiny: {tiny}, expected a share from 0 to 1")
    out = Path(out)
    options = {k: v for k, v in (options or {}).items() if v is not None}
    job = MaskJob(provider, options, tiny=tiny, num_sheets=num_sheets)
    report = run_job(job, ImageFiles(_image_files(images, out)), out, **run)
    return report | {"new_images": report["num_new"]}


class MaskJob(ImageJob):
    """Images to masks."""

    command = "masks"

    def __init__(self, provider: str, options: Mapping[str, Any], *, tiny: float, num_sheets: int):
        """Makes the provider; raises InputError for what it lacks."""
        self._name, self._options, self._tiny = provider, dict(options), tiny
        self._num_sheets = num_sheets
        self._provider = make_provider(provider, **options)
        self._own = threading.local()
        several = provider in MANY_AT_A_TIME
        self._turn = contextlib.nullcontext() if several else threading.Lock()
        self._own.provider = self._provider
        self.options = {
            "provider": provider,
            "options": {name: _plain(value) for name, value in self._options.items()},
            "labels": list(self._provider.labels),
        }
        self.report_options = {"tiny": tiny, "num_sheets": num_sheets}

    def outputs(self, name: str) -> tuple[str, ...]:
        """PART/NAME.png."""
        return tuple(f"{part}/{name}.png" for part in PARTS)

    def load(self, item: Item) -> Masks:
        """The masks."""
        image = read_image(item.source)
        if self._name in SHARED:
            with self._turn:
                return self._provider(image, name=item.name)
        if not hasattr(self._own, "provider"):
            # Interpreters of small networks serve one thread each.
            self._own.provider = make_provider(self._name, **self._options)
        return self._own.provider(image, name=item.name)

    def save(self, item: Item, loaded: Masks, row: None) -> Result:
        """The files of an image, and its shares."""
        del row
        parts = {"labels": loaded.labels[..., None], "interest": loaded.interest}
        if loaded.face is not None:
            parts["face"] = loaded.face
        counts = np.bincount(loaded.labels.ravel())
        facts = {
            "interest": float((loaded.interest > 0).mean()),
            "face": None if loaded.face is None else float((loaded.face > 0).mean()),
            "labels": {int(i): float(n / loaded.labels.size) for i, n in enumerate(counts) if n},
        }
        return Result({f"{k}/{item.name}.png": encode_png(v) for k, v in parts.items()}, facts)

    def finish(self, out: Path, finished: Finished) -> dict[str, Any]:
        """Draws the sheets."""
        records = list(finished.records)
        report = _report(self._provider, records, self._tiny)
        return {
            **report,
            "skipped": [{"file": r["file"], "reason": r["skipped"]} for r in finished.skipped],
            "sheets": _write_sheets(out, records, self._num_sheets),
            "options": self.options["options"],
            "new_images": finished.num_new,
        }


def _image_files(images: str | Path | Sequence[Path], out: Path) -> list[Path]:
    if isinstance(images, str | Path):
        images = Path(images)
        if images.is_dir() and not any(map(is_image, images.iterdir())):
            below = out.absolute()
            return [p for p in list_tree(images) if below not in p.absolute().parents]
        return list_images(images)
    files = sorted(map(Path, images), key=lambda path: (path.stem, str(path)))
    for one, other in zip(files, files[1:], strict=False):
        if one.stem == other.stem:
            raise InputError(f"{other}: has the same name as {one} up to the suffix")
    if not files:
        raise InputError("images: no image given")
    return files


def _report(
    provider: MaskProvider, records: Sequence[Mapping[str, Any]], tiny: float
) -> dict[str, Any]:
    shares = np.array([record["interest"] for record in records])
    empty = [r["name"] for r in records if r["interest"] == 0]
    small = [r["name"] for r in records if 0 < r["interest"] < tiny]
    pixels: collections.Counter[int] = collections.Counter()
    images: collections.Counter[int] = collections.Counter()
    for record in records:
        for index, share in record["labels"].items():
            pixels[int(index)] += share
            images[int(index)] += 1
    count = max(1, len(records))
    return {
        "provider": provider.name,
        "num_images": len(records),
        "interest": {
            "mean_share": float(shares.mean()) if len(records) else None,
            "median_share": float(np.median(shares)) if len(records) else None,
            "empty": len(empty) / count,
            "tiny": len(small) / count,
            "tiny_below": tiny,
            "empty_images": empty,
            "tiny_images": small,
        },
        "labels": {
            provider.labels[index]: {
                "mean_share": round(pixels[index] / count, 6),
                "images": images[index],
            }
            for index in sorted(pixels)
        },
    }


def _write_sheets(out: Path, records: Sequence[Mapping[str, Any]], num_sheets: int) -> int:
    """Draws images taken evenly from all; sheets of an earlier run that are too many go."""
    places = min(len(records), max(0, num_sheets) * COLUMNS * ROWS)
    chosen = [records[i * len(records) // places] for i in range(places)]
    count = 0
    for start in range(0, places, COLUMNS * ROWS):
        tiles = [_tile(out, record) for record in chosen[start : start + COLUMNS * ROWS]]
        (sheet,) = sheets(tiles)
        (out / "overlays").mkdir(exist_ok=True)
        save_image(out / "overlays" / f"sheet_{count:03d}.png", sheet)
        count += 1
    for path in sorted((out / "overlays").glob("sheet_[0-9][0-9][0-9].png")):
        if int(path.stem.removeprefix("sheet_")) >= count:
            path.unlink()
    return count


def _tile(out: Path, record: Mapping[str, Any]) -> Tile:
    name = f"{record['name']}.png"
    face = read_image(out / "face" / name)[..., :1] if record["face"] is not None else None
    interest = read_image(out / "interest" / name)[..., :1]
    caption = f"{record['name']}  {100 * record['interest']:.1f} %"
    return Tile(read_image(record["file"]), interest, face, caption)


def _plain(value: Any) -> Any:
    """An option as JSON."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
