"""Noise buffers of generators whose files have none, drawn from a fixed seed."""

from collections.abc import Mapping

import numpy as np

# Recorded in `Conversion.extra`.
SEED = 0


def draw_missing(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Standard normal float32 arrays of these {key: shape}; none where `arrays` has one of them.

    The same numbers for the same shapes, whatever the machine.
    """
    if arrays.keys() & shapes.keys():
        return {}
    rng = np.random.default_rng(SEED)
    return {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
