"""Faces are found down to 5 % of a photograph's width, and nearly all of them at 3 %."""

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.images import list_images, read_image
from interestyle_jax.photos.landmarks import make_landmarker

WIDTH, HEIGHT = 1600, 1200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "lost", "error"), [(0.2, 0, 0.01), (0.1, 0, 0.02), (0.05, 0, 0.04), (0.03, 4, 0.06)]
)
def test_small_faces_are_found_on_patterns(shared_dir, share, lost, error):
    landmarker, rng, errors = make_landmarker("litert"), np.random.default_rng(0), []
    for file in list_images(shared_dir / "portraits"):
        portrait = Image.fromarray(read_image(file))
        (face,) = landmarker(np.asarray(portrait))
        scale = share * WIDTH / np.ptp(face.landmarks[:, 0])
        side = round(portrait.width * scale)
        if side > HEIGHT:
            continue
        patches = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        photo = patches.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        left, top = (int(x) for x in rng.integers(0, (WIDTH - side, HEIGHT - side)))
        photo.paste(portrait.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        expected = (face.points + 0.5) * side / portrait.width - 0.5 + (left, top)
        apart = np.hypot(*(expected[1] - expected[0]))
        found = landmarker(np.asarray(photo))
        near = [np.hypot(*(f.points - expected).T).mean() / apart for f in found]
        errors.append(min(near, default=np.inf))
    found = [e for e in errors if e < 0.2]
    print(f"{share:.0%}: {len(found)} of {len(errors)} found, mean error {np.mean(found):.1%}")
    assert len(errors) >= 35
    assert len(found) >= len(errors) - lost and np.mean(found) < error
