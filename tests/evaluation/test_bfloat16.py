"""The shipped encoder in bfloat16 beside itself in float32, on held-out avatars."""

import jax.numpy as jnp
import numpy as np
import pytest

import interestyle_jax as ij
from interestyle_jax.data import avatars

COUNT = 16


@pytest.mark.slow
def test_shipped_inversions_hardly_change_in_bfloat16():
    drawn = [avatars.sample(i, size=64, split="test") for i in range(COUNT)]
    images = np.stack([sample["image"] for sample in drawn]).astype(np.float32) / 127.5 - 1
    high, low = (
        ij.load("avatar_interestyle", dtype=dtype).invert(images)
        for dtype in ("float32", "bfloat16")
    )
    lpips = ij.load("lpips_alex")
    apart = lpips.distance(high.images[-1], low.images[-1])
    print(f"LPIPS between them: mean {float(apart.mean()):.4f}, largest {float(apart.max()):.4f}")
    assert 0 < float(apart.mean()) < 0.01
    change = [float(lpips.distance(x.images[-1], jnp.asarray(images)).mean()) for x in (high, low)]
    assert abs(change[0] - change[1]) < 0.01
