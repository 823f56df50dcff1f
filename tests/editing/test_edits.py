"""Edits in order, on rows and bands, and mixing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.editing.bands import band_rows, describe_rows, mixing_edit, parse_rows
from interestyle_jax.editing.edits import Edit, apply_edits
from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import Generator

LAYERS = Generator(resolution=16, channel_base=64, channel_max=8).style_layers


def scaled(variables, latents, strength):
    return latents * (1 + strength * variables)


def shifted(variables, styles, strength):
    return tuple(style + strength * variables for style in styles)


def styles_of(w_plus):
    return tuple(w_plus[:, layer.row, : layer.channels] for layer in LAYERS)


def test_edits_of_w_come_before_those_of_s():
    double = Edit(jnp.ones(()), scaled, "w_plus", "double")
    shift = Edit(jnp.ones(()), shifted, "style", "shift")
    w_plus = jnp.ones((2, 6, 8))
    edited = apply_edits([shift, double, double], w_plus, [5.0, 1.0, 2.0], styles=styles_of)
    np.testing.assert_array_equal(edited.w_plus, 6 * w_plus)
    for style in edited.styles:
        np.testing.assert_array_equal(style, 6 + 5)
    assert apply_edits([double], w_plus, [1.0], styles=styles_of).styles is None


def test_an_edit_is_an_argument_of_a_jitted_function():
    traced = []

    @jax.jit
    def run(edit, w_plus, strength):
        traced.append(edit.name)
        return edit(w_plus, strength)

    for factor in (1.0, 2.0):
        edit = Edit(jnp.asarray(factor), scaled, "w_plus", "scale")
        got = run(edit, jnp.ones((1, 6, 8)), 3.0)
        np.testing.assert_array_equal(got, jnp.full((1, 6, 8), 1 + 3 * factor))
    assert traced == ["scale"]


def test_rows_of_any_edit():
    double = Edit(jnp.ones(()), scaled, "w_plus", "double").on_rows([1, 3], LAYERS)
    changed = np.asarray(double(jnp.ones((1, 6, 8)), 1.0))[0, :, 0] == 2
    assert changed.tolist() == [False, True, False, True, False, False]
    # What was limited before stays limited.
    twice = double.on_rows([3, 4], LAYERS)
    assert twice.changed == (False, False, False, True, False, False)
    shift = Edit(jnp.ones(()), shifted, "style", "shift").on_rows([1], LAYERS)
    moved = [bool(style[0, 0]) for style in shift(styles_of(jnp.zeros((1, 6, 8))), 1.0)]
    assert moved == [layer.row == 1 for layer in LAYERS]
    for rows, message in (([6], "row 6: this generator has the rows 0 to 5"), ([], "rows: none")):
        with pytest.raises(InputError, match=message):
            double.on_rows(rows, LAYERS)


def test_bands_go_by_resolution():
    """0-3, 4-7, 8-17 at 1024; 8-13 at 256 (pSp); 8-9 in the avatar world."""
    for length, last in ((18, 17), (14, 13), (10, 9)):
        rows = [band_rows([band], length) for band in ("coarse", "middle", "fine")]
        assert [describe_rows(r) for r in rows] == ["0-3", "4-7", f"8-{last}"]
    assert band_rows(["fine", "coarse"], 10) == (0, 1, 2, 3, 8, 9)
    with pytest.raises(InputError, match="fine begins at 64 pixels, this generator has 32"):
        band_rows(["fine"], 8)
    with pytest.raises(InputError, match="'thin', expected some of coarse, middle, fine"):
        band_rows(["thin"], 18)
    with pytest.raises(InputError, match="bands: none"):
        band_rows([], 18)


def test_rows_as_text():
    assert parse_rows("0-2,5, 7-8") == (0, 1, 2, 5, 7, 8)
    assert describe_rows(parse_rows("0-2,5,7-8")) == "0-2,5,7-8"
    for text in ("", "a", "3-1", "1-", "-1", "1.5"):
        with pytest.raises(InputError, match="expected rows such as"):
            parse_rows(text)


def test_mixing_leaves_and_takes_to_the_bit():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 6, 8))
    edit = mixing_edit(b, name="b").on_rows(parse_rows("2-3"), LAYERS)
    np.testing.assert_array_equal(edit(a, 0.0), a)
    whole = np.asarray(edit(a, 1.0))
    np.testing.assert_array_equal(whole[:, 2:4], b[:, 2:4])
    np.testing.assert_array_equal(np.delete(whole, (2, 3), 1), np.delete(a, (2, 3), 1))
    half = np.asarray(edit(a, 0.5))
    np.testing.assert_allclose(half[:, 2:4], (a + b)[:, 2:4] / 2, rtol=1e-6)
