"""Texts as CLIP's tokens: byte pairs of the vocabulary that OpenAI's and its followers share.

Source: openai/CLIP `simple_tokenizer.py`; the vocabulary file is its own (THIRD_PARTY.md).
"""

import functools
import gzip
import html
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from interestyle_jax.errors import InputError

VOCABULARY = Path(__file__).resolve().parents[1] / "assets/clip/bpe_simple_vocab_16e6.txt.gz"
CONTEXT_LENGTH = 77
# Tokens of a whole vocabulary: bytes, bytes that end a word, merges, start and end.
VOCAB_SIZE = 49408
START, END = VOCAB_SIZE - 2, VOCAB_SIZE - 1
MERGES = VOCAB_SIZE - 2 * 256 - 2
# What a word's last symbol carries.
WORD_END = "</w>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
LONGEST_SHOWN = 40


class Vocabulary(NamedTuple):
    """Symbols and how they merge.

    Attributes:
      letters: the printable stand-in of every byte.
      numbers: {symbol: token}.
      ranks: {pair of symbols: its place among the merges}.
    """

    letters: Mapping[int, str]
    numbers: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]


@functools.cache
def vocabulary() -> Vocabulary:
    """The vocabulary, read once.

    Raises:
      InputError: the package's file is missing or damaged.
    """
    try:
        lines = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")
        merges = [(a, b) for a, b in (line.split() for line in lines[1 : MERGES + 1])]
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{VOCABULARY}: not readable, install the package again") from error
    letters = _byte_letters()
    symbols = [*letters.values(), *(x + WORD_END for x in letters.values())]
    symbols += [a + b for a, b in merges]
    numbers = {symbol: i for i, symbol in enumerate(symbols)}
    return Vocabulary(letters, numbers, {pair: i for i, pair in enumerate(merges)})


def tokenize(
    texts: str | Sequence[str], *, context_length: int = CONTEXT_LENGTH
) -> Int32[np.ndarray, "N T"]:
    """Texts as token numbers [N, T]: start, the text, end, zeros.

    Args:
      texts: one text (N = 1) or several. Beyond ASCII the package `ftfy` is needed, as CLIP's
        texts went through it.
      context_length: T.

    Raises:
      InputError: no text, an empty one, one of more than T tokens, or one beyond ASCII without
        `ftfy`.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise InputError("text: none given, expected at least one")
    rows = np.zeros((len(texts), context_length), np.int32)
    for row, text in zip(rows, texts, strict=True):
        tokens = [START, *encode(text), END]
        if len(tokens) > context_length:
            raise InputError(
                f"text: {_shown(text)} has {len(tokens)} tokens with its start and end, expected "
                f"at most {context_length}; make it shorter"
            )
        row[: len(tokens)] = tokens
    return rows


def encode(text: str) -> list[int]:
    """A text's tokens without start and end.

    Raises:
      InputError: the text is empty, or beyond ASCII without `ftfy`.
    """
    known = vocabulary()
    tokens: list[int] = []
    for word in _words(_clean(text)):
        symbols = [known.letters[byte] for byte in word.encode()]
        tokens += [known.numbers[symbol] for symbol in _merge(symbols, known)]
    return tokens


def check_tokens(
    tokens: Int32[np.ndarray, "N T"], known: Sequence[int], texts: Sequence[str]
) -> None:
    """Raises InputError where a text has a token that a small vocabulary lacks.

    Args:
      tokens: [N, T], as `tokenize` gives them.
      known: the vocabulary's tokens, () for all.
      texts: what the tokens were, for the message.
    """
    if not known:
        return
    for text, row in zip(texts, tokens, strict=True):
        unknown = sorted(set(row.tolist()) - {*known, 0})
        if unknown:
            missing = ", ".join(repr(_symbol(token)) for token in unknown)
            words = sorted(_symbol(token) for token in known if 0 < token < START)
            raise InputError(
                f"text: {_shown(text)} has words that this CLIP was not trained with ({missing}); "
                f"it knows {', '.join(words)}"
            )


def _symbol(token: int) -> str:
    # In the order of their numbers, as they were made.
    return next(s for s, n in vocabulary().numbers.items() if n == token).removesuffix(WORD_END)


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def _clean(text: str) -> str:
    """Repaired characters, no HTML entities, single blanks, lower case."""
    if not text.isascii():
        try:
            import ftfy
        except ImportError as error:
            raise InputError(
                f"text: {_shown(text)} is not plain ASCII, which needs the package ftfy "
                "(pip install ftfy)"
            ) from error
        text = ftfy.fix_text(text)
    cleaned = " ".join(html.unescape(html.unescape(text)).split()).lower()
    if not cleaned:
        raise InputError(f"text: {_shown(text)} is empty, expected words")
    return cleaned


def _kind(letter: str) -> str:
    if letter.isspace():
        return "blank"
    category = unicodedata.category(letter)[0]
    return {"L": "letter", "N": "number"}.get(category, "other")


def _words(text: str) -> list[str]:
    """Runs of letters, single numerals, runs of other characters; contractions are words."""
    words, i = [], 0
    while i < len(text):
        found = next((c for c in CONTRACTIONS if text.startswith(c, i)), None)
        if found is None:
            end, kind = i + 1, _kind(text[i])
            while kind in ("letter", "other") and end < len(text) and _kind(text[end]) == kind:
                end += 1
            found = text[i:end]
            if kind == "blank":
                i = end
                continue
        words.append(found)
        i += len(found)
    return words


def _merge(symbols: list[str], known: Vocabulary) -> list[str]:
    """The symbols of a word after all merges, the earliest of the list first."""
    symbols = [*symbols[:-1], symbols[-1] + WORD_END]
    while len(symbols) > 1:
        pairs = zip(symbols, symbols[1:], strict=False)
        rank, first = min((known.ranks.get(pair, MERGES), pair) for pair in pairs)
        if rank == MERGES:
            break
        merged, i = [], 0
        while i < len(symbols):
            two = tuple(symbols[i : i + 2])
            merged.append("".join(two) if two == first else symbols[i])
            i += 2 if two == first else 1
        symbols = merged
    return symbols


def _byte_letters() -> dict[int, str]:
    """Printable bytes as themselves, others as letters from 256 on; in the vocabulary's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}
