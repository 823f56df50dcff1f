"""What an edit changed of an image's attributes: the one that was meant, and all others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from interestyle_jax.evaluation.attributes import Attributes

# Numbers that count as attributes; one has changed where it moved by so many standard deviations.
NUMBERS = ("tilt", "zoom")
MOVED = 1.0
# Shares that a strength is chosen by: enough images reach the target, few others change.
ENOUGH = 0.9
# The chance of the likeliest kind from which on a reading counts as sure.
SURE = 0.9


class AttributeChanges(NamedTuple):
    """Shares of images.

    Attributes:
      reached: of the images that did not show the target before, the share that does; None
        where all did.
      eligible: how many did not.
      changed: {other attribute: share of all images in which it changed}.
    """

    reached: float | None
    eligible: int
    changed: dict[str, float]

    @property
    def mean_changed(self) -> float:
        """The mean over the other attributes."""
        return float(np.mean(list(self.changed.values())))


def shows(read: Attributes, name: str) -> Bool[np.ndarray, " B"]:
    """Which images [B] show what a name of `Attributes.scores` says: its likeliest kind.

    Raises:
      InputError: an unknown name, or a number, which is there more or less.
    """
    read.scores(name)
    attribute, equals, kind = name.partition("=")
    if attribute in read.numbers:
        return np.zeros(len(read.numbers[attribute]), bool)
    labels = np.array(read.labels(attribute))
    return labels == kind if equals else labels != "none"


def attribute_changes(before: Attributes, after: Attributes, name: str) -> AttributeChanges:
    """Compares what images show before and after an edit.

    Args:
      before: of B images.
      after: of the same, edited.
      name: what the edit is meant to bring, of `Attributes.scores`: "hair=bun", "beard" (any), or
        a number such as "tilt", which is to grow by `MOVED`.

    Raises:
      InputError: an unknown name.
    """
    had = shows(before, name)
    meant = name.partition("=")[0]
    if meant in before.numbers:
        found = _moves(before, after, meant) >= MOVED
    else:
        found = shows(after, name)
    changed = {
        attribute: _share(_differ(before, after, attribute))
        for attribute in before.chances
        if attribute != meant
    }
    for number in NUMBERS:
        if number in before.numbers and number != meant:
            changed[number] = _share(np.abs(_moves(before, after, number)) >= MOVED)
    eligible = int((~had).sum())
    return AttributeChanges(_share(found[~had]) if eligible else None, eligible, changed)


class SureChanges(NamedTuple):
    """Of images whose attribute is read surely both times.

    Attributes:
      share: the share in which the readings differ; None of no image.
      images: how many they are.
    """

    share: float | None
    images: int


def sure_changes(before: Attributes, after: Attributes, name: str) -> dict[str, SureChanges]:
    """How often one sure reading follows another, for each attribute that was not meant.

    A reading that was a toss-up falls the other way with any step; one of `SURE` chance does not.

    Args:
      before, after, name: as of `attribute_changes`. Numbers have no chances and are left out.
    """
    found = {}
    for attribute in before.chances:
        if attribute == name.partition("=")[0]:
            continue
        sure = _is_sure(before, attribute) & _is_sure(after, attribute)
        share = _share(_differ(before, after, attribute)[sure]) if sure.any() else None
        found[attribute] = SureChanges(share, int(sure.sum()))
    return found


def _differ(before: Attributes, after: Attributes, attribute: str) -> Bool[np.ndarray, " B"]:
    return np.array(before.labels(attribute)) != np.array(after.labels(attribute))


def _is_sure(read: Attributes, attribute: str) -> Bool[np.ndarray, " B"]:
    return np.stack([*read.chances[attribute].values()]).max(0) >= SURE


def choose_strength(found: dict[float, AttributeChanges], *, enough: float = ENOUGH) -> float:
    """The strength to use of those that were measured, on images that are not tested later.

    Of those with which at least `enough` of the images reach the target, the one that changes the
    other attributes least; where none does, the one that reaches most.
    """
    good = {s: one.mean_changed for s, one in found.items() if (one.reached or 0) >= enough}
    if good:
        return min(good, key=lambda s: (good[s], abs(s)))
    return max(found, key=lambda s: (found[s].reached or 0, -abs(s)))


def _moves(before: Attributes, after: Attributes, name: str) -> Float[np.ndarray, " B"]:
    return after.numbers[name] - before.numbers[name]


def _share(of: np.ndarray) -> float:
    return float(of.mean())
