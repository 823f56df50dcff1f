"""Blocks whose insides are computed again in the backward pass instead of being kept."""

from typing import Any

import flax.linen as nn


def run_block(module: nn.Module, *arrays: Any, remat: bool, **options: Any) -> Any:
    """`module(*arrays, **options)`, which keeps only its arguments for the backward pass.

    Args:
      module: a block, bound.
      *arrays: what it is called with.
      remat: compute the inside again; without, this is a plain call.
      **options: keyword arguments, which may be other things than arrays.
    """

    def run(module, *arrays):
        return module(*arrays, **options)

    return (nn.remat(run) if remat else run)(module, *arrays)
