"""Writes TFDS data sets (array_record, no TensorFlow): whole or not at all, in parallel."""

import contextlib
import io
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from interestyle_jax.errors import InputError


def check_picture(picture: np.ndarray, size: int, channels: int, what: str) -> np.ndarray:
    """Returns the picture; TFDS itself does not look at the shape of encoded pictures.

    Raises ValueError where it is not uint8 [size, size, channels].
    """
    if picture.dtype != np.uint8 or picture.shape != (size, size, channels):
        raise ValueError(
            f"{what}: {picture.dtype}{list(picture.shape)}, not uint8 [{size}, {size}, {channels}]"
        )
    return picture


def in_order(function: Callable, items: Sequence, *, workers: int, label: str) -> Iterator:
    """Yields function(item) for each item, in order, from `workers` processes (0: from this one).

    Processes are spawned, not forked, because the caller may hold JAX or Grain threads.
    """
    with contextlib.ExitStack() as stack:
        results: Iterator = map(function, items)
        if workers > 0:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            results = pool.imap(function, items, chunksize=16)
        yield from tqdm(results, total=len(items), desc=label, unit="picture", smoothing=0.05)


def write_dataset(
    make_builder: Callable[[str], tfds.core.DatasetBuilder], out: Path, *, force: bool = False
) -> Path:
    """Runs `make_builder(data_dir)` and moves the finished TFDS directory to `out`.

    Everything is written beside `out` under a temporary name and moved at the end, so `out` is
    either whole or absent; what an interrupted run left is removed by the next. Returns `out`.

    Raises InputError when `out` exists and `force` is not set, or when the disk refuses.
    """
    out = Path(out)
    check_free(out, force)
    temporary, old = out.with_name(f".{out.name}.incomplete"), out.with_name(f".{out.name}.old")
    tfds.disable_progress_bar()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        _remove(old)
        builder = make_builder(str(temporary))
        # TFDS would print the temporary directory's name as the place of the data set.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(
                    try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
                ),
            )
        if out.exists():
            out.rename(old)
        Path(builder.data_dir).rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        # array_record's C++ writer reports a full disk this way.
        _, failed, reason = str(error).partition("write() failed: ")
        if not failed:
            raise
        raise InputError(f"{out}: cannot be written: {reason.split(';')[0]}") from error
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        _remove(temporary)
        _remove(old)
    return out


def check_free(out: Path, force: bool) -> None:
    """Raises InputError when `out` exists and is not to be replaced, or is no data set."""
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out}: exists already; choose another --out or pass --force")
    if not (out / "dataset_info.json").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: is not a data set, so --force does not replace it")


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
