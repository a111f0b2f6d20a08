"""The report as text: against strings made by hand, within its width, with no command to a terminal but its own colours."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import in_terminal
from report_synthetic import Row, write_build

from curate.cli import main
from curate.report.numbers import section
from curate.report.page import percent
from curate.report.subject import open_subject
from curate.report.terminal import STYLES, VIEWS, terminal
from shards.core import console
from shards.manifest import read_manifest

HOSTILE = "\x1b[31mcat\x1b[2J\n\u202e猫"


def spread(median: float, counts: list[int]) -> dict[str, Any]:
    values = {"n": sum(counts), "mean": 2.0, "min": 1, "p5": 2, "p25": 3, "median": median, "p75": 5, "p95": 6, "max": 7}
    return {**values, "histogram": {"edges": list(range(len(counts) + 1)), "counts": counts}}


def of_source(name: str, inputs: int, kept: int, reason: str) -> dict[str, Any]:
    dropped = [{"reason": reason, "count": inputs - kept, "share": (inputs - kept) / inputs}]
    entry = {name: {"count": 0, "share": 0.0} for name in ("holdout", "spare")} | {"kept": {"count": kept, "share": kept / inputs}}
    return {"name": name, "inputs": inputs, "dropped": dropped, "dropped_count": inputs - kept, **entry}


def words_of(*words: str) -> dict[str, Any]:
    laws = {"heaps": {"beta": 0.5}, "zipf": {"exponent": None}, "hapax_share": 0.25}
    found = {"content": [{"word": w, "bigram": f"{w} {w}", "count": 1} for w in words]}
    return {"tokens": 1000, "types": len(words), **laws, "words": found, "bigrams": found}


def apart_of(source: str, side: str, word: str, z: float, stop: bool = False) -> dict[str, Any]:
    return {"source": source, "side": side, "word": word, "stop": stop, "z": z}


def captions_of(counts: list[int]) -> dict[str, Any]:
    return {
        "words": spread(4, counts),
        "clip_tokens": {"over_77_share": 0.0002},
        "repetition": {"over_share": 0.5},
        "duplicates": None,
        "language": {"shares": [{"code": "en", "share": 0.9}, {"code": "de", "share": 0.1}]},
        "readability": {"classes": [{"class": "file_name", "share": 0.2}, {"class": "words", "share": 0.8}]},
    }


def images_of(counts: list[int]) -> dict[str, Any]:
    side = {"below_share": 0.75}
    kinds = {kind: spread(median, counts) for kind, median in (("width", 300), ("height", 200), ("aspect", 1.5), ("bytes", 12300))}
    return {**kinds, "shorter_side": side, "formats": [{"format": "JPEG", "share": 0.9}, {"format": "PNG", "share": 0.1}]}


def covered(*shares: float) -> list[dict[str, Any]]:
    return [{"covered": [{"least": 1, "share": s}]} for s in shares]


VALUES: dict[str, Any] = {
    "sources": [{"name": "one", "samples": 1200}, {"name": "two", "samples": 34}],
    "ledger": {
        "sets": [
            {
                "sources": [of_source("one", 2000, 1200, "near_duplicate"), of_source("two", 40, 34, "lost")],
                "duplicates": {"groups": 300, "copies": 800},
                "placeholders": {"samples": 3},
            }
        ]
    },
    "vocabulary": {"sources": {"one": words_of("cat", "dog"), "two": words_of("background")}},
    "apart": {
        "sources": {"one": {}, "two": {}},
        "words": [
            apart_of("one", "over", "cat", 9.87), apart_of("one", "over", "the", 20.0, stop=True), apart_of("one", "under", "background", -8.0),
        ],
    },
    "captions": {"context": 77, "sources": {"one": captions_of([0, 1, 2, 4]), "two": captions_of([1] * 100)}},
    "images": {"side": 224, "sources": {"one": images_of([1, 1, 8]), "two": {**images_of([1]), "width": None}}},
    "concepts": {
        "captions": {"one": 1200, "two": 34},
        "sets": [{"name": "Pets", "classes": 37, "unmentioned": 12, "sources": covered(0.5, 0.0004)}],
    },
    "method": {"sets": [{"samples": 1234, "shards": 2, "seed": None, "manifest": "ab" * 32}]},
}  # fmt: skip

EXPECTED = {
    "ledger": """
