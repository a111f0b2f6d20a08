"""Counts of CLIP tokens against open_clip's own tokenizer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from clip_texts import TEXTS, theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.report.clip_tokens import clip_tokens


def expected(captions: list[str]) -> list[int]:
    return [len(theirs().encode(caption)) for caption in captions]


@given(st.lists(TEXTS, max_size=6))
@settings(deadline=None)
def test_counts_are_open_clips(captions: list[str]) -> None:
    assert clip_tokens(pa.array(captions, pa.string())).tolist() == expected(captions)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=6))
@settings(deadline=None, max_examples=300)
def test_counts_are_open_clips_over_all_of_unicode(captions: list[str]) -> None:
    assert clip_tokens(pa.array(captions, pa.string())).tolist() == expected(captions)


@pytest.mark.parametrize(
    ("array", "tokens"),
    [
        (pa.array(["a dog", None, "", "two  dogs"]), [2, 0, 0, 2]),
        (pa.array(["x", "a dog", None, "two dogs\t"], pa.large_string()).slice(1), [2, 0, 2]),
        (pa.chunked_array([["a dog"], [], ["a"]], pa.string()), [2, 1]),
        (pa.chunked_array([], pa.string()), []),
        (pa.array([" ", ""]), [0, 0]),
    ],
)
def test_any_array_of_text(array: Any, tokens: list[int]) -> None:
    assert clip_tokens(array).tolist() == tokens


def test_a_word_without_end_takes_no_age() -> None:
    long = "ab" * 5_000
    assert clip_tokens(pa.array([long])).tolist() == [len(theirs().encode(long[:2_000])) * 5]


def test_torch_is_not_imported() -> None:
    code = "import sys, pyarrow as pa; from curate.report.clip_tokens import clip_tokens; clip_tokens(pa.array(['a &amp; ö'])); print('torch' in sys.modules, 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False False\n"
