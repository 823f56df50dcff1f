"""Captions of avatars, from the factors that they were drawn with.

A caption names a few of the things that an image shows: "a face with blond hair and a smile". Which
of these phrases are true of an image, and of every other image, is known exactly.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, PRNGKeyArray

from interestyle_jax.data.avatars.factors import factors_of_style
from interestyle_jax.data.text_tokens import END, START, encode
from interestyle_jax.errors import InputError

# A caption has up to so many phrases.
MOST_PHRASES = 4
# What it begins with; the first of them also end it, where it has no phrase.
SUBJECTS = ("a face", "a person", "a head", "an avatar", "a picture of a person", "someone")
WITH, AND = "with", "and"
CLOSED = ("bow", "happy", "humble")
LONG = ("longStraight", "longWavy")
BEARDS = ("chin", "chinMoustache", "fullBeard", "longBeard")

# Group of factors -> {phrase: the kinds of which it is true}.
PHRASES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "beard": {
        "no beard": ("none",),
        "a shaved chin": ("none", "moustacheTwirl"),
        "a beard": BEARDS,
        "a goatee": ("chin", "chinMoustache"),
        "a full beard": ("fullBeard",),
        "a long beard": ("longBeard",),
        "a moustache": ("moustacheTwirl", "chinMoustache"),
    },
    "clothes": {
        "a dress": ("dress",),
        "an open jacket": ("openJacket",),
        "a jacket": ("openJacket",),
        "a shirt": ("shirt",),
        "a t-shirt": ("tShirt",),
        "a turtleneck": ("turtleNeck",),
    },
    "eyebrows": {
        "angry eyebrows": ("angry",),
        "happy eyebrows": ("happy",),
        "straight eyebrows": ("neutral",),
        "raised eyebrows": ("raised",),
        "sad eyebrows": ("sad",),
    },
    "eyes": {
        "closed eyes": CLOSED,
        "open eyes": ("wide",),
        "wide eyes": ("wide",),
        "a wink": ("wink",),
    },
    "hair": {
        "hair in a bun": ("bun",),
        "a bun": ("bun",),
        "combed hair": ("sideComed",),
        "spiky hair": ("spiky",),
        "an undercut": ("undercut",),
    },
    "mouth": {
        "an open mouth": ("agape", "laugh", "angry"),
        "a surprised mouth": ("agape",),
        "an angry mouth": ("angry",),
        "a laugh": ("laugh",),
        "a sad mouth": ("sad",),
        "a smile": ("smile", "laugh"),
        "a closed mouth": ("smile", "sad"),
    },
    "rear_hair": {
        "short hair": ("none",),
        "long hair": LONG,
        "long straight hair": ("longStraight",),
        "long wavy hair": ("longWavy",),
        "hair to the neck": ("neckHigh",),
        "hair to the shoulders": ("shoulderHigh",),
    },
    "skin": {
        "dark skin": ("#5c3829",),
        "brown skin": ("#a36b4f",),
        "tan skin": ("#b98e6a", "#c68e7a"),
        "light skin": ("#f1c3a5",),
        "pale skin": ("#f1c3a5",),
    },
    "hair colour": {
        "black hair": ("#2c1b18",),
        "blond hair": ("#d6b370",),
        "brown hair": ("#724133",),
        "red hair": ("#a55728",),
        "golden hair": ("#b58143",),
    },
    "clothes colour": {
        f"{colour} clothes": (code,)
        for colour, code in {
            "black": "#151613",
            "blue": "#0b3286",
            "grey": "#545454",
            "green": "#147f3c",
            "orange": "#f97316",
            "pink": "#ec4899",
            "purple": "#731ac3",
            "red": "#b11f1f",
            "white": "#e8e9e6",
            "yellow": "#eab308",
        }.items()
    },
    # By the sign of the factor; upright ones are neither.
    "tilt": {"a head tilted to the left": ("-",), "a head tilted to the right": ("+",)},
}
# How far, in standard deviations, a head counts as tilted.
TILTED = 0.8


@dataclasses.dataclass(frozen=True)
class Captions:
    """The phrases of a style as arrays, to make captions inside a compiled step.

    Attributes:
      phrases: P phrases.
      groups: [P], the number of each one's group.
      kinds: [P, K], 1 where a phrase is true of a kind.
      columns: of the factors, the K - 2 columns of kinds; the last two are tilts.
      tilt: the column of the tilt.
      tokens: [P, W], of each phrase, then zeros.
      subjects: [S, V], of what captions begin with.
      context_length: T, the length of a caption's tokens.
    """

    phrases: tuple[str, ...]
    groups: Int32[np.ndarray, " P"]
    kinds: Float[np.ndarray, "P K"]
    columns: Int32[np.ndarray, " k"]
    tilt: int
    tokens: Int32[np.ndarray, "P W"]
    subjects: Int32[np.ndarray, "S V"]
    context_length: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Every token that captions have, ascending, with 0 for what follows the end."""
        words = {*self.tokens.ravel().tolist(), *self.subjects.ravel().tolist()}
        return tuple(sorted(words | {0, START, END, *encode(WITH), *encode(AND)}))

    def true_phrases(self, factors: Float[jax.Array, "B F"]) -> Bool[jax.Array, "B P"]:
        """Which phrases are true of avatars with these factors [B, F]: [B, P]."""
        tilt = factors[:, self.tilt, None]
        shown = jnp.concatenate([factors[:, self.columns], tilt < -TILTED, tilt > TILTED], axis=1)
        return jnp.any((shown[:, None] > 0.5) & (self.kinds[None] > 0), axis=-1)

    def draw(
        self, key: PRNGKeyArray, factors: Float[jax.Array, "B F"]
    ) -> tuple[Int32[jax.Array, "B T"], Bool[jax.Array, "B B"]]:
        """A caption for each avatar, and of which avatars each of them is true.

        Args:
          key: of the choice: a subject and 0 to `MOST_PHRASES` phrases of different groups.
          factors: [B, F].

        Returns:
          Tokens [B, T], and matches [B, B]: caption i is true of avatar j.
        """
        keys = jax.random.split(key, 4)
        true = self.true_phrases(factors)
        batch = len(factors)
        score = jnp.where(true, jax.random.uniform(keys[0], true.shape), -1.0)
        groups = np.arange(self.groups.max() + 1)
        own = self.groups[None, :] == groups[:, None]
        by_group = jnp.where(own[None], score[:, None], -2.0)
        best, phrase = by_group.max(-1), by_group.argmax(-1)
        # Groups of which nothing is true (an upright head) come last and are never said.
        order = jnp.where(best > 0, jax.random.uniform(keys[1], best.shape), 2.0)
        chosen = jnp.argsort(order, axis=1)[:, :MOST_PHRASES]
        said = jnp.take_along_axis(phrase, chosen, axis=1)
        count = jax.random.randint(keys[2], (batch, 1), 0, MOST_PHRASES + 1)
        spoken = (jnp.arange(MOST_PHRASES) < count) & (
            jnp.take_along_axis(best, chosen, axis=1) > 0
        )
        subject = jax.random.randint(keys[3], (batch,), 0, len(self.subjects))
        tokens = self._sentence(subject, said, spoken)
        # Captions, avatars, phrases.
        agrees = true[:, said].transpose(1, 0, 2)
        return tokens, jnp.all(agrees | ~spoken[:, None, :], axis=-1)

    def _sentence(self, subject: jax.Array, said: jax.Array, spoken: jax.Array) -> jax.Array:
        batch = len(subject)

        def word(number: int) -> jax.Array:
            return jnp.full((batch, 1), number, jnp.int32)

        parts = [word(START), jnp.asarray(self.subjects)[subject]]
        for i in range(said.shape[1]):
            joint = encode(WITH if i == 0 else AND)
            phrase = jnp.concatenate(
                [*(word(token) for token in joint), jnp.asarray(self.tokens)[said[:, i]]], axis=1
            )
            parts.append(jnp.where(spoken[:, i, None], phrase, 0))
        sentence = jnp.concatenate([*parts, word(END)], axis=1)
        # What is not said closes up.
        order = jnp.argsort(sentence == 0, axis=1, stable=True)
        sentence = jnp.take_along_axis(sentence, order, axis=1)
        return sentence[:, : self.context_length]


