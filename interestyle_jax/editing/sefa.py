"""Directions from the generator's weights alone: SeFa.

The directions of w that move the styles of some layers most are the eigenvectors of A A^T, where A
has these layers' style matrices side by side. Source: SeFa (Shen and Zhou 2021) section 3.2 and
`sefa.py`: each column of A has unit length.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError


def style_matrices(parameters: Mapping[str, Any]) -> list[Float[np.ndarray, "D C"]]:
    """The style matrices of the convolutions that draw, one for each row of `w_plus` but the last.

    Those of toRGB, which share a row with the next convolution, are left out.

    Args:
      parameters: `params` of a `models.stylegan2.Generator`.
    """
    sizes = sorted(int(name[3:]) for name in parameters if name.startswith("up_"))
    names = ["conv_4", *(f"{kind}_{size}" for size in sizes for kind in ("up", "conv"))]
    return [np.asarray(parameters[name]["conv"]["modulation"]["kernel"]) for name in names]


def sefa(
    parameters: Mapping[str, Any], *, rows: Sequence[int], count: int
) -> tuple[Float[np.ndarray, "count D"], Float[np.ndarray, " count"]]:
    """The unit directions that move the styles of some rows most.

    Args:
      parameters: see `style_matrices`.
      rows: of `w_plus`; the last one draws toRGB alone and is left out.
      count: how many directions.

    Returns:
      Directions [count, D], the strongest first, and their eigenvalues as shares of all.

    Raises:
      InputError: rows that the generator does not have, or more directions than w has numbers.
    """
    matrices = style_matrices(parameters)
    unknown = [row for row in rows if not 0 <= row <= len(matrices)]
    if unknown or not rows:
        raise InputError(f"--rows: expected some of 0 to {len(matrices)}, got {list(rows)}")
    chosen = [matrices[row] for row in rows if row < len(matrices)]
    if not chosen:
        raise InputError(f"--rows: row {len(matrices)} draws toRGB alone, expected another too")
    stacked = np.concatenate(chosen, axis=1).astype(np.float64)
    if not 1 <= count <= len(stacked):
        raise InputError(f"--count: expected 1 to {len(stacked)}, got {count}")
    stacked /= np.linalg.norm(stacked, axis=0, keepdims=True) + 1e-12
    values, vectors = np.linalg.eigh(stacked @ stacked.T)
    order = np.argsort(-values)[:count]
    return signed(vectors[:, order].T), values[order] / values.sum()


def signed(directions: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K D"]:
    """Each of directions [K, D] or its negative, so that its largest number is positive.

    An eigenvector's sign is the linear algebra library's choice.
    """
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return directions * np.where(largest < 0, -1.0, 1.0)
