"""Folders of small images with masks."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_photos(tmp_path):
    """(names, side=16) -> a folder with `images` and `masks` of these names, JPEG and PNG."""

    def make(names, side=16, kinds=("masks",)):
        rng = np.random.default_rng(1)
        for kind in ("images", *kinds):
            (tmp_path / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            image = rng.integers(0, 256, (side, side + 4, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / f"{name}.jpg")
            for kind in kinds:
                mask = np.zeros((side, side + 4), np.uint8)
                mask[2:12, 5 : 9 + int(rng.integers(0, 6))] = 255
                Image.fromarray(mask).save(tmp_path / kind / f"{name}.png")
        return tmp_path

    return make
