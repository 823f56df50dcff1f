"""Work counted in traced programs."""

import jax
import jax.numpy as jnp

from interestyle_jax.models.strided_conv import strided_conv, transposed_conv
from interestyle_jax.planning.counted_work import Work, count_work


def work_of(function, *arguments):
    return count_work(jax.jit(function).trace(*arguments).jaxpr)


def test_work_of_products_convolutions_loops_and_branches():
    a, b = jnp.ones((2, 3)), jnp.ones((3, 5))
    product = Work(2.0 * 2 * 3 * 5, 4.0 * (6 + 15 + 10))
    assert work_of(jnp.dot, a, b) == product
    looped = work_of(lambda a, b: jax.lax.scan(lambda c, _: (c, c @ b), a, None, 4)[1], a, b)
    assert looped == product.times(4)
    branches = work_of(
        lambda p, a: jax.lax.cond(p, lambda a: a @ b, lambda a: a[:, :1] + b[0], a), 1, a
    )
    assert branches == product
    x, kernel = jnp.ones((1, 7, 7, 3)), jnp.ones((3, 3, 3, 4))
    assert work_of(strided_conv, x, kernel).flops == 2.0 * 3 * 3 * 4 * 9 * 3
    # A quarter of the products of a zero-inserted map is with pixels.
    small = jnp.ones((1, 3, 3, 3))
    assert work_of(transposed_conv, small, kernel).flops == 2.0 * 7 * 7 * 4 * 9 * 3 / 4
