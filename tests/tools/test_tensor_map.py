"""Tables of several sections, and of sources that share one target."""

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from tools.convert_weights.tensor_map import (
    DENSE,
    Entry,
    Section,
    apply_map,
    apply_sections,
    restore_map,
)


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


SIDE_BY_SIDE = [Entry(f"{i}.weight", "heads/kernel", DENSE, (2 * i, 2 * i + 2)) for i in range(3)]


def test_sources_side_by_side_fill_one_target_and_come_back():
    arrays = {f"{i}.weight": draw(2, 5) + i for i in range(3)}
    part = apply_map(arrays, SIDE_BY_SIDE, {"heads/kernel": (5, 6)}, where="x")
    want = np.concatenate([arrays[f"{i}.weight"].T for i in range(3)], axis=1)
    np.testing.assert_array_equal(part.variables["heads"]["kernel"], want)
    assert (part.tensors, part.parameters) == (3, 30)
    restored = restore_map(part.variables, SIDE_BY_SIDE, prefix="styles.")
    assert restored.keys() == {f"styles.{key}" for key in arrays}
    for key, array in arrays.items():
        np.testing.assert_array_equal(restored[f"styles.{key}"], array)


@pytest.mark.parametrize("width", [4, 8])
def test_sources_that_leave_columns_empty_are_an_error(width):
    arrays = {f"{i}.weight": draw(2, 5) for i in range(3)}
    with pytest.raises(InputError, match="nothing fills heads/kernel"):
        apply_map(arrays, SIDE_BY_SIDE, {"heads/kernel": (5, width)}, where="x")


def test_misfits_of_all_sections_are_listed_with_their_whole_keys():
    arrays = {
        "encoder.a": draw(2),
        "encoder.more": draw(1),
        "encoder.steps": np.int64(7)[None],
        "decoder.b": draw(3),
        "other": draw(1),
    }
    sections = {
        "encoder": Section([Entry("a", "a")], {"a": (2,)}, "encoder.", keep="steps"),
        "generator": Section(
            [Entry("b", "b"), Entry("c", "c")], {"b": (4,), "c": (1,)}, "decoder."
        ),
    }
    with pytest.raises(InputError) as error:
        apply_sections(arrays, sections, where="x.pt")
    assert str(error.value) == (
        "x.pt: 4 keys do not fit: unused key other; unused key encoder.more; "
        "missing key decoder.c; decoder.b is [3], expected [4]"
    )
    fitting = {k: v for k, v in arrays.items() if k not in ("other", "encoder.more")}
    fitting |= {"decoder.b": draw(4), "decoder.c": draw(1)}
    parts = apply_sections(fitting, sections, where="x.pt")
    np.testing.assert_array_equal(parts["encoder"].variables["a"], arrays["encoder.a"])
    np.testing.assert_array_equal(parts["generator"].variables["b"], draw(4))
    assert parts["encoder"].kept == {"steps": 7}
