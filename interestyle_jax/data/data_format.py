"""The version of what data sets hold, and which versions are read."""

from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError

# In every shard's key, the manifest and (as N.0.0) TFDS's version.
# 1: photographs scaled by Lanczos, masks by area. 2: both by `images.resize_image`.
FORMAT = 2
OWN = ("avatars", "photos")


def check_format(directory: str | Path, info: Any) -> None:
    """Raises InputError for a data set of `interestyle data` that this version does not read.

    Avatars are drawn at their size, so they are the same in format 1; data sets of others are read
    as they are.

    Args:
      directory: for the message.
      info: TFDS's `DatasetInfo`.
    """
    if info.name not in OWN:
        return
    version = int(info.version.major)
    if version > FORMAT:
        raise InputError(
            f"{directory}: is of data format {version}, made by a newer version; this one reads up "
            f"to {FORMAT}"
        )
    if info.name == "photos" and version < 2:
        raise InputError(
            f"{directory}: is of data format {version}, whose images were scaled by another "
            f"filter (Lanczos) than inversion's; make it again: interestyle data --force ..."
        )
