"""Muon, which orthogonalises the updates of kernels, with Nadam for what is no kernel."""

from typing import Any

import jax
import optax
import optax.contrib


def muon(
    learning_rate: optax.ScalarOrSchedule,
    *,
    adam_learning_rate: optax.ScalarOrSchedule,
    b2: float = 0.99,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for kernels [in, out] and [H, W, in, out], Nadam for the rest.

    Kernels to three channels, biases, norms and learnt inputs are Nadam's. The root mean square of
    Muon's updates is 0.2 of the learning rate, about Adam's. `weight_decay` is decoupled and for
    Muon's kernels alone: before a batch norm nothing else bounds their size.
    """

    def dimensions(params: Any) -> Any:
        def one(path: Any, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
            is_kernel = getattr(path[-1], "key", None) == "kernel" and leaf.shape[-1] > 3
            if not is_kernel:
                return None
            return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

        return jax.tree_util.tree_map_with_path(one, params)

    return optax.contrib.muon(
        learning_rate,
        muon_weight_dimension_numbers=dimensions,
        consistent_rms=0.2,
        weight_decay=weight_decay,
        adam_b2=b2,
        adam_learning_rate=adam_learning_rate,
    )
