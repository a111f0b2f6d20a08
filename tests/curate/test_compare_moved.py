"""What moved between sets, against set arithmetic over their ledgers; recipes; pictures."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from report_synthetic import Row, picture, write_build

from curate import cli
from curate.compare.load import load
from curate.compare.recipes import recipes
from curate.report.pictures import pointers
from shards import cli as shards_cli
from shards.core import fs
from shards.manifest import read_manifest
from shards.reader import Shard
from shards.uids import uids_in

RECIPE_A = """\
seed: 7
sources: [{name: x, reader: folder, input: /one, captions: first}, {name: y, reader: folder, input: /two}]
filters: [{name: caption_length, min_words: 2}, {name: profanity, list: /home/someone/words.txt}]
dedup: {near: {radius: 4}}
"""
RECIPE_B = """\
seed: 7
sources: [{name: x, reader: folder, input: /other, captions: first}]
filters: [{name: caption_length, min_words: 3}, {name: image_size, min_side: 64, max_side: null}]
dedup: {near: {radius: 8}}
"""


def both_builds() -> tuple[list[Row], list[Row]]:
    """Two builds of 60 shared inputs in which every decision meets every other; some inputs are in one alone."""
    decisions = [("kept", ""), ("dropped", "caption_length"), ("dropped", "near_duplicate"), ("spare", ""), ("holdout", "")]
    a, b = [], []
    for i in range(60):
        for rows, (decision, reason) in ((a, decisions[i % 5]), (b, decisions[i // 5 % 5])):
            rows.append(Row("x", str(i), f"caption {i}", decision, reason, f"detail {i}" if reason else ""))
    a += [Row("y", str(i), "of a alone") for i in range(7)]
    a += [Row("x", "0", "again", "dropped", "duplicate_id")]  # of a kept one
    b += [Row("x", "5", "again", "dropped", "duplicate_id")]  # of a dropped one, which says why
    return a, b


@pytest.fixture
def builds(tmp_path: Path) -> tuple[str, str]:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture(90, 60))
    for name, rows, recipe in zip("ab", both_builds(), (RECIPE_A, RECIPE_B), strict=True):
        write_build(tmp_path / name, [Row(**{**vars(r), "image": str(photo)}) for r in rows], recipe, per_shard=5)
    return str(tmp_path / "a"), str(tmp_path / "b")


def compared(capsys: pytest.CaptureFixture[str], *sets: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["compare", *sets, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def expected(mine: list[Row], theirs: list[Row]) -> dict[tuple[str, str], set[str]]:
    """Return the uids kept here and not there, by what the ledger there says."""
    kept = {r.uid for r in theirs if r.decision == "kept"}
    found: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for row in mine:
        if row.decision == "kept" and row.uid not in kept:
            said = [r for r in theirs if r.uid == row.uid and r.reason != "duplicate_id"]
            found[(said[0].decision, said[0].reason) if said else ("unseen", "")].add(row.uid)
    return found


def test_what_moved_is_set_arithmetic(builds: tuple[str, str], capsys) -> None:
    a, b = both_builds()
    (moved,) = compared(capsys, *builds)["moved"]
    kept = [{r.uid: r.source for r in rows if r.decision == "kept"} for rows in (a, b)]
    for side, mine, theirs, rows, others in (("a", kept[0], kept[1], a, b), ("b", kept[1], kept[0], b, a)):
        both, only = set(mine) & set(theirs), set(mine) - set(theirs)
        assert moved["total"][side] == {"samples": len(mine), "both": len(both), "only": len(only)}
        for one in moved["sources"]:
            own = {uid for uid, source in mine.items() if source == one["name"]}
            assert one[side] == {"samples": len(own), "both": len(own & both), "only": len(own & only)}
        went = {(w["decision"], w["reason"]): w for w in moved["went"][side]}
        told = expected(rows, others)
        assert {key: w["count"] for key, w in went.items()} == {key: len(uids) for key, uids in told.items()}
        assert sum(w["count"] for w in went.values()) == len(only)
        captions = {r.uid: r.caption for r in rows if r.reason != "duplicate_id"}
        details = {r.uid: r.detail for r in others if r.reason != "duplicate_id"}
        for key, w in went.items():
            assert w["share"] == pytest.approx(w["count"] / len(only), abs=1e-6)
            assert len(w["examples"]) == min(6, len(told[key]))
            assert {e["uid"] for e in w["examples"]} <= told[key]
            assert all(e["caption"] == captions[e["uid"]] and e["detail"] == details.get(e["uid"], "") for e in w["examples"])
    assert {w["decision"] for w in moved["went"]["a"]} == {"dropped", "spare", "holdout", "unseen"}
    assert [s["name"] for s in moved["sources"]] == ["x", "y"]


def taken_down() -> str:
    """Return a uid that both builds keep."""
    a, b = ({r.uid for r in rows if r.decision == "kept"} for rows in both_builds())
    return min(a & b)


def gone_as(decision: str, reason: str, found: dict[str, Any]) -> list[str]:
    (row,) = (w for w in found["moved"][0]["went"]["a"] if (w["decision"], w["reason"]) == (decision, reason))
    assert row["count"] == 1
    return [e["uid"] for e in row["examples"]]


def test_what_was_taken_down_says_so_while_the_ledger_does_not(builds: tuple[str, str], capsys) -> None:
    uid, manifest = taken_down(), read_manifest(builds[1])
    uids = {entry.name: uids_in(Shard(manifest, entry)) for entry in manifest.shards}
    stones = {tar: [[found.index(uid), uid, "x"]] for tar, found in uids.items() if uid in found}
    Path(builds[1], "tombstones.json").write_text(json.dumps(stones))
    assert gone_as("removed", "", compared(capsys, *builds)) == [uid]


@pytest.mark.slow
def test_what_was_taken_down_says_so(builds: tuple[str, str], tmp_path: Path, capsys) -> None:
    (tmp_path / "gone.txt").write_text(taken_down() + "\n")
    assert shards_cli.main(["remove", builds[1], "--uids", str(tmp_path / "gone.txt")]) == 0
    assert gone_as("dropped", "removed", compared(capsys, *builds)) == [taken_down()]


def test_pictures_are_those_of_the_samples(builds: tuple[str, str], capsys) -> None:
    (moved,) = compared(capsys, *builds)["moved"]
    con, sets, _ = load(builds, look=False)
    con.close()
    examples = [e for side in "ab" for w in moved["went"][side] for e in w["examples"]]
    places = pointers([one.manifest for one in sets], [e["picture"] for e in examples])
    assert len(places) == len(examples) > 10
    for example in examples:
        path, offset, size = places[example["picture"]]
        assert fs.read_range(path, offset, size) == picture(90, 60)
        header = fs.read_range(path, offset - 512, 100).rstrip(b"\0").decode()
        assert header == f"{example['uid']}.jpg"


def test_a_subset_has_no_ledger(builds: tuple[str, str], tmp_path: Path, capsys) -> None:
    subset = str(tmp_path / "subset")
    assert shards_cli.main(["subset", builds[0], "--samples", "5", "--output", subset]) == 0
    (moved,) = compared(capsys, builds[0], subset)["moved"]
    assert moved["went"]["b"] == []
    (went,) = moved["went"]["a"]
    assert (went["decision"], went["reason"], went["count"], went["share"], len(went["examples"])) == ("unknown", "", 14, 1, 6)
    assert moved["total"]["b"] == {"samples": 5, "both": 5, "only": 0}


def test_recipes_differ_where_they_do(builds: tuple[str, str]) -> None:
    con, sets, _ = load(builds, look=False)
    con.close()
    found = recipes(sets)
    assert found["sets"] == ["a", "b"]
    assert {row["key"]: row["values"] for row in found["rows"]} == {
        "sources.order": ["x, y", "x"],
        "sources.y": ["reader folder", None],
        "filters.order": ["caption_length, profanity", "caption_length, image_size"],
        "filters.caption_length.min_words": ["2", "3"],
        "filters.profanity": ["list words.txt", None],
        "filters.image_size": [None, "min_side 64"],
        "dedup.near.radius": ["4", "8"],
    }
    assert found["equal"] == len(["seed", "x.name", "x.reader", "x.captions", "caption_length.name"])


def test_sets_lie_anywhere(builds: tuple[str, str], capsys) -> None:
    """The same builds in a file system of fsspec's give the same comparison, page and all."""
    local = compared(capsys, *builds)
    memory = fsspec.filesystem("memory")
    for folder in builds:
        memory.put(folder, f"/compare/{Path(folder).name}", recursive=True)
    far = [f"memory://compare/{Path(folder).name}" for folder in builds]
    assert compared(capsys, *far) == local
    assert cli.main(["compare", *far, "--output", "memory://compare/page.html", "--engine", "inline"]) == 0
    assert memory.cat("/compare/page.html").count(b'src="data:image/webp') > 10
    memory.rm("/compare", recursive=True)
