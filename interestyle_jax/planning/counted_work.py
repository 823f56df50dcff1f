"""Work and least traffic of a traced program: what its products and convolutions need."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one call.

    Attributes:
      flops: two for a multiply-add; zeros between the pixels of a map are not counted.
      bytes: operands and results of products and convolutions, each once, in their own types.
    """

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, count: float) -> "Work":
        """That of so many calls."""
        return Work(self.flops * count, self.bytes * count)


def count_work(jaxpr: Any) -> Work:
    """The work of a jaxpr, with what it calls.

    Of branches the costliest counts, of loops without a fixed length one turn.

    Args:
      jaxpr: `jax.jit(f).trace(...).jaxpr`, or an inner one.
    """
    total = Work()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = eqn.primitive.name
        if name == "conv_general_dilated":
            total += _with_traffic(eqn, _conv_flops(eqn))
        elif name == "dot_general":
            total += _with_traffic(eqn, _dot_flops(eqn))
        elif name == "cond":
            branches = [count_work(branch) for branch in eqn.params["branches"]]
            total += max(branches, key=lambda work: work.flops)
        else:
            length = eqn.params["length"] if name == "scan" else 1
            for inner in _inner(eqn.params):
                total += count_work(inner).times(length)
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _with_traffic(eqn: Any, flops: float) -> Work:
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    return Work(flops, float(sum(a.size * a.dtype.itemsize for a in avals)))


def _conv_flops(eqn: Any) -> float:
    kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel[i] for i in spec[1:])
    zeros = math.prod(eqn.params["lhs_dilation"])
    return 2.0 * eqn.outvars[0].aval.size * taps / zeros


def _dot_flops(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return 2.0 * eqn.outvars[0].aval.size * math.prod(lhs[i] for i in contracted)
