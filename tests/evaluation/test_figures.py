"""Figures and grids: what they show, where they show it."""

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation import figures, grids

RNG = np.random.default_rng(0)


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def has_colour(image, colour):
    """Which pixels."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(image.astype(int) - wanted).max(-1) < 3


def holds_colour(image, colour):
    return bool(has_colour(image, colour).any())


def test_variance_lines_have_a_colour_each(tmp_path):
    path = tmp_path / "latent_variance.png"
    figures.plot_latent_variance({"a": [0.1, 0.2, 0.4], "b": [0.1, 0.1, 0.1]}, path)
    image = read(path)
    assert holds_colour(image, figures.COLOURS[0])
    assert holds_colour(image, figures.COLOURS[1])
    assert not holds_colour(image, figures.COLOURS[2])


def test_the_highest_variance_is_below_the_frame(tmp_path):
    path = tmp_path / "latent_variance.png"
    figures.plot_latent_variance({"a": [0.66, 0.66, 0.74]}, path)
    image = read(path)
    line = np.flatnonzero(has_colour(image, figures.COLOURS[0]).any(1)).min()
    frame = np.flatnonzero((image.max(-1) < 80).mean(1) > 0.5).min()
    assert line > frame + 5


@pytest.mark.parametrize(
    "variances",
    [
        {"a": RNG.lognormal(-3, 0.5, 50), "b": RNG.lognormal(-6, 0.5, 50)},
        {"narrow": np.full(5, 0.2)},
        {"in W": np.zeros(5)},
        {"a": RNG.lognormal(0, 0.1, 50), "in W": np.zeros(5)},
    ],
)
def test_histograms_of_every_kind_are_drawn(tmp_path, variances):
    path = tmp_path / "histogram.png"
    figures.plot_variance_histogram(variances, path)
    drawn = [name for name, values in variances.items() if (values > 0).any()]
    for name, colour in zip(variances, figures.COLOURS, strict=False):
        assert holds_colour(read(path), colour) == (name in drawn)


def test_a_grid_shows_its_images_pixel_for_pixel():
    images = RNG.integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    grid = grids.draw_grid(images / 127.5 - 1, ["input", "mask", "ŷ₁"])
    enlarged = images.repeat(2, axis=2).repeat(2, axis=3)
    height, width = grid.shape[:2]
    for i in range(2):
        for j in range(3):
            y = height - (2 - i) * (128 + grids.GAP)
            x = width - (3 - j) * (128 + grids.GAP)
            np.testing.assert_array_equal(grid[y : y + 128, x : x + 128], enlarged[i, j])


def test_labels_are_drawn_and_wrapped():
    image = [[np.zeros((128, 128, 3))]]
    short = grids.draw_grid(image, ["e4e"])
    long = grids.draw_grid(image, ["restyle_psp_with_interest_loss_and_much_more"])
    named = grids.draw_grid(image, ["e4e"], row_labels=["00012"])
    assert long.shape[0] > short.shape[0]
    assert long.shape[1] == short.shape[1]
    assert named.shape[1] > short.shape[1]
    top = long[: long.shape[0] - 128 - grids.GAP]
    assert top.min() < 128
    assert top[:, :2].min() == 255, "a label leaves its column"
    assert top[:, -2:].min() == 255, "a label leaves its column"


def test_a_word_longer_than_its_column_is_broken():
    grid = grids.draw_grid([[np.zeros((128, 128, 3))]], ["m" * 200])
    assert grid.shape[0] > 128 + 10 * grids.FONT_SIZE


def test_images_keep_their_shape_in_a_cell():
    grid = grids.draw_grid([[np.full((512, 256, 3), -1.0)]], ["tall"])
    cell = grid[-256 - grids.GAP : -grids.GAP, grids.GAP : -grids.GAP]
    assert cell.shape == (256, 256, 3)
    assert (cell[:, 64:192] == 0).all()
    assert (cell[:, :64] == 255).all() and (cell[:, 192:] == 255).all()


def test_error_is_white_where_equal_and_red_where_far():
    a = np.zeros((2, 2, 3), np.float32)
    b = a.copy()
    b[0, 0], b[0, 1] = grids.FULL_RED, grids.FULL_RED / 2
    shown = grids.to_uint8(grids.error_image(a, b))
    assert shown[1, 1].tolist() == [255, 255, 255]
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert shown[0, 1].tolist() == [255, 128, 128]
    np.testing.assert_array_equal(grids.error_image(a + 5, a + 7), np.ones((2, 2, 3)))


def test_to_uint8_clips_and_rounds():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 7.0], np.float32)
    assert grids.to_uint8(values).tolist() == [0, 0, 128, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(grids.to_uint8(every.astype(np.float32) / 127.5 - 1), every)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match="images: some values are not finite"):
        grids.to_uint8(np.array([0.0, value], np.float32))
