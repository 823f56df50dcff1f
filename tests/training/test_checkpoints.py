"""Checkpoints: what is kept, what is damaged or cut off, and a full disk."""

import jax
import numpy as np
import pytest

from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.training.checkpoints import Checkpoints


def saved(directory, steps, value=1.0):
    """Checkpoints of a small state."""
    checkpoints = Checkpoints(directory, keep_latest=2)
    for step in steps:
        state = {"a": jax.numpy.full((300,), value * step)}
        meta = {"config": {}, "data_fingerprint": "x", "best_step": step, "best_loss": 1.0}
        checkpoints.save(step, state, data={}, meta=meta, loss=float(step))
    checkpoints.close()


ABSTRACT = {"a": jax.ShapeDtypeStruct((300,), np.float32)}


def test_keeps_the_best_and_the_latest(tmp_path):
    saved(tmp_path, [1, 2, 3, 4, 5])
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    assert checkpoints.steps() == [1, 4, 5]
    checkpoints.close()


def test_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path):
    saved(tmp_path / "checkpoints", [1, 2])
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_latest=2)
    restored = checkpoints.restore(ABSTRACT)
    assert restored.step == 1
    np.testing.assert_array_equal(restored.state["a"], 1.0)
    assert any("damaged" in n and "2" in n for n in checkpoints.notices)
    assert (tmp_path / "broken_checkpoints" / "2").is_dir()
    checkpoints.close()


def test_save_that_was_cut_off_is_cleared_and_told(tmp_path):
    saved(tmp_path, [1])
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    assert checkpoints.steps() == [1]
    assert any("cut off" in n for n in checkpoints.notices)
    assert not (tmp_path / "2.orbax-checkpoint-tmp").exists()
    checkpoints.close()


def test_checkpoint_of_other_networks_is_refused(tmp_path):
    saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    with pytest.raises(InputError, match="no checkpoint here can be read"):
        checkpoints.restore({"b": jax.ShapeDtypeStruct((4,), np.float32)})
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_latest=2)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(MachineError, match="could not be saved: No space left on device"):
        checkpoints.save(1, {"a": jax.numpy.zeros(3)}, data={}, meta={}, loss=0.0)
    checkpoints.close()
