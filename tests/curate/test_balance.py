"""Balanced order: matching against substring search as MetaCLIP defines it, keys against closed forms and a naive twin."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.balance import balance_keys, matcher, read_concepts, words
from shards.core.errors import UsageError

VOCABULARY = ["cat", "dog", "a", "New", "York", "New York", "black cat", "cat, dog", "hot dog", "U.S.", "é"]


def spaced(text: str) -> str:
    """MetaCLIP's way: the text between spaces, punctuation between spaces, then plain substring search."""
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    return f" {' '.join(text.split())} "


@given(st.lists(st.sampled_from(["cat", "dog", "a", "New", "York", "black", "hot", "U.S.", ",", "cat,", "cats", "  ", "é"]), max_size=12))
def test_matching_equals_substring_search(parts: list[str]) -> None:
    caption = " ".join(parts)
    concepts = [" ".join(words(c)) for c in VOCABULARY]
    assert matcher(concepts)(caption) == {i for i, c in enumerate(VOCABULARY) if spaced(c) in spaced(caption)}


def keep_probability(t: float, counts: list[int]) -> float:
    lost = 1.0
    for count in counts:
        lost *= 1 - min(1.0, t / count)
    return 1 - lost


def test_one_concept_has_a_closed_form() -> None:
    """p(t) = t/c, so the key is u·c."""
    draws = np.random.default_rng(0).random(300)
    keys = balance_keys(["a cat"] * 200 + ["a dog"] * 100, draws, ["cat", "dog"])
    np.testing.assert_allclose(keys, draws * np.repeat([200.0, 100.0], [200, 100]), rtol=1e-12)


def test_keys_invert_the_keep_probability() -> None:
    rng = random.Random(1)
    names = ["cat", "dog", "sun", "sky", "sea", "hill"]
    captions = [" ".join(rng.choices(names, weights=[32, 16, 8, 4, 2, 1], k=rng.randint(1, 3))) for _ in range(500)] + ["nothing here"]
    draws = np.random.default_rng(2).random(len(captions))
    keys = balance_keys(captions, draws, names)
    counts = {n: sum(n in c.split() for c in captions) for n in names}
    for caption, draw, key in zip(captions[:-1], draws, keys, strict=False):
        own = [counts[n] for n in set(caption.split())]
        assert keep_probability(key, own) == pytest.approx(draw, abs=1e-9)
    assert keys[-1] == np.inf


def test_a_prefix_is_metaclips_draw_and_balanced() -> None:
    """The samples with key ≤ t are those MetaCLIP keeps at t with the draws u: head concepts come down to about t."""
    n = 20_000
    captions = ["cat"] * (n - 400) + ["axolotl"] * 400
    draws = np.random.default_rng(3).random(n)
    keys = balance_keys(captions, draws, ["cat", "axolotl"])
    first = np.argsort(keys, kind="stable")[:800]
    rare = sum(captions[i] == "axolotl" for i in first)
    assert 340 <= rare <= 460  # a uniform draw of 800 would hold 16
    kept = [keep_probability(300.0, [n - 400 if c == "cat" else 400]) >= u for c, u in zip(captions, draws, strict=True)]
    assert [bool(k <= 300.0) for k in keys] == kept


def test_a_list_of_concepts(tmp_path) -> None:
    file = tmp_path / "concepts.txt"
    file.write_text("cat\n\n cat \nSt. Bernard\n")
    assert read_concepts(str(file)) == ["cat", "St . Bernard"]
    file.write_text("\n")
    with pytest.raises(UsageError, match="no concept in"):
        read_concepts(str(file))
    with pytest.raises(UsageError, match="no list of concepts"):
        read_concepts(str(tmp_path / "none.txt"))
