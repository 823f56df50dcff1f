"""Folders in buckets, gs://BUCKET/FOLDER and s3://BUCKET/FOLDER, by fsspec; and on the Hub.

What is read is copied whole to this machine first. What is written appears object by object, each
whole or not at all; a folder counts as there once its last object is.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from interestyle_jax.errors import InputError, MachineError, reason
from interestyle_jax.unfinished import unfinished_folder

# The extra that brings each scheme's package.
EXTRAS = {"gs": "gcs", "s3": "s3"}
HUB = "hf"
# A Path makes one slash of two.
_URL = re.compile(r"(gs|s3|hf|memory):/{1,2}(?=[^/])")
_RIGHTS = re.compile(
    r"forbidden|permission|unauthorized|access ?denied|unauthenticated|\b40[13]\b", re.IGNORECASE
)
_MISSING = re.compile(r"not[ _]?found|no such|\b404\b", re.IGNORECASE)
Result = TypeVar("Result")


def bucket_url(path: str | os.PathLike) -> str | None:
    """The address in a bucket or on the Hub that a path means, without a slash at its end."""
    text = os.fspath(path)
    match = _URL.match(text)
    return None if match is None else f"{match[1]}://{text[match.end() :].rstrip('/')}"


def bucket_error(error: BaseException, message: str) -> InputError | MachineError:
    """What to raise where `error` ended the work on a bucket: "`message`: reason".

    An InputError where rights or the bucket are missing, else a MachineError: the network failed.
    """
    words, chain = [], error
    while chain is not None:
        # What follows are pages of advice.
        first = (str(chain).strip().splitlines() or [""])[0]
        words.append(f"{type(chain).__name__} {first}")
        chain = chain.__cause__
    text = " ".join(words)
    if _RIGHTS.search(text):
        return InputError(f"{message}: no rights to it: {_first_line(error)}")
    if isinstance(error, FileNotFoundError) or _MISSING.search(text):
        return InputError(f"{message}: not found: {_first_line(error)}")
    return MachineError(f"{message}: {_first_line(error)}")


def local_copy(url: str) -> Path:
    """A folder of a bucket or of the Hub on this machine, copied once while it stays as it is.

    Args:
      url: as `bucket_url` gives it; "hf://OWNER/NAME[@REVISION]" is a repository of the Hub.

    Returns:
      A folder below $INTERESTYLE_CACHE or ~/.cache/interestyle_jax, or the Hub's own cache.

    Raises:
      InputError: the package is missing, no such folder, or no rights to it.
      MachineError: the network or the disk fails.
    """
    if url.startswith(f"{HUB}://"):
        return _hub_copy(url)
    folder = Bucket(url)
    found = folder.listing()
    if not found:
        raise InputError(f"{url}: no such folder, or an empty one")
    # Names, sizes and what the bucket has for versions.
    facts = [[name, *(str(entry.get(k)) for k in _VERSION)] for name, entry in found.items()]
    digest = hashlib.sha256(repr((url, facts)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("INTERESTYLE_CACHE", "~/.cache/interestyle_jax")).expanduser()
    # The name of the folder is that of weights and data sets in reports.
    place = cache / digest / url.rpartition("/")[2]
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(place.parent, name=place.name) as unfinished:
        folder.download(found, unfinished)
        try:
            os.rename(unfinished, place)
        except OSError:
            # Another process was faster.
            if not place.is_dir():
                raise
    return place


_VERSION = ("size", "etag", "ETag", "md5Hash", "generation", "mtime", "LastModified")


class Bucket:
    """A folder of a bucket."""

    def __init__(self, url: str):
        """Finds the file system; raises InputError without its package or rights."""
        self.url = url
        scheme = url.partition("://")[0]
        try:
            import fsspec

            self._files, self._root = self._try(lambda: fsspec.core.url_to_fs(url))
        except ImportError as error:
            extra = EXTRAS.get(scheme, scheme)
            raise InputError(
                f"{url}: needs another package: pip install 'interestyle_jax[{extra}]' ({error})"
            ) from error

    def require(self) -> None:
        """Raises InputError where the bucket itself is not there: none is made."""
        bucket = self._root.strip("/").partition("/")[0]
        try:
            self._try(lambda: self._files.ls(bucket, refresh=True))
        except FileNotFoundError as error:
            raise InputError(f"{self.url}: no such bucket") from error

    def listing(self) -> dict[str, dict[str, Any]]:
        """{name below the folder: facts of the object}, sorted; {} where there is none."""

        def find() -> dict[str, dict[str, Any]]:
            self._files.invalidate_cache()
            return self._files.find(self._root, detail=True)

        try:
            found = self._try(find)
        except FileNotFoundError:
            return {}
        start = len(self._root.rstrip("/")) + 1
        return {path[start:]: facts for path, facts in sorted(found.items()) if path[start:]}

    def exists(self, name: str) -> bool:
        """Whether an object is there."""
        return self._try(lambda: self._files.exists(self._at(name), refresh=True))

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Copies objects into a folder, under their names."""
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise InputError(f"{self.url}: holds an object of the name {name!r}")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._try(lambda: self._files.get_file(self._at(name), str(target)))  # noqa: B023

    def upload(self, file: Path, name: str) -> None:
        """Copies a file, whole or not at all, in place of an object of that name."""
        self._try(lambda: self._files.put_file(str(file), self._at(name)))

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects that are there."""
        for name in names:
            self._try(lambda: self._files.rm_file(self._at(name)))  # noqa: B023

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except (FileNotFoundError, ImportError, InputError, MachineError):
            raise
        # Each file system raises errors of its own libraries.
        except Exception as error:
            raise bucket_error(error, self.url) from error


def _hub_copy(url: str) -> Path:
    name, _, revision = url.partition("://")[2].partition("@")
    if name.count("/") != 1:
        raise InputError(f"{url}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{url}: needs the package huggingface_hub: pip install 'interestyle_jax[hub]' "
            f"({error})"
        ) from error
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            # Read now, not when that package was imported.
            endpoint=os.environ.get("HF_ENDPOINT"),
            cache_dir=os.environ.get("HF_HUB_CACHE"),
        )
        return Path(folder)
    except Exception as error:
        raise bucket_error(error, url) from error


def _first_line(error: BaseException) -> str:
    return reason(error) if not isinstance(error, OSError) or error.errno else _words(error)


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:200] or type(error).__name__
