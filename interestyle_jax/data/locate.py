"""Where a data set lies: a directory, or a name below TFDS's own folder."""

import os
from pathlib import Path

from interestyle_jax.buckets import bucket_url, local_copy
from interestyle_jax.errors import InputError

INFO = "dataset_info.json"


def tfds_folder() -> Path:
    """$TFDS_DATA_DIR, or ~/tensorflow_datasets as TFDS has it."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _version(path: Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(int(p) for p in parts) if all(p.isdecimal() for p in parts) else (-1,)


def locate_data_set(name_or_dir: str | Path) -> Path:
    """The directory of a data set.

    Args:
      name_or_dir: an existing directory, a folder of a bucket ("gs://BUCKET/FOLDER", copied to
        this machine first, see `buckets.local_copy`), or a TFDS name ("avatars", "ffhq/256",
        "ffhq:1.0.0"); of several versions the newest is taken.

    Returns:
      The directory; one given as such is returned as it is, data set or not.

    Raises:
      InputError: there is no such directory, and no such name in `tfds_folder`.
    """
    if url := bucket_url(name_or_dir):
        return local_copy(url)
    path = Path(os.path.expanduser(name_or_dir))
    if path.is_dir():
        return path
    name, _, version = str(name_or_dir).partition(":")
    folder = tfds_folder() / name
    found = {p.parent for p in folder.glob(f"{version or '*'}/{INFO}")}
    if (folder / INFO).is_file():
        found.add(folder)
    if not found:
        raise InputError(
            f"{name_or_dir}: no such data set directory or folder of images, and no data set "
            f"of this name in {tfds_folder()}"
        )
    return max(found, key=_version)
