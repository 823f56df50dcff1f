"""What counts as reached and as changed, and which strength is chosen."""

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.attribute_changes import (
    AttributeChanges,
    attribute_changes,
    choose_strength,
    shows,
    sure_changes,
)
from interestyle_jax.evaluation.attributes import Attributes

KINDS = {"beard": ("none", "chin"), "hair": ("bun", "spiky")}


def read(beard, hair, tilt):
    labels = {"beard": beard, "hair": hair}
    chances = {
        name: {kind: np.array([0.7 if x == kind else 0.3 for x in labels[name]]) for kind in kinds}
        for name, kinds in KINDS.items()
    }
    return Attributes(chances, {"tilt": np.array(tilt, float)}, {})


BEFORE = read(["none", "none", "chin", "none"], ["bun", "bun", "bun", "spiky"], [0, 0, 0, 0])
AFTER = read(["chin", "none", "chin", "chin"], ["bun", "spiky", "bun", "spiky"], [0, 1.5, -2, 0.5])


def test_only_images_without_the_target_can_reach_it():
    changes = attribute_changes(BEFORE, AFTER, "beard=chin")
    assert changes.reached == pytest.approx(2 / 3) and changes.eligible == 3
    assert changes == attribute_changes(BEFORE, AFTER, "beard")
    assert attribute_changes(AFTER, AFTER, "beard=none").reached == 0
    everyone = attribute_changes(BEFORE, read(["none"] * 4, ["bun"] * 4, [0] * 4), "beard=none")
    assert everyone.reached == 1 and everyone.eligible == 1
    all_had = read(["chin"] * 4, ["bun"] * 4, [0] * 4)
    assert attribute_changes(all_had, all_had, "beard").reached is None


def test_others_are_counted_over_all_images():
    changes = attribute_changes(BEFORE, AFTER, "beard")
    assert changes.changed == {"hair": 0.25, "tilt": 0.5}
    assert changes.mean_changed == 0.375
    assert attribute_changes(BEFORE, AFTER, "hair=spiky").changed == {"beard": 0.5, "tilt": 0.5}


def test_only_sure_readings_count_as_sure_changes():
    def read_hair(bun):
        chances = {"bun": np.array(bun), "spiky": 1 - np.array(bun)}
        return Attributes({"beard": {"none": np.ones(4)}, "hair": chances}, {}, {})

    before = read_hair([0.95, 0.95, 0.89, 0.05])
    after = read_hair([0.05, 0.2, 0.02, 0.04])
    found = sure_changes(before, after, "beard")
    assert found == {"hair": (0.5, 2)}
    assert attribute_changes(before, after, "beard").changed == {"hair": 0.75}
    unsure = read_hair([0.5] * 4)
    assert sure_changes(before, unsure, "beard=none") == {"hair": (None, 0)}
    assert set(sure_changes(before, after, "hair=bun")) == {"beard"}


def test_a_number_is_reached_where_it_grew():
    changes = attribute_changes(BEFORE, AFTER, "tilt")
    assert changes.reached == 0.25 and changes.eligible == 4
    assert set(changes.changed) == {"beard", "hair"}
    assert not shows(BEFORE, "tilt").any()
    with pytest.raises(InputError, match="'hat' is not known"):
        attribute_changes(BEFORE, AFTER, "hat")


def test_the_strength_that_changes_least_of_those_that_reach_enough():
    def one(reached, changed):
        return AttributeChanges(reached, 10, {"hair": changed})

    found = {1.0: one(0.5, 0.0), 2.0: one(0.92, 0.2), 3.0: one(0.95, 0.1), 4.0: one(1.0, 0.3)}
    assert choose_strength(found) == 3.0
    assert choose_strength(found, enough=0.99) == 4.0
    # Where none is enough: the most, and of equal ones the smallest step.
    assert choose_strength({1.0: one(0.5, 0.0), 2.0: one(0.6, 0.2), 3.0: one(0.6, 0.0)}) == 2.0
    assert choose_strength({1.0: one(None, 0.0)}) == 1.0
