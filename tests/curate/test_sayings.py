"""`--word`: counts and captions against a plain loop over the captions, in rank order; no caption commands the terminal."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import make_tar
from report_synthetic import Row, write_build

from curate.cli import main
from curate.report.native import source_of
from curate.report.sayings import places, print_word, sayings, text
from curate.report.subject import Subject, open_subject
from curate.report.wordcount import tokens
from shards.core import console
from shards.core.errors import UsageError
from shards.index import index
from shards.manifest import read_manifest
from shards.reader import read_samples

WORDS = ("cat", "Cat", "ｃａｔ", "dog", "don't", "DON\u2019T", "cafe\u0301", "café", "ﬁsh", "fish", "a", "a", "of")
PHRASES = ("cat", "CAT", "don't", "café", "fish", "a a", "a cat", "cat a", "a a a", "a cat of", "dog of a cat", "rare", "cat rare")


def captions_of(n: int) -> list[str]:
    rng = random.Random(0)
    gaps = (" ", " ", ", ", "\n", "/", " \u200b", "…")
    found = ["".join(rng.choice(WORDS) + rng.choice(gaps) for _ in range(rng.randrange(0, 9))) for _ in range(n)]
    return [*found[:-1], "the only rare one"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("sayings") / "build"
    rows = [Row("redcaps" if i % 3 else "it's", str(i), caption) for i, caption in enumerate(captions_of(120))]
    write_build(out, rows, per_shard=25)
    return str(out)


@pytest.fixture
def subject(built: str) -> Iterator[Subject]:
    with open_subject([read_manifest(built)], engine="inline") as found:
        yield found


def naive(folder: str, word: str) -> dict[str, list[tuple[str, str, int]]]:
    """Return source → (uid, caption, times) of the captions that say it, in order."""
    phrase = tokens(word)
    found: dict[str, list[tuple[str, str, int]]] = {"redcaps": [], "it's": []}
    for sample in read_samples(read_manifest(folder), [], ("uid", "source", "caption")):
        said = tokens(sample.row["caption"])
        times = sum(said[i : i + len(phrase)] == phrase for i in range(len(said)))
        if times:
            found[sample.row["source"]].append((sample.row["uid"], sample.row["caption"], times))
    return found


@pytest.mark.parametrize("word", PHRASES)
def test_counts_and_rows_are_those_of_a_plain_loop(built: str, subject: Subject, word: str) -> None:
    found = sayings(subject, word, 4)
    for source, rows in naive(built, word).items():
        told = found["sources"][source]
        assert (told["captions"], told["occurrences"]) == (len(rows), sum(times for _, _, times in rows))
        assert [(row["uid"], row["caption"]) for row in told["rows"]] == [row[:2] for row in rows[:4]]
        assert all(len(row["at"]) == times for row, (_, _, times) in zip(told["rows"], rows, strict=False) if row["at"])
        everything = [c for c in read_samples(read_manifest(built), [], ("source", "caption")) if c.row["source"] == source]
        said = sum(len(tokens(c.row["caption"])) for c in everything)
        assert told["per_million"] == round(1e6 * told["occurrences"] / said, 1)
        assert told["share"] == round(len(rows) / len(everything), 6)
        assert (told["tokens"], told["all_captions"]) == (said, len(everything))


def test_shards_are_read_until_each_source_has_its_rows(subject: Subject) -> None:
    assert sayings(subject, "a", 2)["shards"] == {"read": 1, "all": 5}
    assert sayings(subject, "rare", 2)["shards"]["read"] <= 5
    assert sayings(subject, "a", 0)["shards"]["read"] == 0
    assert sayings(subject, "a cat", 0)["shards"]["read"] == 5, "a phrase is counted in all captions"
    assert sayings(subject, "nowhere at all", 9)["shards"]["read"] == 0
    assert sayings(subject, "rare dog", 9)["shards"]["read"] == 0, "no such bigram: nothing to read"


def test_nobody_says_it(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_word(subject, "fihs", 3) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no caption says 'fihs'\n  'fihs' is no word of theirs; near it: fish\n")
    assert print_word(subject, "rare dog", 3, json=True) == 1
    assert json.loads(capsys.readouterr().out)["near"] == {}
    with pytest.raises(UsageError, match="no word in '!!'"):
        sayings(subject, "!!", 3)


def test_json_is_the_dictionary_and_stderr_names_the_shards(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_word(subject, "rare", 3, json=True) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [source["captions"] for source in found["sources"].values()] in ([1, 0], [0, 1])
    assert [row["at"] for source in found["sources"].values() for row in source["rows"]] == [[[9, 13]]]
    assert said.err == f"1 captions from {found['shards']['read']} of 5 shards\n"


@given(st.text("aB' ,\u2019é\u0301\u200bﬁ", max_size=30) | st.text(max_size=15), st.data())
@settings(deadline=None)
def test_places_say_the_phrase(caption: str, data: st.DataObject) -> None:
    said = tokens(caption)
    if not said:
        return
    start = data.draw(st.integers(0, len(said) - 1))
    phrase = said[start : start + data.draw(st.integers(1, 3))]
    found = places(caption, phrase)
    assert len(found) in (0, sum(said[i : i + len(phrase)] == phrase for i in range(len(said))))
    for first, last in found:  # what stands there has the phrase, and no word more than the piece it is in
        here = tokens(caption[first:last])
        assert phrase in [here[i : i + len(phrase)] for i in range(len(here))]


def test_places_by_hand() -> None:
    assert places("A cat, the CAT's cat", ["cat"]) == [(2, 5), (17, 20)], "CAT's is another word"
    assert places("one ｃａｔ/dog", ["cat"]) == [(4, 7)]
    assert places("a a a", ["a", "a"]) == [(0, 3), (2, 5)]
    assert places("le cafe\u0301, here", ["café"]) == [(3, 9)], "a mark by itself is no letter: the word between white space"
    assert places("dog", ["cat"]) == []


ROW: dict[str, Any] = {"source": "x", "uid": "0123"}


def found_of(*captions: str, word: str = "cat") -> dict[str, Any]:
    rows = [{**ROW, "caption": caption, "at": places(caption, [word])} for caption in captions]
    told = {"captions": 2, "all_captions": 40, "tokens": 400, "occurrences": 3, "share": 0.05, "per_million": 7500.0}
    return {"tokens": [word], "sources": {"x": {**told, "rows": rows}}}


def test_text_by_hand() -> None:
    said = text(found_of("my cat and your cat", "猫 " * 12 + "a cat " + "on a mat " * 9), 56, False)
    assert said.split("\n") == [
        "source  captions  of all  occurrences  per million words",
        "------  --------  ------  -----------  -----------------",
        "x              2    5.0%            3              7,500",
        "",
        "x",
        "  0123  my *cat* and your *cat*",
        "  0123  …猫 猫 猫 猫 a *cat* on a mat on a mat on a mat…",  # 56 columns
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_hostile_captions_stay_on_their_line(width: int) -> None:
    hostile = (
        "\x1b[31m cat \x1b[2J " * 30,
        "cat\n\r\x9b2J",
        "\u202e cat" * 9,
        "שלום cat " * 20,
        "猫" * 300 + " cat",
        "\u0301" * 5000 + " cat",
        "",
    )
    lines = text(found_of(*hostile), width, False).split("\n")
    assert len(lines) == 5 + len(hostile)
    assert all(console.width_of(line) <= max(width, 56) for line in lines)
    assert not {c for line in lines for c in line if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2028"}
    assert sum("*cat" in line for line in lines) == len(hostile) - 1


def test_colour_marks_the_word_in_bold() -> None:
    line = text(found_of("my cat"), 80, True).split("\n")
    assert line[-1] == "  0123  my \x1b[1mcat\x1b[0m"
    assert line[-2] == "\x1b[38;5;32mx\x1b[0m"


def test_foreign_tars_say_their_keys(tmp_path: Path) -> None:
    for n in range(3):
        members = [
            (f"{n}{i}.{ext}", content)
            for i, c in enumerate((b"a cat", b"a dog", b"\xff cat"))
            for ext, content in (("jpg", b"x"), ("txt", c))
        ]
        make_tar(tmp_path / f"{n}.tar", members)
    with open_subject([index(str(tmp_path), engine="inline")], engine="inline") as subject:
        found = sayings(subject, "cat", 5)
    (source,) = found["sources"].values()
    assert [row["uid"] for row in source["rows"]] == ["00", "02", "10", "12", "20"]
    assert (source["captions"], source["occurrences"]) == (6, 6)


def test_native_metadata_says_what_its_sample_and_statistics_say(subject: Subject) -> None:
    native = dataclasses.replace(subject, manifests=(), labels=())
    with_shards, without = sayings(subject, "cat", 3), sayings(native, "cat", 3)
    assert without["shards"] == {"read": 0, "all": 0}
    for one, other in zip(with_shards["sources"].values(), without["sources"].values(), strict=True):
        assert (one["captions"], one["occurrences"], one["rows"]) == (other["captions"], other["occurrences"], other["rows"])
    pair = sayings(native, "a cat", 3)["sources"]
    assert {name: one["occurrences"] for name, one in pair.items()} == {
        name: one["occurrences"] for name, one in sayings(subject, "a cat", 0)["sources"].items()
    }
    assert [one["captions"] for one in pair.values()] == [None, None]
    assert "a cat of" not in text(sayings(native, "a cat of", 1), 80, False).split("\n")[0]


def test_shards_and_native_metadata_beside_each_other(built: str, tmp_path: Path) -> None:
    lines = [f"{caption}\thttps://example.org/{i}.jpg" for i, caption in enumerate(("a cat", "two cats", "a cat of a cat")) for _ in (0, 1)]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    source = source_of("cc3m", str(tmp_path / "train.tsv"), {})
    with open_subject([built], engine="inline", sources=[source]) as subject:
        native = next(label for label in subject.sources if "cc3m" in label)
        word, phrase = sayings(subject, "cat", 3)["sources"], sayings(subject, "a cat", 3)["sources"]
        expected = {subject.labels[0][source]: rows for source, rows in naive(built, "a cat").items()}
    assert {source: one["captions"] for source, one in phrase.items()} == {s: len(rows) for s, rows in expected.items()} | {native: None}
    assert (phrase[native]["occurrences"], word[native]["occurrences"], word[native]["captions"]) == (6, 6, 4)
    assert {row["caption"] for row in phrase[native]["rows"]} <= {"a cat", "a cat of a cat"}
    assert len(phrase[native]["rows"]) == len(word[native]["rows"]) == 3


def test_the_command_line(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", built, "--word", "Cat", "--most", "1", "--engine", "inline"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("source ")
    assert said.out.count("*") >= 2
    assert said.err.endswith("captions from 1 of 5 shards\n")
    assert main(["report", built, "--word", "elephant", "--engine", "inline"]) == 1
    assert main(["report", built, "--word", "!", "--engine", "inline"]) == 2
    assert not (Path(built) / "report.html").exists()


def test_labels_name_the_sources_of_each_set(built: str, subject: Subject) -> None:
    labels = {"redcaps": "one", "it's": "two"}
    for table in ("words", "bigrams", "others"):
        for name, label in labels.items():
            subject.con.execute(f"UPDATE {table} SET source = $1 WHERE source = $2", [label, name])
    renamed = dataclasses.replace(subject, sources=("one", "two"), labels=(labels,))
    for word, most in itertools.product(("cat", "a cat"), (2, 200)):
        found = sayings(renamed, word, most)["sources"]
        for source, rows in naive(built, word).items():
            told = found[labels[source]]
            assert [row["uid"] for row in told["rows"]] == [row[0] for row in rows[:most]]
            assert (told["captions"], {row["source"] for row in told["rows"]}) == (len(rows), {labels[source]})
