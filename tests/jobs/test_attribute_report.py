"""Which attributes edited images show, in the report of `edit`."""

import json

import jax
import numpy as np

from interestyle_jax.data.images import save_image
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.evaluation.attributes import AttributeReader, Attributes
from interestyle_jax.jobs import attribute_report as attribute_report_module
from interestyle_jax.jobs import edits
from interestyle_jax.jobs.attribute_report import attribute_report


class Light:
    """Reads whether images are light; stands in for a trained reader."""

    resolution = 8

    def read_all(self, images, *, batch_size):
        assert images.shape[1:] == (8, 8, 3) and len(images) <= batch_size
        light = (images.mean((1, 2, 3)) > 0).astype(float)
        chances = {"light": {"no": 1 - light, "yes": light}}
        return Attributes(chances, {"mean": images.mean((1, 2, 3))}, {})


def test_shares_are_counted_beside_the_unedited_column(tmp_path, monkeypatch):
    # Of four images three are a batch.
    monkeypatch.setattr(attribute_report_module, "BATCH_SIZE", 3)
    levels = {"a": (0, 0, 255), "b": (0, 255, 255), "c": (255, 255, 255), "d": (0, 0, 255)}
    for name, values in levels.items():
        for column, value in zip(("-1", "0", "+1"), values, strict=True):
            save_image(tmp_path / f"{name}_{column}.png", np.full((16, 16, 3), value, np.uint8))
    report = attribute_report(Light(), tmp_path, list(levels), ["-1", "0", "+1"])
    assert report["+1"]["shows"] == {"light": {"no": 0.0, "yes": 1.0}}
    assert report["+1"]["changed"] == {"light": 0.5} and report["0"]["changed"] == {"light": 0.0}
    assert report["-1"]["changed"] == {"light": 0.25} and report["-1"]["numbers"]["mean"] == -0.5
    without = attribute_report(Light(), tmp_path, list(levels), ["-1", "+1"])
    assert without["+1"]["changed"] is None
    assert attribute_report(Light(), tmp_path, [], ["0"]) == {}


def test_any_number_is_read_in_batches(monkeypatch):
    reader = AttributeReader.__new__(AttributeReader)
    seen = []

    def call(self, images):
        seen.append(len(images))
        return Attributes({"a": {"x": images[:, 0, 0, 0]}}, {}, {"r": images[..., 0]})

    monkeypatch.setattr(AttributeReader, "__call__", call)
    images = np.arange(5.0)[:, None, None, None] * np.ones((5, 2, 2, 3))
    read = reader.read_all(images, batch_size=2)
    np.testing.assert_array_equal(read.chances["a"]["x"], np.arange(5))
    assert read.regions["r"].shape == (5, 2, 2) and seen == [2, 2, 2]


def test_the_command_says_them(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(edits, "AttributeReader", lambda weights: Light())
    monkeypatch.setattr(edits, "digest", lambda weights: f"digest of {weights}")
    array = np.random.default_rng(0).normal(size=16).astype(np.float32)
    path = save_direction(tmp_path / "one.npz", Direction("one", "w", array))
    np.save(tmp_path / "w.npy", np.zeros((1, 8, 16), np.float32))
    report = edits.edit_files(
        str(tiny_weights / "inverter"),
        tmp_path / "out",
        edits=[str(path)],
        latents=tmp_path / "w.npy",
        strengths=(0, 2),
        attributes="reader",
    )
    assert set(report["attributes"]) == {"0", "+2"}
    assert report["attributes"]["0"]["changed"] == {"light": 0.0}
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["attributes"] == report["attributes"]
