"""Checkpoints: what is kept, what is damaged or cut off, and a full disk."""

import errno

import jax
import numpy as np
import pytest

from interestyle_jax import weight_files
from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.exit_status import run_command
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


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def largest_file(step):
    files = (p for p in (step / "state").rglob("*") if p.is_file())
    return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("damage", ["flipped", "gone", "metadata", "digests"])
def test_digests_prove_damage(tmp_path, damage):
    """A changed byte of an array's values is nothing that Orbax would notice."""
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2])
    step = folder / "2"
    assert (step / "digests.json").is_file()
    if damage == "flipped":
        flip(largest_file(step))
    elif damage == "gone":
        largest_file(step).unlink()
    else:
        (step / {"metadata": "meta/metadata", "digests": "digests.json"}[damage]).write_text("{")
    checkpoints = Checkpoints(folder, keep_latest=2)
    assert checkpoints.restore(ABSTRACT).step == 1
    assert (tmp_path / "broken_checkpoints" / "2").is_dir()
    assert checkpoints.steps() == [1]
    checkpoints.close()


@pytest.mark.parametrize("damage", ["cut", "metadata", "gone", None])
def test_orbax_proves_damage_where_there_are_no_digests(tmp_path, damage):
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2])
    for step in (1, 2):
        (folder / str(step) / "digests.json").unlink()
    manifest = folder / "2" / "state" / "manifest.ocdbt"
    if damage == "cut":
        manifest.write_bytes(manifest.read_bytes()[:20])
    elif damage == "metadata":
        (folder / "2" / "data" / "metadata").write_text("{")
    elif damage == "gone":
        manifest.unlink()
    checkpoints = Checkpoints(folder, keep_latest=2)
    assert checkpoints.restore(ABSTRACT).step == (1 if damage else 2)
    assert (tmp_path / "broken_checkpoints").exists() == bool(damage)
    checkpoints.close()


def wrapped(error):
    """As Orbax wraps what TensorStore raises."""
    try:
        raise Exception("Encountered error while reading array index: (slice(0, 9, 1),)") from error
    except Exception as made:
        return made


MACHINE = [
    OSError(errno.EIO, "Input/output error"),
    MemoryError(),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."),
    wrapped(ValueError("INTERNAL: Error reading: Input/output error [os_error_code='5']")),
]


@pytest.mark.parametrize("place", ["_restore", "manager", "digests", "alone"])
@pytest.mark.parametrize("error", MACHINE, ids=["io", "memory", "device", "tensorstore"])
def test_error_of_the_machine_moves_no_checkpoint(tmp_path, monkeypatch, capsys, place, error):
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2])
    checkpoints = Checkpoints(folder, keep_latest=2)

    def fail(*_, **__):
        raise error

    if place == "_restore":
        monkeypatch.setattr(checkpoints, "_restore", fail)
    elif place == "manager":
        monkeypatch.setattr(checkpoints._manager, "restore", fail)
    elif place == "digests":
        monkeypatch.setattr(weight_files, "check_files", fail)
    else:
        (folder / "2" / "digests.json").unlink()
        monkeypatch.setattr(weight_files, "read_tree", fail)
    assert run_command(lambda: checkpoints.restore(ABSTRACT), program="interestyle") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("interestyle: error: ") and shown.count("\n") == 1
    assert checkpoints.steps() == [1, 2]
    assert not (tmp_path / "broken_checkpoints").exists()
    monkeypatch.undo()
    assert checkpoints.restore(ABSTRACT).step == 2
    checkpoints.close()


def test_all_damaged_is_refused_and_moves_nothing(tmp_path):
    folder = tmp_path / "checkpoints"
    saved(folder, [1, 2])
    for step in ("1", "2"):
        flip(largest_file(folder / step))
    checkpoints = Checkpoints(folder, keep_latest=2)
    with pytest.raises(InputError, match="checkpoints/2: no checkpoint here is whole: .*SHA-256"):
        checkpoints.restore(ABSTRACT)
    assert checkpoints.steps() == [1, 2]
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
    with pytest.raises(InputError, match="1: cannot be read into this config's networks"):
        checkpoints.restore({"b": jax.ShapeDtypeStruct((4,), np.float32)})
    with pytest.raises(InputError, match="1: cannot be read into this config's networks"):
        checkpoints.restore({"a": jax.ShapeDtypeStruct((4,), np.float32)})
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_settling_tells_no_second_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    asked = []

    def full():
        asked.append(True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
    checkpoints.settle()
    assert asked
    monkeypatch.undo()
    checkpoints.close()


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_latest=2)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(MachineError, match="could not be saved: No space left on device"):
        checkpoints.save(1, {"a": jax.numpy.zeros(3)}, data={}, meta={}, loss=0.0)
    checkpoints.close()