source  inputs   kept  held out  spare  dropped  share  kept
------  ------  -----  --------  -----  -------  -----  -----------------
one      2,000  1,200         0      0      800  60.0%  ████████████
two         40     34         0      0        6  85.0%  █████████████████

dropped         samples  of inputs
--------------  -------  ---------  --------
near_duplicate      800      39.2%  ███████▉
lost                  6       0.3%  ▏

800 copies in 300 groups of duplicates; 3 placeholders""",
    "vocabulary": """
source  tokens  words   once  Heaps  Zipf
------  ------  -----  -----  -----  ----
one      1,000      2  25.0%   0.50
two      1,000      1  25.0%   0.50

source  commonest words, without stop words
------  -----------------------------------
one     cat, dog
two     background

source  commonest bigrams, without stop words
------  -------------------------------------
one     cat cat, dog dog
two     background background""",
    "apart": """
source  says  words, with |z|, without stop words
------  ----  -----------------------------------
one     more  cat 9.9
        less  background 8.0
two     more
        less""",
    "captions": """
source  captions  5%  median  95%  max  words per caption
------  --------  --  ------  ---  ---  --------------------
one            7   2       4    6    7   ▂▄█
two          100   2       4    6    7  ████████████████████

source  > 77 tokens  repetitive  duplicates  readable  languages
------  -----------  ----------  ----------  --------  ------------------
one           <0.1%       50.0%                 80.0%  en 90.0%, de 10.0%
two           <0.1%       50.0%                 80.0%  en 90.0%, de 10.0%""",
    "images": """
source  images  median   < 224 px  aspect  formats     bytes  bytes, log scale
------  ------  -------  --------  ------  ---------  ------  ----------------
one         10  300x200     75.0%     1.5  JPEG, PNG  12,300  ▁▁█""",
    "concepts": """
classes mentioned  classes  never    one    two
-----------------  -------  -----  -----  -----
Pets                    37     12  50.0%  <0.1%""",
    "method": """
set  samples  shards  seed  manifest
---  -------  ------  ----  ------------
  1    1,234       2        abababababab""",
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_section_by_hand(name: str) -> None:
    said = terminal({"sources": VALUES["sources"], name: VALUES[name]}, 80, False)
    head, title, body = said.split("\n\n", 2)
    assert head == "1,234 samples from 2 sources"
    assert title.strip()
    assert body.startswith(EXPECTED[name][1:])


def test_missing_sections_are_left_out() -> None:
    whole = terminal(VALUES, 80, False)
    assert [whole.index(EXPECTED[name][1:]) for name in VIEWS] == sorted(whole.index(EXPECTED[name][1:]) for name in VIEWS)
    assert terminal({"sources": VALUES["sources"], "ledger": {}}, 80, False) == "1,234 samples from 2 sources"
    assert terminal({"sources": [{"name": "x", "samples": 1}]}, 80, False) == "1 samples from 1 source"


def replaced(value: Any, old: str, new: str) -> Any:
    """Return a value with a source's name replaced everywhere."""
    if isinstance(value, dict):
        return {new if k == old else k: replaced(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, old, new) for v in value]
    return new if value == old else value


