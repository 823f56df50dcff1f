"""Batches of numbers alone, for tasks that read no data set."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from interestyle_jax.errors import InputError


class NumberedBatches:
    """Endless batches {'id': int64 [b]} of ascending numbers; the position is one number.

    As `pipeline.TrainingBatches`: `rows` are those of the global batch that this process has.
    """

    def __init__(self, batch_size: int, rows: Sequence[int], *, seed: int):
        self._batch_size, self._rows, self._next = batch_size, np.array(rows, np.int64), 0
        self._facts = {"seed": seed, "num_examples": 0}

    def __iter__(self) -> "NumberedBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        start, self._next = self._next, self._next + self._batch_size
        return {"id": start + self._rows}

    def get_state(self) -> dict:
        """The position as a JSON-able dict."""
        return {"global_next_index": self._next, **self._facts}

    def set_state(self, state: Mapping) -> None:
        """Goes to a position; raises InputError where it is of another run."""
        for name, value in self._facts.items():
            if state.get(name) != value:
                raise InputError(
                    f"data state: {name} was {state.get(name)} when it was saved and is {value} now"
                )
        self._next = int(state["global_next_index"])

    def close(self) -> None:
        """Nothing is open."""


def numbered_evaluation(
    batch_size: int, rows: Sequence[int], *, num_samples: int
) -> Iterator[dict[str, np.ndarray]]:
    """As `pipeline.evaluation_batches`, of numbers alone: 'id' [b] and 'valid' [batch_size]."""
    for start in range(0, num_samples, batch_size):
        numbers = np.arange(start, start + batch_size)
        yield {"id": numbers[np.array(rows)], "valid": numbers < num_samples}
