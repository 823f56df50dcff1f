"""The page's masks against the drawn ones, by stand-ins for the networks."""

from types import SimpleNamespace

import numpy as np

from experiments import page_masks
from interestyle_jax.data.avatars.world import sample


def test_overlaps_of_masks_that_are_known(monkeypatch):
    monkeypatch.setattr(page_masks, "BATCH_SIZE", 2)
    truth = [sample(i, split="test") for i in range(3)]
    inverted = iter(range(3))

    def invert(images, *, return_images):
        assert (images.dtype, return_images) == (np.float32, "last")
        return SimpleNamespace(images=np.stack([images * 0]))

    class Regions:
        """Of upload and inversion the whole region, of the upload alone the visible one."""

        def mask(self, image, seen):
            if seen is image:
                return truth[self.number]["interest_mask"]
            self.number = next(inverted)
            return truth[self.number]["interest_mask_full"]

    model = SimpleNamespace(input_shape=(64, 64), invert=invert)
    found = page_masks.mask_overlaps(model, Regions(), 3)
    assert found["both"]["whole"] == found["upload"]["visible"] == 1
    hidden = [(x["interest_mask"] > 0).sum() / (x["interest_mask_full"] > 0).sum() for x in truth]
    assert 0.5 < np.mean(hidden) < 1
    np.testing.assert_allclose(found["both"]["visible"], np.mean(hidden))
    np.testing.assert_allclose(found["upload"]["whole"], np.mean(hidden))
    lines = page_masks.markdown(found).splitlines()
    assert lines[-2] == f"| upload and inversion | {np.mean(hidden):.3f} | 1.000 |"