@pytest.mark.parametrize("width", [60, 80, 120])
def test_hostile_names_and_words_break_nothing(width: int) -> None:
    values = replaced(replaced(copy.deepcopy(VALUES), "one", HOSTILE), "cat", HOSTILE)
    said = terminal(values, width, False)
    assert HOSTILE.partition("\n")[0].replace("\x1b", "␛") in said
    assert not {c for c in said if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"}
    assert max(map(console.width_of, said.split("\n"))) <= width


def test_sources_have_their_colours_and_only_these() -> None:
    plain, coloured = terminal(VALUES, 80, False), terminal(VALUES, 80, True)
    codes = re.findall(r"\x1b\[([\d;]*)m", coloured)
    assert set(codes) == {"1", "0", STYLES[0], STYLES[1]}
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    assert f"\x1b[{STYLES[1]}mtwo\x1b[0m" in coloured
    assert "\x1b" not in plain


def test_the_ninth_source_has_the_first_ones_colour_again() -> None:
    values = {"sources": [{"name": f"s{i}", "samples": 1} for i in range(9)], "apart": {"sources": {"s8": {}}, "words": []}}
    assert f"\x1b[{STYLES[0]}ms8\x1b[0m" in terminal(values, 80, True)
    assert len(set(STYLES)) == 8


def test_sources_that_have_no_room_are_told() -> None:
    names = [f"a source with a long name {i}" for i in range(6)]
    concepts = {
        "captions": dict.fromkeys(names, 9),
        "sets": [{"name": "Pets", "classes": 37, "unmentioned": 1, "sources": covered(*[0.5] * 6)}],
    }
    said = terminal({"sources": [{"name": n, "samples": 1} for n in names], "concepts": concepts}, 100, False)
    assert "and 4 sources more, for which 100 columns have no room" in said
    assert max(map(len, said.split("\n"))) <= 100


def test_shares() -> None:
    assert [percent(v) for v in (None, 0, 0.0004, 0.5, 0.99999, 1)] == ["", "0.0%", "<0.1%", "50.0%", ">99.9%", "100.0%"]


def test_it_shows_what_the_sections_count(tmp_path: Path) -> None:
    """The values above are made by hand: those of a build have the same keys."""
    rows = [Row("redcaps" if i % 2 else "cc3m", str(i), f"itap of cat {i}" if i % 2 else "background pattern", image="") for i in range(40)]
    rows += [Row("redcaps", "x", "a cat", "dropped", "near_duplicate")]
    write_build(tmp_path / "build", rows)
    with open_subject([read_manifest(str(tmp_path / "build"))], engine="inline") as subject:
        values = {name: section(name).collect(subject) for name in VIEWS}
    said = terminal({"sources": [{"name": s, "samples": 20} for s in subject.sources], **values}, 100, False)
    for expected in (
        r"redcaps +21 +20 +0 +0 +1 +95\.2% ", r"near_duplicate +1 +2\.4%", r"cc3m +40 +2 +0\.0%", r"redcaps +80 +23 +87\.0%",
        r"cc3m +more +background [\d.]+, pattern", r"less +cat [\d.]+, itap", r"redcaps +20 +4 +4 +4 +4 ", r"CIFAR-100 +100 ",
    ):  # fmt: skip
        assert re.search(expected, said), (expected, said)


COMMAND = "import sys; from curate.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow  # three processes load the model that names languages
def test_the_command_is_coloured_on_a_terminal_and_plain_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = str(tmp_path / "build")
    write_build(tmp_path / "build", [Row("redcaps" if i % 2 else "cc3m", str(i), f"{HOSTILE} cat {i}") for i in range(20)])
    assert main(["report", out, "--terminal", "--engine", "inline"]) == 0
    plain = capsys.readouterr().out
    on_terminal = in_terminal("-c", COMMAND, "report", out, "--terminal", "--engine", "inline", columns=80)
    assert re.sub(r"\x1b\[[\d;]*m", "", on_terminal) == plain
    assert f"\x1b[{STYLES[0]}mcc3m" in on_terminal or f"\x1b[{STYLES[0]}mredcaps" in on_terminal
    assert in_terminal("-c", COMMAND, "report", out, "--terminal", "--engine", "inline", columns=80, NO_COLOR="1") == plain
    said = in_terminal("-c", COMMAND, "report", out, "--word", "cat", "--most", "2", "--engine", "inline", columns=90)
    assert "\x1b[1mcat\x1b[0m" in said
    assert "\x1b[2J" not in said
    assert not (tmp_path / "build" / "report.html").exists()
