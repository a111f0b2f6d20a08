"""Word and bigram counts against a plain Counter over `tokens`; `tokens` against a walk over the characters."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.report import wordloop
from curate.report.wordcount import Counts, count, tokens

LETTERS = st.text("abAB'’ 09.-_\n\x00éÉß", max_size=60)
ANY = st.text(max_size=40)
CAPTIONS = st.lists(LETTERS | ANY, max_size=12)


Found = tuple[dict[str, int], dict[str, int], dict[tuple[str, str], int], list[str], list[int], list[int]]


def naive(captions: Iterable[str]) -> Found:
    words, holding, bigrams = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    stream, lengths, distinct = list[str](), list[int](), list[int]()
    for caption in captions:
        found = tokens(caption)
        words.update(found)
        holding.update(set(found))
        bigrams.update(itertools.pairwise(found))
        stream += found
        lengths.append(len(found))
        distinct.append(len(set(found)))
    return words, holding, bigrams, stream, lengths, distinct


def spelled(found: Counts) -> Found:
    names = found.words
    assert len(set(names)) == len(names) == len(found.count) == len(found.captions)
    bigrams = [(names[a], names[b]) for a, b in zip(found.first.tolist(), found.second.tolist(), strict=True)]
    assert len(set(bigrams)) == len(bigrams)
    return (
        dict(zip(names, found.count.tolist(), strict=True)),
        dict(zip(names, found.captions.tolist(), strict=True)),
        dict(zip(bigrams, found.pairs.tolist(), strict=True)),
        [names[i] for i in found.stream.tolist()],
        found.lengths.tolist(),
        found.distinct.tolist(),
    )


def walked(caption: str) -> list[str]:
    """The definition again, a character at a time: letters and numbers, marks behind one, an apostrophe between two."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", caption).casefold())
    variation = lambda c: 0xFE00 <= ord(c) <= 0xFE0F or 0xE0100 <= ord(c) <= 0xE01EF
    text = "".join(c for c in text if c == "\u200b" or not (unicodedata.category(c) == "Cf" or variation(c))).replace("’", "'")
    words, now = [], ""
    for i, c in enumerate(text):
        mark = now and now[-1] != "'" and unicodedata.category(c) in ("Mn", "Mc")
        inside = c == "'" and now and text[i + 1 : i + 2].isalnum()
        if c.isalnum() or mark or inside:
            now += c
        else:
            words += [now] if now else []
            now = ""
    return words + ([now] if now else [])


@given(LETTERS | ANY)
def test_tokens_are_the_walk(caption: str) -> None:
    assert tokens(caption) == walked(caption)


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_captions_are_no_case_of_their_own(caption: str) -> None:
    assert tokens(caption) == tokens(caption + " é")[:-1]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog's life, isn’t it?", ["a", "dog's", "life", "isn't", "it"]),
        ("rock 'n' roll ''quoted'' 90's", ["rock", "n", "roll", "quoted", "90's"]),
        ("IMG_2043.jpg", ["img", "2043", "jpg"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("cafe\u0301 café CAFÉ", ["café"] * 3),
        ("ﬁne ①②", ["fine", "12"]),
        ("co\u00adoperate می\u200cخواهم a\u200bb", ["cooperate", "میخواهم", "a", "b"]),
        ("I ❤️ 1️⃣ 👩‍👩‍👧 NY", ["i", "1", "ny"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("漢字かな", ["漢字かな"]),
        ("\u0301 alone", ["alone"]),
        ("", []),
    ],
)
def test_tokens(caption: str, words: list[str]) -> None:
    assert tokens(caption) == words
    assert spelled(count([caption])) == naive([caption])


@given(CAPTIONS)
@settings(deadline=None)  # the first example may compile the loop
def test_counts_are_the_counters(captions: list[str]) -> None:
    assert spelled(count(captions)) == naive(captions)


@given(st.lists(st.lists(st.sampled_from(["aaaaaaaa", "aaaaaaaab", "aaaaaaaaaaaaaaaab", "Aaaaaaaaaaaaaaaac", "it's", "its"])), max_size=9))
@settings(deadline=None)
def test_words_about_eight_bytes_long(captions: list[list[str]]) -> None:
    joined = [" ".join(words) for words in captions]
    assert spelled(count(joined)) == naive(joined)


def test_tables_grow() -> None:
    rng = random.Random(0)
    captions = [" ".join(f"w{int(rng.paretovariate(0.3)) % 10**6}" for _ in range(12)) for _ in range(20_000)]
    captions.append(" ".join(f"one{i}caption" for i in range(60_000)))
    words, _, bigrams, *_ = naive(captions)
    assert len(words) > 2 * wordloop.WORDS
    assert len(bigrams) > 2 * wordloop.PAIRS
    assert spelled(count(captions)) == naive(captions)


def test_long_words_with_one_key_are_told_apart() -> None:
    """Two words of 16 bytes are made whose keys are equal: the second halves undo the difference of the first ones."""
    mixed = lambda word: int(wordloop._mixed(np.uint64(int.from_bytes(word, "big"))))
    heads = [f"head{i:04d}".encode() for i in range(3000)]
    difference, head = next((d, h) for h in heads[1:] if not (d := mixed(heads[0]) ^ mixed(h)) & 0x8080808080808080)
    ours, theirs = heads[0] + b"\xff" * 8, head + (0xFFFFFFFFFFFFFFFF ^ difference).to_bytes(8, "big")
    data = np.frombuffer(ours + b" " + theirs + b" " + ours, np.uint8)
    rows = wordloop.count_words(data, np.array([0, len(data)]))[0]
    rows = rows[rows[:, 0] != 0]
    assert len(set(rows[:, 0].tolist())) == 1
    assert sorted(rows[:, 2].tolist()) == [1, 2]


def arrays() -> list[Any]:
    captions = ["Ein Hund", None, "", "ein 'Hund' läuft", "dog"]
    whole = pa.array(captions)
    large = pa.array(["x y z", *captions], pa.large_string()).slice(1)
    return [
        whole,
        large,
        pa.chunked_array([whole[:2], whole[2:2], whole[2:]]),
        whole.dictionary_encode(),
        pa.array(captions, pa.string_view()),
    ]


@pytest.mark.parametrize("captions", arrays(), ids=lambda array: str(array.type))
def test_any_array_of_text(captions: Any) -> None:
    assert spelled(count(captions)) == naive(["Ein Hund", "", "", "ein 'Hund' läuft", "dog"])
    assert spelled(count(captions[3:])) == naive(["ein 'Hund' läuft", "dog"])


@pytest.mark.parametrize(
    "captions", [[], pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.nulls(2, pa.string()), ["", "…"]]
)
def test_no_words(captions: Any) -> None:
    found = count(captions)
    assert found.words == []
    assert len(found.pairs) == 0
    assert found.lengths.tolist() == [0] * len(captions)
