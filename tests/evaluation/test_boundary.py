"""Regions of an inversion beside the original's (Fig. 7)."""

import numpy as np

from interestyle_jax.evaluation.boundary import RED, YELLOW, boundary_grid, outline
from interestyle_jax.evaluation.grids import to_uint8

SIZE, CELL = 8, 128


def square(first, last):
    region = np.zeros((SIZE, SIZE), bool)
    region[first:last, first:last] = True
    return region


def test_an_outline_is_the_outermost_pixels():
    np.testing.assert_array_equal(outline(square(1, 6)), square(1, 6) & ~square(2, 5))
    # The image's edge is no boundary.
    assert not outline(np.ones((SIZE, SIZE), bool)).any()
    assert not outline(np.zeros((SIZE, SIZE), bool)).any()


def test_outlines_and_wrong_pixels_are_drawn():
    images, inversions = (np.full((2, SIZE, SIZE, 3), x, np.float32) for x in (-0.5, 0.5))
    nothing = np.zeros((SIZE, SIZE), bool)
    regions = np.array([[square(1, 6), square(2, 6)], [nothing, nothing]])
    grid = boundary_grid(images, inversions, regions)
    # Cells stand at the right and at the bottom, four pixels apart.
    step, scale = CELL + 4, CELL // SIZE
    right = [grid.shape[1] - step * (3 - j) for j in range(3)]
    down = [grid.shape[0] - step * (2 - i) for i in range(2)]

    def cell(i, j):
        drawn = grid[down[i] : down[i] + CELL, right[j] : right[j] + CELL]
        return drawn[scale // 2 :: scale, scale // 2 :: scale]

    def is_colour(i, j, colour):
        return (cell(i, j) == to_uint8(np.asarray(colour, np.float32))).all(-1)

    np.testing.assert_array_equal(is_colour(0, 0, YELLOW), outline(square(1, 6)))
    np.testing.assert_array_equal(is_colour(0, 1, YELLOW), outline(square(2, 6)))
    np.testing.assert_array_equal(is_colour(0, 2, RED), square(1, 6) & ~square(2, 6))
    for j, value in enumerate((-0.5, 0.5, 0.5)):
        assert is_colour(1, j, [value] * 3).all()
    # What is not outlined is the image itself.
    assert is_colour(0, 0, [-0.5] * 3).sum() == SIZE**2 - outline(square(1, 6)).sum()
