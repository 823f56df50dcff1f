"""Results that appear in a folder together, or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from interestyle_jax.errors import InputError, MachineError, reason
from interestyle_jax.unfinished import unfinished_folder
from interestyle_jax.whole_files import sync

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A hidden folder inside `out`, whose files move into `out` when the block ends well.

    Where the block raises, what it wrote is deleted, and `out` too if it was made here. Files of
    the same name are replaced one by one; other files of `out` stay. What a killed process left in
    `out` is deleted.

    Raises:
      InputError: `out` exists and is no folder.
      MachineError: the disk is full.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: exists and is no folder, expected a folder for the results")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished_folder(out) as temporary:
            yield temporary
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            for file in files:
                sync(file)
            for file in files:
                target = out / file.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        # The system names no file where a write fails.
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            raise MachineError(f"{out}: cannot be written: {reason(error)}") from error
        raise
