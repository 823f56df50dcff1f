"""What of a folder of masks is finished: `pictures.jsonl`, from which a stopped run goes on."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError

NAME = "pictures.jsonl"
FORMAT = "interestyle_jax masks"
PARTS = ("labels", "interest", "face")


def file_state(file: Path) -> dict[str, Any]:
    """What of a record tells whether a picture's file is the one it was."""
    state = file.stat()
    return {"file": str(file.absolute()), "bytes": state.st_size, "modified": state.st_mtime_ns}


class Progress:
    """The record of finished pictures in a folder of masks; a context that closes the file.

    The first line says which provider and options the folder belongs to. A line {"planned": names}
    comes before any of their files is written, so that files of these names are known as the
    command's own; then a line for each picture whose files are whole. A last line that was cut off
    counts as not written.
    """

    def __init__(self, out: Path, provider: str, options: Mapping[str, Any], labels: Sequence[str]):
        """Opens the folder, made where missing.

        Raises:
          InputError: `out` is no folder or not writable, belongs to another provider or other
            options, or holds things under the names that the command writes.
        """
        self.out, self._whole = out, 0
        self._planned: set[str] = set()
        self._done: dict[str, Any] = {}
        header = {
            "format": FORMAT,
            "provider": provider,
            "options": json.loads(json.dumps(dict(options), default=str, sort_keys=True)),
            "labels": list(labels),
        }
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: exists and is no folder, expected a folder for the masks")
        path = out / NAME
        if path.is_file():
            self._read(path, header)
        else:
            names = (*PARTS, "overlays", "report.json")
            there = [name for name in names if _holds_something(out / name)]
            if there:
                raise InputError(
                    f"{out / there[0]}: exists already and is not of this command, choose another "
                    "--out"
                )
        for part in PARTS[:2]:
            (out / part).mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        # Cuts off a line that was not written to its end.
        self._file.truncate(self._whole)
        if self._whole == 0:
            self._write([header])

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        # Of a provider that knows no face.
        with contextlib.suppress(OSError):
            (self.out / "face").rmdir()

    def waiting(self, files: Iterable[Path]) -> list[Path]:
        """The pictures that are not finished, or whose file has changed since.

        Raises:
          InputError: a file that the masks of one would replace is not of this command.
        """
        self._remove_unfinished()
        waiting = [file for file in files if not self._is_done(file)]
        new = [file.stem for file in waiting if file.stem not in self._planned]
        for name in new:
            for part in PARTS:
                target = self.out / part / f"{name}.png"
                if target.exists():
                    raise InputError(f"{target}: exists already and is not of this command")
        (self.out / "face").mkdir(exist_ok=True)
        if new:
            self._planned.update(new)
            self._write([{"planned": new}])
        return waiting

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Notes finished pictures, whose files are on the disk."""
        self._done.update({record["name"]: dict(record) for record in records})
        self._write(records)

    def records(self, files: Iterable[Path]) -> list[dict[str, Any]]:
        """The records of these pictures, in their order, without those that have none."""
        return [self._done[file.stem] for file in files if file.stem in self._done]

    def _remove_unfinished(self) -> None:
        """Deletes what `save_picture` was writing (".NAME.png.PROCESS") when a run was killed."""
        for part in PARTS:
            for path in (self.out / part).glob(".*.png.*"):
                if path.name.removeprefix(".").rsplit(".png.", 1)[0] in self._planned:
                    path.unlink()

    def _is_done(self, file: Path) -> bool:
        record = self._done.get(file.stem)
        if record is None:
            return False
        parts = PARTS if record["face"] is not None else PARTS[:2]
        is_whole = all((self.out / part / f"{file.stem}.png").is_file() for part in parts)
        same = file.exists() and file_state(file).items() <= record.items()
        if not (is_whole and same):
            del self._done[file.stem]
        return is_whole and same

    def _read(self, path: Path, header: Mapping[str, Any]) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                is_whole = line.endswith(b"\n") and isinstance(entry, dict)
            except ValueError:
                is_whole = False
            if not is_whole:
                if number == 0 and not line.startswith(b'{"format": "' + FORMAT.encode()):
                    raise InputError(f"{path}: is not of this command, choose another --out")
                if number + 1 < len(lines):
                    raise InputError(f"{path}: line {number + 1} is damaged, choose another --out")
                break
            if number == 0:
                _check_header(path, entry, header)
            elif "planned" in entry:
                self._planned.update(entry["planned"])
            else:
                self._done[entry["name"]] = entry
            self._whole += len(line)

    def _write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        for entry in entries:
            self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _check_header(path: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: is not of this command, choose another --out")
    for field in ("provider", "options", "labels"):
        if found.get(field) != header[field]:
            raise InputError(
                f"{path.parent}: holds masks with {field} {found.get(field)}, asked for "
                f"{header[field]}; choose another --out"
            )


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