@functools.cache
def captions_of_style(style: str) -> Captions:
    """The captions of a style.

    Raises:
      InputError: a style whose parts have no phrases.
    """
    factors = factors_of_style(style)
    names, columns, kinds, rows = factors.names, [], [], []
    colours = {"skin": "skin", "hair": "hair colour", "clothes": "clothes colour"}
    known = {group: [(group, k) for k in values] for group, values in factors.parts.items()}
    known |= {
        colours.get(group, group): [(group, k) for k in values]
        for group, values in factors.colours.items()
    }
    for group, phrases in PHRASES.items():
        said = {kind for true in phrases.values() for kind in true}
        if group != "tilt" and {k for _, k in known.get(group, [])} != said:
            raise InputError(f"style: {style!r} has no captions, expected toon-head")
    for group, pairs in known.items():
        columns += [names.index(f"{name}={kind}") for name, kind in pairs]
        kinds += [(group, kind) for _, kind in pairs]
    kinds += [("tilt", "-"), ("tilt", "+")]
    for group, phrases in PHRASES.items():
        for phrase, true in phrases.items():
            rows.append((phrase, group, [float(g == group and k in true) for g, k in kinds]))
    groups = list(PHRASES)
    tokens = _padded([encode(phrase) for phrase, _, _ in rows])
    subjects = _padded([encode(subject) for subject in SUBJECTS])
    longest = 2 + subjects.shape[1] + MOST_PHRASES * (tokens.shape[1] + 1)
    return Captions(
        tuple(phrase for phrase, _, _ in rows),
        np.array([groups.index(group) for _, group, _ in rows], np.int32),
        np.array([true for _, _, true in rows], np.float32),
        np.array(columns, np.int32),
        names.index("tilt"),
        tokens,
        subjects,
        longest,
    )


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in zip(table, rows, strict=True):
        row[: len(tokens)] = tokens
    return table
