"""Results that appear in a folder together, or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from interestyle_jax.errors import InputError


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A hidden folder inside `out`, whose files move into `out` when the block ends well.

    Where the block raises, what it wrote is deleted, and `out` too if it was made here. Files of
    the same name are replaced one by one; other files of `out` stay.

    Raises:
      InputError: `out` exists and is no folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: exists and is no folder, expected a folder for the results")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".interestyle-", dir=out))
    try:
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        for file in files:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        for file in files:
            target = out / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    shutil.rmtree(temporary, ignore_errors=True)
