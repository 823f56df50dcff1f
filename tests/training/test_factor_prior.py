"""Factors: those of drawn avatars, and the same distribution from normal z."""

import numpy as np
import pytest

from interestyle_jax.data.avatars import STYLES, clean_sample
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.training.factor_prior import draws, factors_of_z

COUNT = 400


@pytest.fixture(scope="module", params=sorted(STYLES))
def style(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(style):
    return [clean_sample(index, size=16, style=style) for index in range(COUNT)]


def test_factors_say_what_the_labels_say(style, drawn):
    factors = factors_of_style(style)
    names = factors.names
    assert len(names) == len(set(names)) == len(drawn[0]["factors"])
    for example in drawn[:50]:
        values = dict(zip(names, example["factors"], strict=True))
        for part, known in factors.parts.items():
            assert [v for v in known if values[f"{part}={v}"]] == [example["labels"][part]]
        base = [c for c in factors.colours["skin"] if values[f"skin={c}"]]
        assert len(base) == 1
        red, near = (int(c[1:3], 16) for c in (base[0], example["labels"]["skin_colour"]))
        assert abs(red - near) < 50
        assert values["tilt"] == pytest.approx(np.sqrt(6) * example["labels"]["tilt"] / 12)


def test_z_gives_the_distribution_of_drawn_avatars(style, drawn):
    factors = factors_of_style(style)
    z = np.random.default_rng(0).normal(size=(20_000, len(draws(factors)) + 3))
    found = factors_of_z(factors, z)
    real = np.stack([example["factors"] for example in drawn])
    assert found.shape == (20_000, len(factors.names))
    # A mean of 400 has a standard error of a twentieth of the spread.
    spread = found.std(0)
    np.testing.assert_array_less(np.abs(found.mean(0) - real.mean(0)), 0.2 * spread + 1e-6)
    np.testing.assert_allclose(real.std(0), spread, rtol=0.35)
    assert np.abs(found).max() < 3.5
    low, high = found.min(0) - 1e-4, found.max(0) + 1e-4
    assert ((low <= real) & (real <= high)).mean() > 0.999


def test_every_number_of_z_has_a_meaning(style):
    factors = factors_of_style(style)
    z = np.random.default_rng(1).normal(size=(64, len(draws(factors))))
    base = factors_of_z(factors, z)
    for i in range(z.shape[1]):
        changed = z.copy()
        changed[:, i] += 1.5
        assert np.abs(factors_of_z(factors, changed) - base).max() > 0, i
