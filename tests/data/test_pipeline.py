"""The input pipeline: every row once an epoch, on any number of processes, exactly restorable."""

import itertools
import json
import multiprocessing

import jax
import numpy as np
import pytest

from interestyle_jax.data import avatar_builder
from interestyle_jax.data.pipeline import (
    TrainingBatches,
    evaluation_batches,
    normalize,
    training_batches,
)
from interestyle_jax.errors import InputError, MachineError

COUNT = 22


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "world"
    return avatar_builder.write_avatars(
        out, sizes={"train": COUNT, "validation": 5}, size=16, workers=0
    )


def take(iterator, count: int) -> list[dict]:
    return list(itertools.islice(iterator, count))


def same(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)
        for x, y in zip(a, b, strict=True)
    )


def test_shapes_and_fields(world):
    with training_batches(world, "train", batch_size=4, seed=0) as batches:
        batch = next(batches)
    assert set(batch) == {"image", "interest_mask", "id"}
    assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert batch["interest_mask"].shape == (4, 16, 16, 1)
    assert batch["id"].dtype == np.int64


def test_each_epoch_is_a_new_permutation(world):
    with training_batches(world, "train", batch_size=2, seed=0, fields=("clean",)) as batches:
        ids = np.concatenate([b["id"] for b in take(batches, 3 * COUNT // 2)]).reshape(3, COUNT)
    for epoch in ids:
        assert sorted(epoch) == list(range(COUNT))
    assert len({tuple(epoch) for epoch in ids}) == 3


def test_seed_decides_order(world):
    def first(seed):
        with training_batches(world, "train", batch_size=8, seed=seed) as batches:
            return take(batches, 3)

    assert same(first(1), first(1))
    assert not same(first(1), first(2))


@pytest.mark.parametrize("shares", [[(0, 1, 2, 3), (4, 5, 6, 7)], [(0, 4), (1, 5), (7, 3), (6, 2)]])
def test_rows_of_all_processes_make_up_the_global_batch(world, shares):
    options = {"batch_size": 8, "seed": 5, "fields": ("image", "face_mask")}
    with training_batches(world, "train", **options) as batches:
        whole = take(batches, 6)
    for rows in shares:
        with training_batches(world, "train", rows=rows, **options) as batches:
            part = take(batches, 6)
        for batch, own in zip(whole, part, strict=True):
            for name, value in batch.items():
                assert np.array_equal(own[name], value[list(rows)])


def test_restored_iterator_goes_on_bit_for_bit(world):
    options = {"batch_size": 4, "seed": 9, "fields": ("image", "interest_mask")}
    with training_batches(world, "train", **options) as batches:
        take(batches, 7)
        state = json.loads(json.dumps(batches.get_state()))
        expected = take(batches, 8)
        batches.set_state(state)
        assert same(take(batches, 8), expected)
    with training_batches(world, "train", **options) as fresh:
        fresh.set_state(state)
        assert same(take(fresh, 8), expected)
    for rows in ((0, 1), (2, 3), (3,)):
        with training_batches(world, "train", rows=rows, **options) as part:
            part.set_state(state)
            for batch, own in zip(expected, take(part, 8), strict=True):
                assert np.array_equal(own["image"], batch["image"][list(rows)])
            assert part.get_state()["global_next_index"] == state["global_next_index"] + 8 * 4


def test_state_of_another_run_is_refused(world):
    with training_batches(world, "train", batch_size=4, seed=9) as batches:
        state = batches.get_state()
        with pytest.raises(InputError, match="num_examples was 3 when it was saved and is 22 now"):
            batches.set_state({**state, "num_examples": 3})
        with pytest.raises(InputError, match="seed was 1 when"):
            batches.set_state({**state, "seed": 1})


def test_images_and_masks_are_mirrored_together(world):
    plain = {}
    for batch in evaluation_batches(
        world, "train", batch_size=COUNT, fields=("image", "interest_mask", "face_mask")
    ):
        for row, identity in enumerate(batch["id"]):
            plain[int(identity)] = {
                k: batch[k][row] for k in batch if k.endswith(("image", "mask"))
            }
    fields = ("image", "interest_mask", "face_mask")
    mirrored = []
    with training_batches(world, "train", batch_size=11, seed=0, fields=fields) as batches:
        for batch in take(batches, 10):
            for row, identity in enumerate(batch["id"]):
                original = plain[int(identity)]
                flipped = np.array_equal(batch["image"][row], original["image"][:, ::-1])
                mirrored.append(flipped)
                for name in fields:
                    expected = original[name][:, ::-1] if flipped else original[name]
                    assert np.array_equal(batch[name][row], expected)
    assert 0.3 < np.mean(mirrored) < 0.7
    with training_batches(world, "train", batch_size=11, seed=0, flip=False) as batches:
        batch = next(batches)
    for row, identity in enumerate(batch["id"]):
        assert np.array_equal(batch["image"][row], plain[int(identity)]["image"])


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(world):
    options = {"batch_size": 4, "seed": 2}
    with training_batches(world, "train", **options) as batches:
        expected = take(batches, 9)
    with training_batches(world, "train", num_workers=2, **options) as batches:
        assert same(take(batches, 4), expected[:4])
        state = batches.get_state()
    with training_batches(world, "train", num_workers=1, **options) as batches:
        batches.set_state(state)
        assert same(take(batches, 5), expected[4:])


def test_evaluation_pads_the_last_batch(world):
    fields = ("clean", "obstacle", "labels/mouth", "labels/tilt")
    batches = list(evaluation_batches(world, "validation", batch_size=3, fields=fields))
    assert [b["valid"].tolist() for b in batches] == [[True] * 3, [True, True, False]]
    assert np.concatenate([b["id"] for b in batches]).tolist() == [0, 1, 2, 3, 4, 4]
    assert batches[1]["clean"].shape == (3, 16, 16, 3)
    assert all(isinstance(str(word), str) and word for word in batches[0]["obstacle"])
    assert batches[0]["labels/tilt"].dtype.kind == "f"
    some = list(
        evaluation_batches(world, "validation", batch_size=2, fields=("clean",), num_samples=3)
    )
    assert sum(int(b["valid"].sum()) for b in some) == 3
    own = list(
        evaluation_batches(world, "validation", batch_size=3, fields=("clean",), rows=(2, 0))
    )
    for part, whole in zip(own, batches, strict=True):
        assert np.array_equal(part["valid"], whole["valid"])
        assert np.array_equal(part["clean"], whole["clean"][[2, 0]])


def test_normalize():
    batch = {
        "image": np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, -1),
        "face_mask_full": np.array([0, 255], np.uint8).reshape(2, 1, 1, 1),
        "id": np.array([3, 4]),
    }
    out = jax.jit(normalize)(batch)
    assert out["image"].dtype == np.float32
    assert np.array_equal(out["image"][:, 0, 0, 0], [-1, 1])
    assert np.array_equal(out["face_mask_full"][:, 0, 0, 0], [0, 1])
    assert np.array_equal(out["id"], [3, 4])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "has no split 'dev'"),
        ({"fields": ("mask",)}, "has no field 'mask' .it has background, clean"),
        ({"fields": ("labels/beak",)}, "has no field 'labels/beak'"),
        ({"batch_size": 5, "rows": (0, 1)}, "batch_size: 5 cannot be shared out by rows .0, 1"),
        ({"batch_size": 2, "rows": (0, 2)}, "batch_size: 2 cannot be shared out by rows .0, 2"),
        ({"data_dir": "/nowhere"}, "/nowhere: is not a data set"),
    ],
)
def test_bad_arguments(world, options, words):
    arguments = {"data_dir": world, "split": "train", "batch_size": 4, "seed": 0, **options}
    with pytest.raises(InputError, match=words):
        training_batches(**arguments)


class Lost:
    """An iterator of batches whose worker process ends after some."""

    def __init__(self, count: int):
        self.left = count

    def __next__(self) -> dict:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("Worker process was terminated unexpectedly with exit code 1.")
        return {}


def test_lost_workers_are_told_by_what_ended_them():
    with pytest.raises(InputError, match="no worker process could start: .* __name__"):
        next(TrainingBatches(Lost(0), 1, {}))
    batches = TrainingBatches(Lost(1), 1, {})
    next(batches)
    with pytest.raises(MachineError, match="a worker process that reads images died"):
        next(batches)


def test_a_worker_that_imports_an_unguarded_script_ends(monkeypatch, world):
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    with pytest.raises(SystemExit):
        training_batches(world, "train", batch_size=2, seed=0, num_workers=1)
    monkeypatch.undo()
    training_batches(world, "train", batch_size=2, seed=0).close()
