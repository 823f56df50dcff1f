"""Batches of a data set: for training (shuffled, endless, restorable) and for evaluation."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from interestyle_jax.data.data_set import Examples
from interestyle_jax.data.workers import UNGUARDED, end_unguarded_worker
from interestyle_jax.errors import InputError, MachineError


class _Flip(grain.transforms.RandomMap):
    """Mirrors all images and masks of an example together, half of the time."""

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        if rng.random() < 0.5:
            return element
        return {
            name: np.ascontiguousarray(value[:, ::-1])
            if isinstance(value, np.ndarray) and value.ndim == 3
            else value
            for name, value in element.items()
        }


class _Rows(grain.MapDataset):
    """Some rows of every batch of a data set: example i is row `rows[i % b]` of batch i // b."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        super().__init__(parent)
        self._batch_size, self._rows = batch_size, tuple(rows)

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[row]]


class TrainingBatches:
    """Endless iterator over shuffled batches whose position is one number.

    The position counts examples of the whole run over all processes, so it can be restored by
    another number of processes. `close` ends the reading threads; the iterator is a context
    manager too.
    """

    def __init__(self, batches: "grain.experimental.ElasticIterator", processes: int, facts: dict):
        self._batches, self._processes, self._facts = batches, processes, facts
        self._lock = threading.Lock()
        self._has_begun = False

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            with self._lock:
                batch = next(self._batches)
        except RuntimeError as error:
            # Grain's word for it; any other is no matter of processes.
            if "Worker process was terminated" not in str(error):
                raise
            # A worker that imports a script without a main guard ends before its first batch.
            if not self._has_begun:
                raise InputError(UNGUARDED) from error
            raise MachineError("a worker process that reads images died") from error
        self._has_begun = True
        return batch

    def get_state(self) -> dict:
        """The position as a JSON-able dict, with the facts that must hold when it is restored."""
        with self._lock:
            own = int(self._batches.get_state()["global_next_index"])
        return {"global_next_index": own * self._processes, **self._facts}

    def set_state(self, state: Mapping) -> None:
        """Goes to a position: the next batches equal bit for bit those that followed `get_state`.

        Raises InputError when the state is of another seed or data set size.
        """
        for name, value in self._facts.items():
            if state.get(name) != value:
                raise InputError(
                    f"data state: {name} was {state.get(name)} when it was saved and is {value} now"
                )
        own = int(state["global_next_index"]) // self._processes
        with self._lock:
            self._batches.set_state({"global_next_index": own})

    def close(self) -> None:
        """Ends the reading threads and processes."""
        self._batches.close()

    def __enter__(self) -> "TrainingBatches":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def training_batches(
    data_dir: str | Path,
    split: str,
    *,
    batch_size: int,
    seed: int,
    fields: Sequence[str] = ("image", "interest_mask"),
    flip: bool = True,
    num_workers: int = 0,
    rows: Sequence[int] | None = None,
    cache: bool = True,
) -> TrainingBatches:
    """Endless shuffled batches of a split; each epoch has its own order, drawn from `seed`.

    Yields {field: uint8 [b, H, W, C]} and 'id' int64 [b]: the rows of the global batch that this
    process reads, all of them where `rows` is None. What the global batch holds does not depend on
    how its rows are shared out. With `flip` images and masks are mirrored together, half of the
    time, by a draw that depends on the seed and the position alone. `num_workers` processes decode
    (0: threads of this process; then images stay decoded in memory if they take < 2 GiB and
    `cache` is set).

    Raises InputError when the data set, the split or a field is missing, or when a row is not one
    of the batch, or when the number of rows does not divide it; and at the first batch where no
    process can start, because the caller's script has no main guard.
    """
    if num_workers > 0:
        end_unguarded_worker()
    rows = range(batch_size) if rows is None else rows
    if (
        batch_size < 1
        or not rows
        or batch_size % len(rows)
        or not set(rows) <= {*range(batch_size)}
    ):
        raise InputError(f"batch_size: {batch_size} cannot be shared out by rows {list(rows)}")
    examples = Examples(data_dir, split, fields, cache=cache and num_workers == 0)
    dataset = grain.MapDataset.source(examples).seed(seed).shuffle().repeat()
    if flip:
        dataset = dataset.random_map(_Flip())
    if len(rows) < batch_size:
        dataset = _Rows(dataset, batch_size, rows)
    processes = None
    if num_workers > 0:
        # Grain's worker processes read absl flags, which a library user may not have parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        processes = grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
    batches = grain.experimental.ElasticIterator(
        dataset,
        len(rows),
        grain.sharding.ShardOptions(shard_index=0, shard_count=1),
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * len(rows)),
        multiprocessing_options=processes,
    )
    facts = {"seed": seed, "num_examples": len(examples), "flip": flip}
    return TrainingBatches(batches, batch_size // len(rows), facts)


def evaluation_batches(
    data_dir: str | Path,
    split: str,
    *,
    batch_size: int,
    fields: Sequence[str],
    num_samples: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The first `num_samples` examples of a split (None: all) in order, in batches of one shape.

    Yields {field: array [b, ...]} and 'id' int64 [b] of these `rows` of the batch (None: all), and
    'valid' bool [batch_size] of the whole batch; the last batch is filled up with copies of its
    last example, valid = False. Text fields, also labels as 'labels/NAME', come as arrays of str.

    Raises InputError when the data set, the split or a field is missing, or a number is < 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size}, expected at least 1")
    if num_samples is not None and num_samples < 1:
        raise InputError(f"num_samples: {num_samples}, expected at least 1")
    examples = Examples(data_dir, split, fields, cache=False)
    count = len(examples) if num_samples is None else min(num_samples, len(examples))
    return _in_batches(examples, count, batch_size, range(batch_size) if rows is None else rows)


def _in_batches(
    examples: Examples, count: int, batch_size: int, rows: Sequence[int]
) -> Iterator[dict]:
    for start in range(0, count, batch_size):
        valid = np.arange(start, start + batch_size) < count
        read = {i: examples[i] for i in {min(start + row, count - 1) for row in rows}}
        own = [read[min(start + row, count - 1)] for row in rows]
        batch = {field: np.stack([np.asarray(one[field]) for one in own]) for field in own[0]}
        yield {**batch, "id": batch["id"].astype(np.int64), "valid": valid}


def normalize(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """uint8 images [B, H, W, 3] -> float32 in [-1, 1]; masks [B, H, W, 1] -> float32 in [0, 1].

    Masks are the fields with 'mask' in their name. Pure, to be used inside jit; what is not
    uint8 is left as it is.
    """
    result = dict(batch)
    for name, value in batch.items():
        if value.dtype == jnp.uint8:
            # Exact integers up to the one rounded factor, so 0 and 255 end at the exact bounds.
            whole = value.astype(jnp.float32)
            result[name] = (whole if "mask" in name else 2.0 * whole - 255.0) * (1.0 / 255.0)
    return result
