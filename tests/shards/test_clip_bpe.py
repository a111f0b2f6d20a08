"""The byte-pair encoder against open_clip's own tokenizer: equal ids, whatever the text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from clip_texts import TEXTS, theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import clip_bpe
from shards.clip_bpe import CONTEXT_LENGTH, ClipBpe, cut_row, fill_rows
from shards.core.errors import RunError, UsageError


@pytest.fixture(scope="module")
def bpe() -> ClipBpe:
    return clip_bpe.clip_bpe()


@given(TEXTS | st.text(st.characters(codec="utf-8"), max_size=30))
@settings(deadline=None, max_examples=300)
@pytest.mark.slow
def test_ids_are_open_clips(text: str) -> None:
    assert clip_bpe.clip_bpe().encode(text) == theirs().encode(text)


def test_start_and_end_are_open_clips(bpe: ClipBpe) -> None:
    assert (bpe.start, bpe.end) == (theirs().sot_token_id, theirs().eot_token_id)
    assert bpe.end == max(theirs().encoder.values())


def test_a_word_has_the_same_ids_from_the_cache() -> None:
    bpe = ClipBpe()
    for word in ("photographers", "don't", "naïve", "x1y2", "<start_of_text>"):
        expected = theirs().encode(word)
        assert [bpe.ids(word), bpe.ids(word)] == [expected, expected]
        assert bpe.count(word) == len(expected)


def test_a_token_that_ends_a_word_is_what_its_letters_merge_into(bpe: ClipBpe) -> None:
    endings = [token.removesuffix("</w>") for token in bpe._token_ids if token.endswith("</w>")]
    assert len(endings) > 30_000
    assert [word for word in endings if bpe._merge(word) != [f"{word}</w>"]] == []


@pytest.mark.parametrize("length", [2, 3, 8, 77])
def test_packed_ids_are_cut_as_open_clip_cuts(bpe: ClipBpe, length: int) -> None:
    texts = ["", "a dog", "photographers " * 50, "<end_of_text> a", "é" * 100, "1 " * 74, "1 " * 75, "1 " * 76]
    out = np.full((len(texts), length), -1, np.int32)
    fill_rows([bpe.packed(text, length) for text in texts], out)
    assert out.tolist() == theirs()(texts, context_length=length).tolist()
    assert [cut_row(bpe.packed(text), length) for text in texts] == [bpe.packed(text, length) for text in texts]


def test_the_cache_of_words_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_bpe, "MAX_WORDS", 3)
    bpe = ClipBpe()
    text = "one two three four five " + "a" * 50
    assert bpe.encode(text) == bpe.encode(text) == theirs().encode(text)
    assert list(bpe._words) == ["one", "two", "three"]
    monkeypatch.setattr(clip_bpe, "MAX_WORDS", 9)
    bpe.encode(text)
    assert list(bpe._words) == ["one", "two", "three", "four", "five"]


def test_rows_that_do_not_fit_are_refused(bpe: ClipBpe) -> None:
    with pytest.raises(UsageError, match="2 rows of ids"):
        fill_rows([bpe.packed("a"), bpe.packed("b")], np.empty((3, 77), np.int32))
    with pytest.raises(UsageError, match="a row of 4 ids"):
        fill_rows([bpe.packed("a dog")], np.empty((1, 3), np.int32))
    nothing = np.empty((0, CONTEXT_LENGTH), np.int64)
    fill_rows([], nothing)


def test_without_open_clip_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_bpe, "VOCABULARY", "no_such_file.gz")
    with pytest.raises(RunError, match="no vocabulary"):
        ClipBpe()


def test_neither_torch_nor_open_clip_is_imported() -> None:
    code = (
        "import sys; from shards.clip_bpe import clip_bpe; clip_bpe().packed('a &amp; ö'); print({'torch', 'open_clip'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
