"""Words that set a source apart, against the paper's formulas in plain Python, and in cases whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from section_subject import subject_of

from curate.report import page
from curate.report.sections import apart
from curate.report.stopwords import STOP_WORDS
from curate.report.wordcount import tokens

WORDS = ["the", "my", "of", "cat", "dog", "straße", "漢字", "z", "é", "é2", "don't", *(f"w{i}" for i in range(60))]
FAVOURITES = {"redcaps": ["my", "cat", "é"], "it's <b>": ["of", "dog", "z"], "third": []}
SOURCES = tuple(FAVOURITES)


def rows(n: int = 900, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for i in range(n):
        source = draw.choice(SOURCES)
        words = [*WORDS, *FAVOURITES[source] * 8]
        found.append({"source": source, "uid": f"{i:032x}", "caption": " ".join(draw.choice(words) for _ in range(draw.randrange(12)))})
    return found


def numbers(every: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    with subject_of(every, folder) as subject:
        return apart.collect(subject)


def counted(every: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for row in every:
        counts.setdefault(row["source"], Counter()).update(tokens(row["caption"]))
    return counts


def scores(ours: Counter[str], others: Counter[str]) -> dict[str, tuple[float, float]]:
    """Return {word: (log-odds ratio, z)}, term by term as Monroe, Colaresi and Quinn write it."""
    n_i, n_j, pooled = ours.total(), others.total(), ours + others
    a_0 = min(n_i, n_j)
    found = {}
    for word in pooled:
        a_w = a_0 * pooled[word] / pooled.total()
        odds = [(y + a_w) / (n + a_0 - (y + a_w)) for y, n in ((ours[word], n_i), (others[word], n_j))]
        delta = math.log(odds[0]) - math.log(odds[1])
        variance = 1 / (ours[word] + a_w) + 1 / (others[word] + a_w)
        found[word] = (delta, delta / math.sqrt(variance))
    return found


def expected(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts, found = counted(every), []
    for source, ours in counts.items():
        others = sum((c for s, c in counts.items() if s != source), Counter[str]())
        for side, sign in (("over", 1), ("under", -1)):
            by_z = [(sign * z, word, d) for word, (d, z) in scores(ours, others).items() if sign * z >= apart.LEAST]
            by_z.sort(key=lambda item: (-item[0], item[1].encode()))
            content = [item for item in by_z if item[1] not in STOP_WORDS][: apart.TOP]
            stop = [item for item in by_z if item[1] in STOP_WORDS][: apart.TOP_STOP]
            found += [
                {
                    "source": source, "side": side, "word": word, "stop": word in STOP_WORDS, "count": ours[word], "rest": others[word],
                    "per_million": pytest.approx(1e6 * ours[word] / ours.total(), abs=0.005),
                    "rest_per_million": pytest.approx(1e6 * others[word] / others.total(), abs=0.005),
                    "log_odds": pytest.approx(d, abs=5.1e-4), "z": pytest.approx(sign * z, abs=5.1e-3),
                }
                for z, word, d in by_z if (z, word, d) in content or (z, word, d) in stop
            ]  # fmt: skip
    return found


def test_words_are_the_papers(tmp_path: Path) -> None:
    every = rows()
    found = numbers(every, tmp_path)
    assert found["words"] == expected(every)
    assert {row["word"] for row in found["words"] if row["source"] == "redcaps" and row["side"] == "over"} >= {"my", "cat", "é"}
    json.dumps(found, allow_nan=False)


def test_lists_are_cut_and_ties_go_by_bytes(tmp_path: Path) -> None:
    words, stop = [f"n{i}" for i in range(50)] + ["ä", "z"], sorted(STOP_WORDS - {"the"})[:15]
    every = [{"source": "one", "uid": str(i), "caption": " ".join(words + stop)} for i in range(20)]
    every += [{"source": "other", "uid": f"o{i}", "caption": "x y the"} for i in range(300)]
    found = numbers(every, tmp_path)
    over = [row["word"] for row in found["words"] if (row["source"], row["side"]) == ("one", "over")]
    assert over == sorted(sorted(words)[: apart.TOP] + stop[: apart.TOP_STOP])
    assert found["words"] == expected(every)


def test_two_sources_are_each_others_mirror(tmp_path: Path) -> None:
    found = numbers([row for row in rows() if row["source"] != "third"], tmp_path)["words"]
    one, other = ({(r["word"], r["side"], r["z"], r["log_odds"]) for r in found if r["source"] == s} for s in SOURCES[:2])
    opposite = {"over": "under", "under": "over"}
    assert len(one) > 4
    assert other == {(word, opposite[side], -z, -d) for word, side, z, d in one}


def test_sources_that_say_the_same_differ_in_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a cat", "the dog and the cat", "z"]
    every = [{"source": s, "uid": f"{s}{i}", "caption": c} for s in ("one", "two") for i, c in enumerate(captions)]
    found = numbers(every, tmp_path)
    assert found["words"] == []
    assert "no word" in printed(found, ["one", "two"])
    monkeypatch.setattr(apart, "LEAST", 0)
    assert {(row["log_odds"], row["z"]) for row in numbers(every, tmp_path)["words"]} == {(0.0, 0.0)}


def test_ten_times_the_text_keeps_the_order(tmp_path: Path) -> None:
    few = rows(300)
    many = [{**row, "uid": f"{i}-{row['uid']}"} for i in range(9) for row in few]
    one, nine = ({(r["source"], r["word"]): r["z"] for r in numbers(every, tmp_path)["words"]} for every in (few, many))
    assert len(one) > 6
    assert all(nine[key] == pytest.approx(3 * z, abs=0.02) for key, z in one.items())


@pytest.mark.parametrize("other", [[], [{"source": "silent", "uid": "s", "caption": "…"}]])
def test_one_source_is_compared_with_nothing(tmp_path: Path, other: list[dict[str, Any]]) -> None:
    every = [row for row in rows(50) if row["source"] == "redcaps"] + other
    found = numbers(every, tmp_path)
    assert (found["sources"], found["words"], found["samples"]) == ({}, [], {})
    assert "nothing to compare" in printed(found, sorted({row["source"] for row in every}))


def test_a_silent_source_is_left_out(tmp_path: Path) -> None:
    every = [*rows(), {"source": "silent", "uid": "s", "caption": None}]
    found = numbers(every, tmp_path)
    assert set(found["sources"]) == set(SOURCES)
    counts = counted(every[:-1])
    total = sum(c.total() for c in counts.values())
    for source, about in found["sources"].items():
        n = counts[source].total()
        assert about == {"tokens": n, "rest": total - n, "prior": min(n, total - n)}


def test_samples_are_the_lowest_ranks_that_say_the_word(tmp_path: Path) -> None:
    every = rows()
    found = numbers(every, tmp_path)
    for row in found["words"]:
        saying = [(i, r) for i, r in enumerate(every) if r["source"] == row["source"] and row["word"] in tokens(r["caption"])]
        shown = found["samples"][row["source"]][row["word"]]
        assert [(s["uid"], s["caption"], s["source"], s["picture"]) for s in shown] == [
            (r["uid"], r["caption"], r["source"], f"0/0/{i}") for i, r in saying[: apart.SAMPLES]
        ]
    listed = {source: {row["word"] for row in found["words"] if row["source"] == source} for source in SOURCES}
    assert {source: set(samples) for source, samples in found["samples"].items()} == listed


def test_equal_samples_in_any_order_give_equal_words(tmp_path: Path) -> None:
    every = rows()
    shuffled = random.Random(1).sample(every, len(every))
    order = lambda found: sorted(map(json.dumps, found["words"]))
    assert order(numbers(every, tmp_path)) == order(numbers(shuffled, tmp_path))


def printed(found: dict[str, Any], sources: list[str], pictures: dict[str, str] | None = None) -> str:
    template = page.template_environment().get_template("apart.html")
    classes = {s: f"c{i}" for i, s in enumerate(sources)}
    return template.render(values=found, figures={}, classes=classes, pictures=pictures or {}, sources=sources)


def leaves(value: Any) -> set[Any]:
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()))
    return set(itertools.chain(*map(leaves, value))) if isinstance(value, list) else {value}


def test_what_is_printed_stands_in_the_numbers(tmp_path: Path) -> None:
    found = numbers(rows(), tmp_path)
    row = next(row for row in found["words"] if row["word"] == "cat")
    picture = found["samples"][row["source"]]["cat"][0]["picture"]
    html = printed(found, list(SOURCES), {picture: "data:image/webp;base64,AAAA"})
    values = {float(value) for value in re.findall(r'<data value="([^"]*)"', html)}
    assert values <= {float(leaf) for leaf in leaves(found) if isinstance(leaf, int | float)}
    assert f'<data value="{row["z"]}">' in html
    assert 'src="data:image/webp;base64,AAAA"' in html
    assert html.count("<details data-word=") == len(found["words"])
    assert "it&#39;s &lt;b&gt;" in html
    assert "<b>" not in html


def test_a_word_that_no_sample_says_is_told(tmp_path: Path) -> None:
    with subject_of(rows(), tmp_path) as subject:
        found = apart.collect(type(subject)(subject.con, subject.sources, subject.sample.slice(0, 0), {}, (), ()))
    assert not any(itertools.chain(*(words.values() for words in found["samples"].values())))
    assert printed(found, list(SOURCES)).count("No caption of the random sample says it.") == len(found["words"])
