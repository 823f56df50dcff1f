"""Measures edits of inverted avatars: targets reached, what else changes, and how much of that any
step of the same length changes. `experiments.editing_figures` says what is measured, and how.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import interestyle_jax as ij
from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.pixels import to_float
from interestyle_jax.editing.edits import Edit
from interestyle_jax.evaluation.attribute_changes import (
    ENOUGH,
    AttributeChanges,
    attribute_changes,
    choose_strength,
    sure_changes,
)
from interestyle_jax.evaluation.attributes import AttributeReader, Attributes
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.jobs.edit_drawing import Drawing, edit_and_draw

STYLE = "toon-head"
# Of an edit's range to its high end.
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0)
# Steps of an edit's length that it is compared with, for each edit.
NUM_RANDOM = 1


class Planned(NamedTuple):
    """An edit, what it is meant to bring (a name of `Attributes.scores`), and its range's end.

    `norm` is the length in W of a strength of 1; None of edits in S.
    """

    name: str
    target: str
    edit: Edit
    high: float
    norm: float | None


class Inverted(NamedTuple):
    """Avatars by one encoder: latents [n, L, D] with and without their obstacles."""

    w_plus: np.ndarray
    clean: np.ndarray


class Editor:
    """One encoder and its generator: inverts and draws in batches of one size."""

    def __init__(self, weights: str, batch_size: int, num_iterations: int | None):
        self.model: Model = ij.load(weights)
        self.model.require_inversion()
        self._batch_size, self._num_iterations = batch_size, num_iterations
        self._drawing = Drawing(self.model.network("generator"), None, None)

    def _batches(self, rows: np.ndarray):
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            missing = self._batch_size - len(part)
            yield np.pad(part, [(0, missing), *[(0, 0)] * (rows.ndim - 1)], mode="edge"), len(part)

    def invert(self, images: np.ndarray) -> np.ndarray:
        """The last latents [n, L, D] of images [n, H, W, 3]."""
        found = [
            self.model.invert(batch, self._num_iterations, return_images="none").w_plus[-1, :own]
            for batch, own in self._batches(images)
        ]
        return np.concatenate([np.asarray(part) for part in found])

    def draw(self, w_plus: np.ndarray, edit: Edit | None = None, strength: float = 0.0):
        """Images [n, R, R, 3] in [-1, 1] of 8 bits, of latents [n, L, D] after an edit."""
        edits, strengths = ((), ()) if edit is None else ((edit,), (np.float32(strength),))
        variables, found = self.model.variables["generator"], []
        for batch, own in self._batches(w_plus):
            drawn = edit_and_draw(
                variables, edits, strengths, jnp.asarray(batch), drawing=self._drawing
            )
            found.append(np.asarray(drawn["image"])[:own])
        return to_float(np.concatenate(found))


def measure(
    editor: Editor,
    planned: Sequence[Planned],
    reader: AttributeReader,
    avatars: dict[str, dict[str, Any]],
    *,
    batch_size: int,
) -> tuple[dict[str, Any], Inverted]:
    """Figures of one encoder, and the test avatars' latents."""
    size, width = batch_size, editor.model.latents_shape[1]

    def read(images: np.ndarray) -> Attributes:
        return reader.read_all(images, batch_size=size)

    chosen: dict[str, float] = {}
    w_plus = editor.invert(avatars["validation"]["image"])
    before = read(editor.draw(w_plus))
    for one in planned:
        found: dict[float, AttributeChanges] = {}
        for strength in (share * one.high for share in SHARES):
            after = read(editor.draw(w_plus, one.edit, strength))
            found[strength] = attribute_changes(before, after, one.target)
            if (found[strength].reached or 0) >= ENOUGH:
                break
        # Only the last one can have reached enough.
        chosen[one.name] = choose_strength(found)
    test = avatars["test"]
    inverted = Inverted(editor.invert(test["image"]), editor.invert(test["clean"]))
    before = read(editor.draw(inverted.w_plus))
    figures: dict[str, Any] = {}
    for i, one in enumerate(planned):
        strength = chosen[one.name]
        images = editor.draw(inverted.w_plus, one.edit, strength)
        without = editor.draw(inverted.clean, one.edit, strength)
        after = read(images)
        changes = attribute_changes(before, after, one.target)
        sure = sure_changes(before, after, one.target)
        at_end = read(editor.draw(inverted.w_plus, one.edit, one.high))
        at_end_changes = attribute_changes(before, at_end, one.target)
        figures[one.name] = {
            "target": one.target,
            "strength": strength,
            "reached": changes.reached,
            "eligible": changes.eligible,
            "changed": changes.changed,
            "mean_changed": changes.mean_changed,
            "surely_changed": {name: found._asdict() for name, found in sure.items()},
            "range_end": {
                "strength": one.high,
                "reached": at_end_changes.reached,
                "mean_changed": at_end_changes.mean_changed,
            },
            "random_changed": None,
            "covered_l1": covered_difference(images, without, test["covered"]),
        }
        if one.norm is not None:
            moved = [
                read(editor.draw(inverted.w_plus + random_step((i, k), strength * one.norm, width)))
                for k in range(NUM_RANDOM)
            ]
            each = [attribute_changes(before, after, one.target).changed for after in moved]
            figures[one.name]["random_changed"] = {
                name: float(np.mean([changed[name] for changed in each])) for name in each[0]
            }
    unedited = editor.draw(inverted.w_plus), editor.draw(inverted.clean)
    facts = {
        "edits": figures,
        "covered_l1_unedited": covered_difference(*unedited, test["covered"]),
        "read_as_drawn": agreement(before, read(test["clean"])),
    }
    return facts, inverted


def random_step(seed: Sequence[int], length: float, width: int) -> np.ndarray:
    """A step [width] in W of some length."""
    step = np.random.default_rng(seed).normal(size=width)
    return (length * step / np.linalg.norm(step)).astype(np.float32)


def agreement(a: Attributes, b: Attributes) -> dict[str, float]:
    """Of each attribute, the share of the images that two readings call alike."""
    return {
        name: float(np.mean(np.array(a.labels(name)) == np.array(b.labels(name))))
        for name in a.chances
    }


def covered_difference(a: np.ndarray, b: np.ndarray, covered: np.ndarray) -> float | None:
    """Mean absolute difference of images [n, H, W, 3] where an obstacle covers the face."""
    return float(np.abs(a - b)[covered].mean()) if covered.any() else None


def reader_accuracy(
    reader: AttributeReader, avatars: dict[str, Any], batch_size: int
) -> dict[str, float]:
    """Of each attribute, how often it is read right from the avatars without obstacles."""
    read = reader.read_all(avatars["clean"], batch_size=batch_size)
    names = factors_of_style(STYLE).names
    found = {}
    for attribute, chances in read.chances.items():
        # A colour's kinds are called by what they colour, beside parts of that name.
        part = attribute.removesuffix("_colour")
        columns = [names.index(f"{part}={kind}") for kind in chances]
        true = np.array(list(chances))[avatars["factors"][:, columns].argmax(axis=1)]
        found[attribute] = float((np.array(read.labels(attribute)) == true).mean())
    return found
