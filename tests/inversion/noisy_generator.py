"""Variables of a generator that is not trained, and whose noise shows in its images."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from interestyle_jax.models import registry
from interestyle_jax.models.stylegan2 import Generator


def noisy_generator(module: Generator, random: np.random.Generator) -> dict[str, Any]:
    """{"generator", "w_avg"} as in a weight directory."""
    flat = flatten_dict(registry.shapes_of(module), sep="/")
    flat = {k: random.normal(size=v.shape).astype(np.float32) for k, v in flat.items()}
    for path in flat:
        if path.endswith("modulation/bias"):
            flat[path] = flat[path] * 0.1 + 1
        if "mapping" in path:
            # At a hundredth of the rate.
            flat[path] = flat[path] * (100 if path.endswith("kernel") else 10)
        if path.endswith("noise_strength"):
            flat[path] = np.float32(0.3)
    w_avg = random.normal(size=module.w_dim).astype(np.float32) * 0.1
    return {"generator": unflatten_dict(flat, sep="/"), "w_avg": w_avg}
