"""`dtype=bfloat16`: every convolution and every large map is bfloat16, the results are float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.encoders import BackboneEncoder
from interestyle_jax.models.stylegan2 import Generator


def equations(jaxpr):
    """Every equation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def convolutions(function, *arguments):
    """The types of each convolution's inputs."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return [
        {str(v.aval.dtype) for v in e.invars}
        for e in equations(jaxpr)
        if e.primitive.name == "conv_general_dilated"
    ]


def generator_case():
    fields = {"resolution": 32, "w_dim": 8, "z_dim": 8, "mapping_depth": 1}
    module = Generator(**fields, channel_base=512, channel_max=16)
    w_plus = np.random.default_rng(1).normal(size=(2, module.num_styles, 8))
    return module, jnp.asarray(w_plus, jnp.float32), "synthesize"


def encoder_case():
    module = BackboneEncoder(
        num_styles=4, input_size=16, units=(2, 1), widths=(8, 8, 16), head_width=8, w_dim=8
    )
    x = np.random.default_rng(1).normal(size=(2, 16, 16, 6))
    return module, jnp.asarray(x, jnp.float32), "__call__"


@pytest.mark.parametrize("case", [generator_case, encoder_case])
def test_bfloat16_computes_in_bfloat16_and_ends_near(case):
    module, x, method = case()
    low = registry.build(registry.describe(module), dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)

    def draw(path, spec):
        leaf = path[-1].key
        if leaf in ("scale", "var"):
            return np.ones(spec.shape, np.float32)
        size = 1.0 if method == "synthesize" else 1 / np.sqrt(max(1, np.prod(spec.shape[:-1])))
        return (size * rng.normal(size=spec.shape)).astype(np.float32)

    shapes = registry.variable_shapes(registry.describe(module))
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    found = convolutions(lambda v, x: low.apply(v, x, method=method), variables, x)
    assert found and all(types == {"bfloat16"} for types in found)
    want = jax.jit(lambda v, x: module.apply(v, x, method=method))(variables, x)
    got = jax.jit(lambda v, x: low.apply(v, x, method=method))(variables, x)
    assert got.dtype == jnp.float32
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < error < 3e-2
