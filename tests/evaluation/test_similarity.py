"""PSNR and MS-SSIM against plain formulas."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from interestyle_jax.evaluation.similarity import SCALE_WEIGHTS, ms_ssim, num_scales, psnr


def plain(a, b, scales):
    """Wang's MS-SSIM of one channel in [0, 1] by SciPy's correlation."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(window, window) / window.sum() ** 2
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])

    def local(x):
        return ndimage.correlate(x, window)[5:-5, 5:-5]

    result = 1.0
    for i, weight in enumerate(weights):
        ma, mb = local(a), local(b)
        va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
        term = (2 * cov + 0.0009) / (va + vb + 0.0009)
        if i == scales - 1:
            term = term * (2 * ma * mb + 0.0001) / (ma**2 + mb**2 + 0.0001)
        result *= max(term.mean(), 0) ** weight
        h, w = (n // 2 * 2 for n in a.shape)
        a, b = (x[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for x in (a, b))
    return result


def test_figures_are_the_definitions():
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, 45, 50, 3)), (0, 2, 2, 0)) * 3
    a = np.clip(a, -1, 1).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.2, a.shape), -1, 1).astype(np.float32)
    assert num_scales(45, 50) == 3
    measure = jax.jit(lambda a, b: (psnr(a, b), ms_ssim(a, b)))
    (ratio, found), same = measure(a, b), measure(a, a)
    want = [
        np.mean([plain(*((x[..., c].astype(float) + 1) / 2 for x in pair), 3) for c in range(3)])
        for pair in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(found, want, rtol=1e-4)
    assert 0.2 < want[0] < 0.95
    np.testing.assert_allclose(same[1], 1, atol=1e-5)
    errors = np.square((a - b) / 2).mean((1, 2, 3))
    np.testing.assert_allclose(ratio, 10 * np.log10(1 / errors), rtol=1e-5)
    np.testing.assert_allclose(same[0], 100)


def test_small_images_have_fewer_scales():
    sizes = [10, 11, 21, 22, 64, 175, 176, 1024]
    assert [num_scales(s, 2000) for s in sizes] == [0, 1, 1, 2, 3, 4, 5, 5]
    with pytest.raises(ValueError, match="at least 11"):
        ms_ssim(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))
