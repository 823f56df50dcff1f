"""CLIP's tokenizer against open_clip's, and what it refuses."""

import sys

import numpy as np
import pytest

from interestyle_jax.data import text_tokens
from interestyle_jax.data.text_tokens import END, START, check_tokens, encode, tokenize
from interestyle_jax.errors import InputError
from tests.models.open_clip_outputs import OUTPUTS


@pytest.fixture(scope="module")
def outputs():
    with np.load(OUTPUTS) as file:
        return dict(file)


def test_tokens_are_open_clips(outputs):
    texts = [str(text) for text in outputs["hard_texts"]]
    np.testing.assert_array_equal(tokenize(texts), outputs["hard_tokens"])


def test_texts_beyond_ascii_go_through_ftfy(outputs, monkeypatch):
    repaired = []

    class Ftfy:
        @staticmethod
        def fix_text(text):
            repaired.append(text)
            return text.replace("“", '"').replace("”", '"').replace("ｆｕｌｌ", "full")

    monkeypatch.setitem(sys.modules, "ftfy", Ftfy)
    texts = [str(text) for text in outputs["foreign_texts"]]
    np.testing.assert_array_equal(tokenize(texts), outputs["foreign_tokens"])
    assert repaired == texts
    tokenize("plain")
    assert repaired == texts


def test_one_text_is_a_row_between_start_and_end():
    (row,) = tokenize("a cat", context_length=8)
    assert row.tolist() == [START, 320, 2368, END, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected words"),
        (" \n\t", "is empty, expected words"),
        ("face " * 76, r"'face face .*\.\.\.' has 78 tokens .*expected at most 77"),
        ([], "none given"),
        (["a", ""], "is empty"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InputError, match=f"^text: .*{message}"):
        tokenize(text)


def test_the_longest_text_fits():
    assert tokenize("face " * 75)[0, -1] == END


def test_beyond_ascii_without_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(InputError, match="'café' is not plain ASCII.*pip install ftfy"):
        encode("café")


def test_words_outside_of_a_small_vocabulary_are_named():
    known = (0, *encode("a face with glasses"), START, END)
    texts = ["glasses", "a face with freckles"]
    check_tokens(tokenize(texts), (), texts)
    check_tokens(tokenize(texts[:1]), known, texts[:1])
    with pytest.raises(InputError, match="'freckles'.*it knows a, face, glasses, with"):
        check_tokens(tokenize(texts), known, texts)


def test_a_damaged_vocabulary_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.gz").write_bytes(b"\x1f\x8b cut off")
    monkeypatch.setattr(text_tokens, "VOCABULARY", tmp_path / "x.gz")
    with pytest.raises(InputError, match="x.gz: not readable, install the package again"):
        text_tokens.vocabulary.__wrapped__()
