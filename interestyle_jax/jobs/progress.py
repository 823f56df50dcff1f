"""What of an output folder is finished: `progress.jsonl`, from which a stopped job is resumed.

Each process appends to a file of its own: `progress.jsonl`, or `progress-00001-of-00004.jsonl` for
part 1 of 4. The first line says to which command and options the folder belongs. A line
{"planned": names} comes before the first file of these images, so that their files are known as
the command's own; then a line for every image whose files are whole, or that was skipped. A last
line that was cut off counts as not written; every line but the first has a checksum.
"""

import contextlib
import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.file_lock import locked
from interestyle_jax.jobs.shard import Shard
from interestyle_jax.json_file import parse_json, plain

FORMAT = "interestyle_jax job"
CHECKSUM = "crc32"
_FILE = re.compile(r"progress(-(\d{5,})-of-(\d{5,}))?\.jsonl")


class Progress:
    """The progress files of an output folder; a context that closes them.

    In memory is where each image's line lies, not what it says.
    """

    def __init__(self, out: Path, *, command: str, options: Mapping[str, Any], shard: Shard):
        """Opens the folder, made where missing, and takes hold of this part of it.

        Raises:
          InputError: `out` is no folder or not writable, belongs to another command or other
            options, is damaged, or another process writes this part or another division of it.
        """
        self.out = out
        self._count = shard.count
        self._planned: set[str] = set()
        self._outputs: Callable[[str], Iterable[str]] | None = None
        # Name -> (progress file, offset of the line in it, when it was written).
        self._lines: dict[str, tuple[Path, int, float]] = {}
        self._files: dict[Path, BinaryIO] = {}
        self._header = {
            "format": FORMAT,
            "command": command,
            "options": plain(dict(options)),
        }
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: exists and is no folder, expected a folder for the results")
        self._made = [folder for folder in (out, *out.parents) if not folder.exists()]
        suffix = "" if shard.count == 1 else f"-{shard.index:05d}-of-{shard.count:05d}"
        self.path = out / f"progress{suffix}.jsonl"
        self._made_file = not self.path.exists()
        self._own: BinaryIO | None = None
        try:
            self._read_others(shard)
            out.mkdir(parents=True, exist_ok=True)
            self._own = self.path.open("ab+")
            if not _lock(self._own):
                raise InputError(
                    f"{self.path}: another process is writing it; wait for its end, or give each "
                    "process a --shard of its own"
                )
            whole = self._read(self.path)
            # Cuts off a line that was not written to its end.
            if whole < self.path.stat().st_size:
                self._own.truncate(whole)
        except OSError as error:
            self.close()
            raise file_error(error, f"{out}: cannot be used as the output folder") from error
        except InputError:
            self.close()
            raise

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of this folder."""
        return not self._lines and not self._planned

    def plan(self, names: Iterable[str], outputs: Callable[[str], Iterable[str]]) -> None:
        """Notes images of which files, `outputs(name)` below the folder, will be written.

        Raises:
          InputError: a file that exists already and is not of this command.
        """
        self._outputs = outputs
        new = [name for name in names if name not in self._planned]
        self.refuse_existing(path for name in new for path in outputs(name))
        if new:
            self._planned.update(new)
            self.add([{"planned": new}])

    def refuse_existing(self, paths: Iterable[str]) -> None:
        """Raises InputError where one of these, below the folder, is there before the command."""
        for path in paths:
            if (self.out / path).exists():
                raise InputError(
                    f"{self.out / path}: exists already and is not of this command, choose "
                    "another --out"
                )

    def find(self, name: str) -> dict[str, Any] | None:
        """The last line of an image, or None."""
        if name not in self._lines:
            return None
        path, offset, _ = self._lines[name]
        if path not in self._files:
            self._files[path] = path.open("rb")
        self._files[path].seek(offset)
        return json.loads(self._files[path].readline())

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines and waits until they are on the disk; what they tell of is there already.

        Raises:
          InputError: the file may not be written.
          MachineError: the disk is full or fails.
        """
        now = round(time.time(), 3)
        try:
            offset = self._own.seek(0, os.SEEK_END)
            lines, found = [], {}
            if offset == 0:
                lines.append(json.dumps(self._header).encode() + b"\n")
                offset += len(lines[0])
            for entry in entries:
                if "name" in entry:
                    entry = {**entry, "at": now}
                    found[entry["name"]] = (self.path, offset, now)
                lines.append(checked_line(entry))
                offset += len(lines[-1])
            self._own.write(b"".join(lines))
            self._own.flush()
            os.fsync(self._own.fileno())
        except OSError as error:
            raise file_error(error, f"{self.path}: cannot be written") from error
        self._lines |= found

    def refresh(self) -> None:
        """Reads what other processes have written since."""
        for path in _progress_files(self.out):
            if path != self.path:
                self._read(path)

    def changed(self) -> int:
        """When a progress file was last changed, in nanoseconds; 0 where there is none."""
        states = [path.stat() for path in _progress_files(self.out)]
        return max((state.st_mtime_ns for state in states if state.st_size), default=0)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process of those that share the folder at a time."""
        if self._count == 1:
            yield
            return
        with locked(self.out / ".progress.lock"):
            yield

    def close(self) -> None:
        """Closes all files; what was made here goes where no image was finished."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._own is None:
            return
        is_empty = self._own.seek(0, os.SEEK_END) == 0
        if self._made_file and (is_empty or not (self._lines or self._has_outputs())):
            self.path.unlink(missing_ok=True)
        self._own.close()
        self._own = None
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _has_outputs(self) -> bool:
        """Whether a file was written of an image that no line tells of."""
        paths = (path for name in self._planned for path in self._outputs(name))
        return any((self.out / path).exists() for path in paths)

    def _read_others(self, shard: Shard) -> None:
        for path in _progress_files(self.out):
            if path == self.path:
                continue
            self._read(path)
            count = int(_FILE.fullmatch(path.name)[3] or 1)
            if count != shard.count and _is_locked(path):
                raise InputError(f"{path}: another process is writing it, in {count} parts")

    def _read(self, path: Path) -> int:
        """Notes the lines of a file; returns the length of its whole lines."""
        whole = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    entry = parse_json(line)
                    is_whole = line.endswith(b"\n") and isinstance(entry, dict)
                    # The first line is compared as it is.
                    is_whole = is_whole and (number == 0 or checked_line(entry) == line)
                except ValueError:
                    is_whole = False
                if not is_whole:
                    start = json.dumps(self._header).encode()
                    if number == 0 and not start.startswith(line.rstrip(b"\n")):
                        raise InputError(f"{path}: is not of this command, choose another --out")
                    if file.read(1):
                        raise InputError(
                            f"{path}: line {number + 1} is damaged, choose another --out"
                        )
                    break
                if number == 0:
                    self._check_header(path, entry)
                elif "planned" in entry:
                    self._planned.update(entry["planned"])
                elif "name" in entry and "at" in entry:
                    known = self._lines.get(entry["name"])
                    if known is None or known[0] == path or known[2] <= entry["at"]:
                        self._lines[entry["name"]] = (path, whole, entry["at"])
                else:
                    raise InputError(f"{path}: line {number + 1} is damaged, choose another --out")
                whole += len(line)
        return whole

    def _check_header(self, path: Path, found: Mapping[str, Any]) -> None:
        if found.get("format") != FORMAT:
            raise InputError(f"{path}: is not of this command, choose another --out")
        command, wanted = found.get("command"), self._header["command"]
        if command != wanted:
            raise InputError(
                f"{path.parent}: belongs to the command {command}, not {wanted}; choose another "
                "--out"
            )
        before, now = found.get("options"), self._header["options"]
        if not isinstance(before, dict):
            raise InputError(f"{path}: line 1 is damaged, choose another --out")
        for name in [*now, *before]:
            if before.get(name) != now.get(name):
                raise InputError(
                    f"{path.parent}: was begun with {name} {before.get(name)!r}, now it is "
                    f"{now.get(name)!r}; choose another --out or the old value"
                )


def checked_line(entry: Mapping[str, Any]) -> bytes:
    """An entry's line, with a checksum: another byte in it is damage, whatever it says."""
    text = json.dumps({name: value for name, value in entry.items() if name != CHECKSUM})
    checksum = f"{zlib.crc32(text.encode()):08x}"
    return json.dumps({**json.loads(text), CHECKSUM: checksum}).encode() + b"\n"


def _progress_files(out: Path) -> list[Path]:
    if not out.is_dir():
        return []
    return sorted(path for path in out.glob("progress*.jsonl") if _FILE.fullmatch(path.name))


def _lock(file: BinaryIO, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether this process now holds the file; true where the disk knows no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        return not _lock(file, fcntl.LOCK_SH)
