"""The vocabulary section against plain Counters over the same captions; what the page prints stands in its numbers."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from section_subject import subject_of

from curate.report import page
from curate.report.plots import colours_of
from curate.report.sections import vocabulary
from curate.report.stopwords import STOP_WORDS
from curate.report.wordcount import tokens

SOURCES = ("redcaps", "it's <b>", "empty")
WORDS = ["the", "a", "of", "cat", "dog", "straße", "漢字", "z", "é", "é2", "don't", "</script>", "$x^2$", *(f"w{i}" for i in range(300))]


def rows(n: int = 600, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    word = lambda: WORDS[min(int(draw.paretovariate(0.7)) - 1, len(WORDS) - 1)]
    found: list[dict[str, Any]] = [
        {"source": draw.choice(SOURCES[:2]), "uid": f"{i:032x}", "caption": " ".join(word() for _ in range(draw.randrange(12)))}
        for i in range(n)
    ]
    return [*found, {"source": "empty", "uid": "f" * 32, "caption": "…"}, {"source": "redcaps", "uid": "e" * 32, "caption": None}]


def numbers(every: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    with subject_of(every, folder, SOURCES) as subject:
        return vocabulary.collect(subject)


def ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0].encode()))


def check(found: dict[str, Any], captions: list[str]) -> None:
    split = [tokens(caption) for caption in captions]
    words, bigrams = Counter(itertools.chain(*split)), Counter(" ".join(pair) for one in split for pair in itertools.pairwise(one))
    holding = Counter(word for one in split for word in set(one))
    assert (found["captions"], found["tokens"], found["types"]) == (len(captions), words.total(), len(words))
    assert found["hapax"] == sum(n == 1 for n in words.values())
    assert found["hapax_share"] == pytest.approx(found["hapax"] / max(len(words), 1), abs=1e-6)
    assert (found["bigrams"]["types"], found["bigrams"]["tokens"]) == (len(bigrams), bigrams.total())
    content = lambda text: STOP_WORDS.isdisjoint(text.split(" "))
    for key, counts in (("word", words), ("bigram", bigrams)):
        lists, order = found[key + "s"], ranked(counts)
        assert [(row[key], row["count"]) for row in lists["all"]] == order[: vocabulary.TOP]
        assert [(row[key], row["count"]) for row in lists["content"]] == [pair for pair in order if content(pair[0])][: vocabulary.TOP]
    assert all(row["captions"] == holding[row["word"]] for row in found["words"]["all"])
    curve = found["zipf"]["curve"]
    assert curve == [[rank, ranked(words)[rank - 1][1]] for rank, _ in curve]
    assert [v for n, v in found["heaps"]["curve"] if n == words.total()] == ([len(words)] if words else [])


@pytest.mark.parametrize("depth", [vocabulary.DEPTH, vocabulary.TOP])
def test_numbers_are_the_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    monkeypatch.setattr(vocabulary, "DEPTH", depth)  # with stop words among the TOP, all bigrams are looked through
    every = rows()
    found = numbers(every, tmp_path)
    assert list(found["sources"]) == list(SOURCES)
    for source in SOURCES:
        check(found["sources"][source], [row["caption"] for row in every if row["source"] == source and row["caption"] is not None])
    check(found["all"], [row["caption"] for row in every if row["caption"] is not None])
    json.dumps(found, allow_nan=False)


def test_the_table_counts_words_in_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "TABLE", 50)
    every = rows()
    table = numbers(every, tmp_path)["table"]
    assert [column["name"] for column in table["columns"]] == ["word", "count", "captions", *SOURCES]
    split = [(row["source"], tokens(row["caption"] or "")) for row in every]
    counts = {source: Counter(w for s, words in split if s == source for w in words) for source in SOURCES}
    together = sum(counts.values(), Counter[str]())
    holding = Counter(word for _, words in split for word in set(words))
    expected = [[word, n, holding[word], *(counts[s][word] for s in SOURCES)] for word, n in ranked(together)[:50]]
    assert table["rows"] == expected


def test_sources_compare_at_the_size_of_the_smallest(tmp_path: Path) -> None:
    every = [{"source": "large", "uid": f"{i}", "caption": f"a b c{i % 7} d{i}"} for i in range(40)]
    every += [{"source": "small", "uid": f"s{i}", "caption": "a b"} for i in range(10)]
    with subject_of(every, tmp_path) as subject:
        found = vocabulary.collect(subject)
    assert found["equal"] == 20
    assert found["sources"]["small"]["rarefied"] == {"tokens": 20, "types": 2}
    assert 10 < found["sources"]["large"]["rarefied"]["types"] < 20


def test_one_source_is_all(tmp_path: Path) -> None:
    every = [row for row in rows() if row["source"] == "redcaps"]
    with subject_of(every, tmp_path) as subject:
        found = vocabulary.collect(subject)
    assert found["all"] == found["sources"]["redcaps"]
    assert [column["name"] for column in found["table"]["columns"]] == ["word", "count", "captions"]


def test_equal_samples_in_any_order_give_equal_numbers(tmp_path: Path) -> None:
    every = rows()
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    shuffled = random.Random(1).sample(every, len(every))
    assert json.dumps(numbers(every, one)) == json.dumps(numbers(shuffled, other))


@pytest.mark.parametrize("captions", [[], ["", None, "…"]])
def test_no_words_at_all(tmp_path: Path, captions: list[Any]) -> None:
    every = [{"source": "redcaps", "uid": f"{i}", "caption": caption} for i, caption in enumerate(captions)]
    with subject_of(every, tmp_path, ["redcaps"]) as subject:
        found = vocabulary.collect(subject)
    assert (found["all"]["tokens"], found["all"]["types"], found["table"]["rows"]) == (0, 0, [])
    assert vocabulary.figures(found, colours_of(["redcaps"])) == {}
    assert "none" in printed(found, ["redcaps"])


def printed(found: dict[str, Any], sources: list[str]) -> str:
    figures = vocabulary.figures(found, colours_of(sources))
    template = page.template_environment().get_template("vocabulary.html")
    return template.render(values=found, figures=figures, classes={s: f"c{i}" for i, s in enumerate(sources)}, pictures={}, sources=sources)


def leaves(value: Any) -> set[Any]:
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()))
    return set().union(*map(leaves, value)) if isinstance(value, list) else {value}


def test_what_is_printed_stands_in_the_numbers(tmp_path: Path) -> None:
    found = numbers(rows(), tmp_path)
    html = printed(found, list(SOURCES))
    values = {float(value) for value in re.findall(r'<data value="([^"]*)"', html)}
    assert len(values) > 100
    assert values <= {float(leaf) for leaf in leaves(found) if isinstance(leaf, int | float)}
    assert f'value="{found["sources"]["redcaps"]["zipf"]["exponent"]}"' in html
    assert "it&#39;s &lt;b&gt;" in html
    assert "<b>" not in html


def test_figures_have_a_line_for_each_source_and_no_text_from_outside(tmp_path: Path) -> None:
    figures = vocabulary.figures(numbers(rows(), tmp_path), colours_of(SOURCES))
    assert list(figures) == ["heaps", "zipf"]
    for svg in figures.values():
        assert "var(--c0)" in svg
        assert "var(--c1)" in svg
        assert "var(--c2)" not in svg  # it has no words
        assert "it's" not in svg
        assert len(svg) < 40_000


def test_stop_words_are_words() -> None:
    assert all(tokens(word) == [word] for word in STOP_WORDS)
    assert {"the", "don't", "s"} < STOP_WORDS
    assert not {"two", "man", "first"} & STOP_WORDS
