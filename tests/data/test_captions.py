"""Captions of avatars: true of the avatar they are of, and known where they are true of others."""

import jax
import numpy as np
import pytest

from interestyle_jax.data.avatars import clean_sample
from interestyle_jax.data.avatars.captions import PHRASES, TILTED, captions_of_style
from interestyle_jax.data.avatars.factors import BELL
from interestyle_jax.data.avatars.variation import TILT
from interestyle_jax.data.text_tokens import END, START, check_tokens, tokenize, vocabulary
from interestyle_jax.errors import InputError

COUNT = 24


@pytest.fixture(scope="module")
def drawn():
    return [clean_sample(i, size=16) for i in range(COUNT)]


@pytest.fixture(scope="module")
def captions():
    return captions_of_style("toon-head")


@pytest.fixture(scope="module")
def batch(captions, drawn):
    """Texts, tokens and matches of one draw."""
    factors = np.stack([x["factors"] for x in drawn])
    draw = jax.jit(captions.draw)
    tokens, matches = map(np.asarray, draw(jax.random.key(3), factors))
    symbols = {number: symbol for symbol, number in vocabulary().numbers.items()}
    texts = []
    for row in tokens:
        words = [symbols[n] for n in row.tolist() if n not in (START, END, 0)]
        texts.append("".join(words).replace("</w>", " ").strip())
    return texts, tokens, matches


def is_true(phrase, labels):
    """By the labels that the avatar was drawn with, not its factors."""
    group = next(g for g, phrases in PHRASES.items() if phrase in phrases)
    kinds = PHRASES[group][phrase]
    if group == "tilt":
        # Degrees, positive is clockwise.
        tilted = BELL * labels["tilt"] / TILT[1]
        return tilted > TILTED if kinds == ("+",) else tilted < -TILTED
    if group in labels:
        return labels[group] in kinds
    return None


def phrases_of(text):
    _, _, said = text.partition(" with ")
    known = [p for phrases in PHRASES.values() for p in phrases]
    parts = said.replace("t - shirt", "t-shirt").split(" and ") if said else []
    assert set(parts) <= {*known}
    return parts


def test_captions_read_as_sentences_of_the_tokenizer(batch, captions):
    texts, tokens, _ = batch
    np.testing.assert_array_equal(tokenize(texts, context_length=tokens.shape[1]), tokens)
    check_tokens(tokens, captions.token_ids, texts)
    counts = [len(phrases_of(text)) for text in texts]
    assert min(counts) == 0 and max(counts) == 4
    assert len({text.partition(" with ")[0] for text in texts}) > 3


def test_what_they_say_is_what_was_drawn(batch, drawn):
    texts, _, matches = batch
    assert np.all(np.diag(matches))
    checked = 0
    for i, text in enumerate(texts):
        for j, sample in enumerate(drawn):
            held = [is_true(phrase, sample["labels"]) for phrase in phrases_of(text)]
            checked += len(held)
            if matches[i, j]:
                assert False not in held, (text, sample["labels"])
            elif None not in held and held:
                assert False in held, (text, sample["labels"])
    assert checked > 100
    assert not np.all(matches)


def test_every_kind_has_a_phrase_and_every_draw_another_caption(captions, drawn):
    assert np.all(captions.kinds.sum(axis=0) > 0) and np.all(captions.kinds.sum(axis=1) > 0)
    factors = np.stack([drawn[0]["factors"]] * 8)
    draw = jax.jit(captions.draw)
    first, _ = draw(jax.random.key(0), factors)
    assert len({row.tobytes() for row in np.asarray(first)}) > 5
    np.testing.assert_array_equal(first, draw(jax.random.key(0), factors)[0])


def test_other_styles_have_none():
    with pytest.raises(InputError, match="style: 'personas' has no captions, expected toon-head"):
        captions_of_style("personas")
