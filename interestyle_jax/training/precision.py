"""Mixed precision: what is computed in bfloat16, and what is stored so.

Trained parameters, BatchNorm and its statistics, styles, demodulation, latents, RGB images,
losses and the optimizer are float32. Convolutions and their maps take the compute type.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from interestyle_jax.errors import InputError

PyTree = Any
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def compute_dtype(config: ml_collections.ConfigDict) -> jnp.dtype | None:
    """The type of `config.compute_dtype`; None for float32, that of everything else.

    Raises:
      InputError: another type.
    """
    if config.compute_dtype not in DTYPES:
        raise InputError(
            f"config.compute_dtype: expected one of {', '.join(DTYPES)}, "
            f"got {config.compute_dtype!r}"
        )
    return DTYPES[config.compute_dtype]


def store_frozen(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    """A frozen network's variables, with convolution kernels [K, K, I, O] in `dtype`.

    They are computed in that type anyway; all else keeps its own. None changes nothing.
    """
    if dtype is None:
        return tree

    def store(path, leaf):
        kernel = path[-1].key == "kernel" and np.ndim(leaf) == 4
        return np.asarray(leaf).astype(dtype) if kernel else leaf

    return jax.tree_util.tree_map_with_path(store, tree)
