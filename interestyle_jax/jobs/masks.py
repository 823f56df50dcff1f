"""The job behind `interestyle masks`: images in, label maps and interest masks out."""

import collections
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from interestyle_jax.data.images import encode_png, is_image, read_image, save_image
from interestyle_jax.data.layouts import list_tree
from interestyle_jax.errors import InputError
from interestyle_jax.interest.overlay import COLUMNS, ROWS, Tile, sheets
from interestyle_jax.interest.providers import Masks, make_provider
from interestyle_jax.jobs.image_files import ImageFiles
from interestyle_jax.jobs.job import Finished, ImageJob, Item, Result, RunOptions
from interestyle_jax.jobs.run import run_job
from interestyle_jax.json_file import plain

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
    report = run_job(job, _image_files(images, out), out, **run)
    return report | {"new_images": report["num_new"]}


class MaskJob(ImageJob):
    """Images to masks."""

    command = "masks"

    def __init__(self, provider: str, options: Mapping[str, Any], *, tiny: float, num_sheets: int):
        """Makes the provider; raises InputError for what it lacks."""
        self._provider = make_provider(provider, **options)
        self.options = {
            "provider": provider,
            "options": plain(dict(options)),
            "labels": list(self._provider.labels),
        }
        self.report_options = {"tiny": tiny, "num_sheets": num_sheets}

    def outputs(self, name: str) -> tuple[str, ...]:
        """PART/NAME.png."""
        return tuple(f"{part}/{name}.png" for part in PARTS)

    def load(self, item: Item) -> Masks:
        """The masks."""
        return self._provider(read_image(item.source), name=item.name)

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
        return {
            "provider": self._provider.name,
            "interest": _interest(records, self.report_options["tiny"]),
            "labels": _labels(records, self._provider.labels),
            "skipped": [{"file": r["file"], "reason": r["skipped"]} for r in finished.skipped],
            "sheets": _write_sheets(out, records, self.report_options["num_sheets"]),
            "options": self.options["options"],
            "new_images": finished.num_new,
        }


def _image_files(images: str | Path | Sequence[Path], out: Path) -> ImageFiles:
    if isinstance(images, str | Path):
        folder = Path(images)
        if not folder.is_dir() or any(map(is_image, folder.iterdir())):
            return ImageFiles(folder)
        below = out.absolute()
        return ImageFiles([p for p in list_tree(folder) if below not in p.absolute().parents])
    files = sorted(map(Path, images), key=lambda path: (path.stem, str(path)))
    if not files:
        raise InputError("images: no image given")
    for one, other in itertools.pairwise(files):
        if one.stem == other.stem:
            raise InputError(f"{other}: has the same name as {one} up to the suffix")
    return ImageFiles(files)


def _interest(records: Sequence[Mapping[str, Any]], tiny: float) -> dict[str, Any]:
    """How large interest regions are, as shares of their images."""
    shares = {record["name"]: record["interest"] for record in records}
    empty = [name for name, share in shares.items() if share == 0]
    small = [name for name, share in shares.items() if 0 < share < tiny]
    sizes = np.array(list(shares.values()))
    return {
        "mean_share": float(sizes.mean()),
        "median_share": float(np.median(sizes)),
        "empty": len(empty) / len(records),
        "tiny": len(small) / len(records),
        "tiny_below": tiny,
        "empty_images": empty,
        "tiny_images": small,
    }


def _labels(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """{label: its share of all images, and how many have it} of those that were found."""
    found = collections.defaultdict(list)
    for record in records:
        for index, share in record["labels"].items():
            found[int(index)].append(share)
    return {
        names[index]: {"mean_share": round(sum(own) / len(records), 6), "images": len(own)}
        for index, own in sorted(found.items())
    }


def _write_sheets(out: Path, records: Sequence[Mapping[str, Any]], num_sheets: int) -> int:
    """Draws images taken evenly from all; sheets of an earlier run that are too many go."""
    places = min(len(records), max(0, num_sheets) * COLUMNS * ROWS)
    chosen = (records[i * len(records) // places] for i in range(places))
    folder, count = out / "overlays", 0
    for sheet in sheets(_tile(out, record) for record in chosen):
        folder.mkdir(exist_ok=True)
        save_image(folder / f"sheet_{count:03d}.png", sheet)
        count += 1
    for path in folder.glob("sheet_[0-9][0-9][0-9].png"):
        if int(path.stem.removeprefix("sheet_")) >= count:
            path.unlink()
    return count


def _tile(out: Path, record: Mapping[str, Any]) -> Tile:
    name = f"{record['name']}.png"
    face = read_image(out / "face" / name)[..., :1] if record["face"] is not None else None
    interest = read_image(out / "interest" / name)[..., :1]
    caption = f"{record['name']}  {100 * record['interest']:.1f} %"
    return Tile(read_image(record["file"]), interest, face, caption)
