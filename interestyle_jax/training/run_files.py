"""Where the files of a run lie: a folder, or one of a bucket that a local folder is copied to."""

import shutil
import tempfile
from pathlib import Path

from etils import epath

from interestyle_jax.buckets import Bucket, bucket_url
from interestyle_jax.errors import InputError
from interestyle_jax.weights import METADATA

CHECKPOINTS, WEIGHTS = "checkpoints", "weights"
# Those of a bucket that a resumed run reads or continues.
_READ = ("config.json", "report.json", "metrics.jsonl")
_LAST = f"{WEIGHTS}/{METADATA}"


class RunFiles:
    """The folder of a run. In a bucket Orbax writes the checkpoints itself, `publish` the rest.

    Attributes:
      path: a local folder; of a run in a bucket one of its own, deleted by `close`.
      place: the folder or the address, for messages.
      checkpoints: where the checkpoints go, there or in the bucket.
    """

    def __init__(self, workdir: str | Path):
        """Reads what is in a bucket; a local folder need not exist.

        Raises:
          InputError: an address where runs cannot lie, no such bucket, or no rights to it.
          MachineError: the network fails.
        """
        url = bucket_url(workdir)
        self._bucket: Bucket | None = None
        if url is None:
            self.path = Path(workdir)
            self.place, self.checkpoints = str(workdir), self.path / CHECKPOINTS
            return
        if not url.startswith(("gs://", "memory://")):
            raise InputError(f"--workdir: {url}, expected a folder or gs://BUCKET/FOLDER")
        self.place, self.checkpoints = url, epath.Path(url) / CHECKPOINTS
        self._bucket = Bucket(url)
        self._bucket.require()
        found = self._bucket.listing()
        self._weights_there = _LAST in found
        self.path = Path(tempfile.mkdtemp(prefix="interestyle-run-"))
        self._bucket.download([name for name in _READ if name in found], self.path)
        self._published = self._state()

    def has_weights(self) -> bool:
        """Whether whole weights are there."""
        there = self._bucket is not None and self._weights_there
        return there or (self.path / WEIGHTS).exists()

    def publish(self) -> None:
        """Copies what is new to the bucket. Weights count as there once their metadata are: last.

        Raises:
          InputError: no rights.
          MachineError: the network failed, after the library's own repetitions.
        """
        if self._bucket is None:
            return
        state = self._state()
        changed = [name for name, facts in state.items() if self._published.get(name) != facts]
        weights = [name for name in state if name.startswith(f"{WEIGHTS}/")]
        if set(weights) & set(changed):
            self._replace_weights(weights)
        for name in changed:
            if name not in weights:
                self._bucket.upload(self.path / name, name)
        self._published = state

    def close(self) -> None:
        """Deletes the local folder of a run in a bucket."""
        if self._bucket is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def _replace_weights(self, names: list[str]) -> None:
        old = [name for name in self._bucket.listing() if name.startswith(f"{WEIGHTS}/")]
        self._bucket.delete([_LAST] if _LAST in old else [])
        for name in sorted(names, key=lambda name: name == _LAST):
            self._bucket.upload(self.path / name, name)
        self._bucket.delete(sorted(set(old) - set(names)))

    def _state(self) -> dict[str, tuple[int, int]]:
        files = sorted(p for p in self.path.rglob("*") if p.is_file())
        facts = {p.relative_to(self.path).as_posix(): p.stat() for p in files}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in facts.items()}
