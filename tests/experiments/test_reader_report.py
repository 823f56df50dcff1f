"""What the reader and the CLIP of avatars know: the figures, and the whole script."""

import json

import numpy as np
import pytest

from experiments.reader_report import average_precision, main, markdown, phrase_retrieval
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.data.avatars import clean_sample
from interestyle_jax.data.avatars.captions import captions_of_style


def test_average_precision_is_the_mean_over_what_is_shown():
    fit = np.array([0.1, 0.9, 0.5, 0.7])
    # In order: shown, not, shown, not.
    assert average_precision(fit, np.array([False, True, True, False])) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert average_precision(fit, np.array([False, True, False, True])) == 1.0


class Knowing:
    """A CLIP whose features are the phrases themselves, but for one that it takes for another."""

    def __init__(self, true, wrong):
        self.true = true.astype(np.float64)
        self.words = np.eye(true.shape[1])
        self.words[wrong] *= -1

    def image_features(self, images):
        return self.true[images[:, 0, 0, 0].astype(int)]

    def text_features(self, texts):
        assert all(text.startswith("a face with ") for text in texts)
        return self.words


def test_a_phrase_that_is_taken_for_its_opposite_is_found():
    captions = captions_of_style("toon-head")
    samples = [clean_sample(i, size=16, style="toon-head") for i in range(40)]
    factors = np.stack([sample["factors"] for sample in samples])
    true = np.asarray(captions.true_phrases(factors))
    wrong = captions.phrases.index("long hair")
    assert 0 < true[:, wrong].sum() < 30
    images = np.arange(40.0)[:, None, None, None] * np.ones((1, 2, 2, 3))
    found = phrase_retrieval(Knowing(true, wrong), images, factors)
    assert list(found) == [
        p for p, shown in zip(captions.phrases, true.T, strict=True) if any(shown)
    ]
    assert [p for p, x in found.items() if not x["first"]] == ["long hair"]
    assert found["short hair"]["precision"] == 1.0 > found["long hair"]["precision"]
    assert found["long hair"]["share"] == true[:, wrong].mean()
    table = markdown({"num_images": 40, "reader": {"hair": 0.5, "eyes": 1.0}, "clip": found})
    assert "| mean | 75.0% |" in table
    assert "| long hair | no |" in table


@pytest.mark.slow
def test_what_ships_knows_avatars(tmp_path):
    data = write_avatars(tmp_path / "avatars", sizes={"test": 64}, workers=0)
    assert main([f"--data={data}", f"--out={tmp_path / 'report'}"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["num_images"] == 64
    assert np.mean(list(report["reader"].values())) > 0.92
    assert np.mean([x["precision"] for x in report["clip"].values()]) > 0.9
