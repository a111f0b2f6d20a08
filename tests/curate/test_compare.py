"""What sets share, against naive twins: sets and loops over the samples."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import encoded, picture
from native import make_tar
from PIL import Image

from curate import cli
from curate.report.subject import path_labels
from curate.report.wordcount import tokens
from shards import cli as shards_cli
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.uids import pack, write_uids


def _compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["compare", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _rows(folder: str, *columns: str) -> list[dict[str, Any]]:
    return [s.row for s in read_samples(read_manifest(folder), [], columns)]


def test_ids_bytes_and_near_duplicates_are_those_of_a_loop(make_shards, capsys):
    """One set is 40 drawn pictures; the other has 25 of them, 10 re-encoded (other uids), and 12 of its own."""

    def again(i: int, jpeg: bytes) -> bytes:
        return encoded(Image.open(io.BytesIO(jpeg)), quality=80) if 25 <= i < 35 else jpeg

    one = make_shards(40, "one")
    two = make_shards(47, "two", recode=again)
    found = _compare(capsys, one, two, "--radius", "6")
    (shared,) = found["overlap"]
    a, b = (_rows(f, "uid", "original_sha256", "phash", "caption", "width") for f in (one, two))
    for key, column in (("ids", "uid"), ("bytes", "original_sha256")):
        mine, theirs = {r[column] for r in a}, {r[column] for r in b}
        assert shared[key]["a_in_b"] == sum(r[column] in theirs for r in a)
        assert shared[key]["b_in_a"] == sum(r[column] in mine for r in b)
        assert shared[key]["jaccard"] == len(mine & theirs) / len(mine | theirs)
    assert shared["bytes"]["a_in_b"] < shared["ids"]["a_in_b"] == 40
    assert shared["ids"]["shares"] == [1, round(40 / 47, 6)]

    def near(x: list[dict[str, Any]], y: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hashes = [int(r["phash"], 16) for r in y]
        return [r for r in x if any((int(r["phash"], 16) ^ h).bit_count() <= 6 for h in hashes)]

    assert (shared["near"]["a_in_b"], shared["near"]["b_in_a"]) == (len(near(a, b)), len(near(b, a)))
    spread = found["spread"]
    lengths = [len(tokens(r["caption"])) for r in b]
    assert spread["two"]["words"]["mean"] == round(sum(lengths) / len(lengths), 2)
    assert spread["two"]["words"]["median"] == sorted(lengths)[int(np.ceil(0.5 * len(lengths))) - 1]
    assert spread["two"]["characters"]["max"] == max(len(r["caption"]) for r in b)
    assert sum(spread["one"]["side"]["histogram"]["counts"]) == spread["one"]["side"]["n"] == 40
    assert {spread["one"]["side"][q] for q in ("min", "median", "max")} == {48}


def test_a_set_against_itself_shares_all_and_differs_in_nothing(make_shards, capsys):
    one = make_shards(20)
    found = _compare(capsys, one, one)
    (shared,), (words,), (moved,) = found["overlap"], found["vocabulary"]["pairs"], found["moved"]
    assert all(shared[k]["a_in_b"] == shared[k]["b_in_a"] == 20 for k in ("ids", "bytes", "near"))
    assert shared["near"]["beyond"]["a_in_b"] == shared["near"]["beyond"]["b_in_a"] == 0
    assert (words["divergence"], words["interval"], words["by_chance"], words["by_chance_high"]) == (0, [0, 0], 0, 0)
    assert words["more_a"] == words["only_b"] == []
    assert moved["total"] == {side: {"samples": 20, "both": 20, "only": 0} for side in "ab"}
    assert [one["name"] for one in found["sets"]] == ["build (1)", "build (2)"]


def test_a_foreign_folder_is_looked_at(make_shards, tmp_path, capsys):
    """A build, and its tars copied into a folder of their own with a manifest by `shards index`: no sidecars there."""
    one, foreign = make_shards(12), tmp_path / "foreign"
    foreign.mkdir()
    for path in Path(one).glob("*.tar"):
        (foreign / path.name).write_bytes(path.read_bytes())
    assert shards_cli.main(["index", str(foreign), "--engine", "inline"]) == 0
    found = _compare(capsys, one, str(foreign))
    (shared,) = found["overlap"]
    assert shared["ids"]["a_in_b"] == shared["bytes"]["a_in_b"] == 12
    assert shared["near"]["known"] == [12, 12]
    assert found["spread"]["build"] == found["spread"]["foreign"]
    assert found["vocabulary"]["pairs"][0]["divergence"] == 0
    assert found["moved"][0]["went"] == {"a": [], "b": []}
    blind = _compare(capsys, one, str(foreign), "--no-look")
    assert blind["overlap"][0]["bytes"]["known"] == blind["overlap"][0]["near"]["known"] == [12, 0]
    assert blind["spread"]["foreign"]["side"] is None


def test_foreign_captions_are_read_as_a_report_reads_them(make_shards, tmp_path, capsys):
    """From .txt with a line's end, and from .json; folders in a tar, and names that are no UTF-8, do no harm."""
    members = {
        "txt": [("x/1.txt", b"a cat\n"), ("x/\udcff.txt", b"a dog")],
        "json": [("1.json", b'{"caption": "a cat"}'), ("\udcff.json", b'{"caption": "a dog "}')],
    }
    folders = [str(make_tar(tmp_path / name / "0.tar", found).parent) for name, found in members.items()]
    for folder in folders:
        assert shards_cli.main(["index", folder, "--engine", "inline"]) == 0
    found = _compare(capsys, *folders)
    assert found["overlap"][0]["ids"]["shared"] == 2
    assert found["spread"]["txt"] == found["spread"]["json"]
    assert found["spread"]["txt"]["characters"]["max"] == 5
    assert found["vocabulary"]["pairs"][0]["divergence"] == 0


def test_names_of_sets_are_different():
    assert path_labels(("/a/x", "/b/x", "/c/y")) == ["a/x", "b/x", "c/y"]
    names = path_labels(("x (1)", "x", "x"))
    assert len(set(names)) == 3


def test_near_duplicates_beyond_ids_and_bytes(build, captioned, capsys):
    """Two builds of unlike sources; four pictures of the second are re-encodings of the first's."""
    one = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(8)], "one")
    two = captioned([(f"x{i}.jpg", encoded(picture(i if i < 4 else 100 + i), quality=60), f"photo {i}") for i in range(9)], "two")
    code, a, said = build("--source", "folder", "--input", one, "--samples", "all", "--name", "one", output="a")
    assert code == 0, said
    code, b, said = build("--source", "folder", "--input", two, "--samples", "all", "--name", "two", output="b")
    assert code == 0, said
    found = _compare(capsys, str(a), str(b))
    (shared,) = found["overlap"]
    assert shared["ids"]["a_in_b"] == shared["bytes"]["a_in_b"] == 0
    near = shared["near"]
    assert (near["a_in_b"], near["b_in_a"], near["beyond"]["a_in_b"], near["beyond"]["b_in_a"]) == (4, 4, 4, 4)
    assert cli.main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "of A in B" in text
    assert "Jensen–Shannon divergence" in text


def test_lists_of_ids(make_shards, tmp_path, capsys):
    """The three YFCC15M: lists of native ids; a .npy of numbers, text, and a build whose source ids they are."""
    (tmp_path / "a.txt").write_text("".join(f"{i}\n" for i in range(100)))
    np.save(tmp_path / "b.npy", np.arange(60, 160))
    found = _compare(capsys, str(tmp_path / "a.txt"), str(tmp_path / "b.npy"))
    counts = {"known": [100, 100], "a_in_b": 40, "b_in_a": 40, "shares": [0.4, 0.4], "shared": 40, "jaccard": 40 / 160}
    assert found["overlap"] == [{"a": "a.txt", "b": "b.npy", "ids": {"by": "uid", **counts}}]
    assert "vocabulary" not in found
    folder = make_shards(20)
    keys = [r["uid"] for r in _rows(folder, "uid")]
    write_uids(str(tmp_path / "u.npy"), pack([*keys[:5], "f" * 32]))
    ids = _compare(capsys, str(tmp_path / "u.npy"), folder)["overlap"][0]["ids"]
    assert (ids["by"], ids["a_in_b"], ids["b_in_a"]) == ("uid", 5, 5)
    (tmp_path / "native.txt").write_text("0/3\n0/4\nnothing\n")
    found = _compare(capsys, folder, str(tmp_path / "native.txt"), str(tmp_path / "u.npy"), make_shards(25, "more"))
    by = {(pair["a"], pair["b"]): (pair["ids"]["by"], pair["ids"]["a_in_b"]) for pair in found["overlap"]}
    assert by == {
        ("build", "native.txt"): ("source_id", 2), ("build", "u.npy"): ("uid", 5), ("build", "more"): ("uid", 20),
        ("native.txt", "u.npy"): ("uid", 0), ("native.txt", "more"): ("source_id", 2), ("u.npy", "more"): ("uid", 5),
    }  # fmt: skip
    assert [(pair["a"], pair["b"]) for pair in found["moved"]] == [("build", "more")]


def test_three_sets_are_matrices_of_their_pairs(make_shards, capsys):
    folders = [make_shards(n, name) for n, name in ((10, "x/out"), (20, "y/out"), (30, "z/out"))]
    alone = [_compare(capsys, folders[i], folders[j])["overlap"][0] for i, j in ((0, 1), (0, 2), (1, 2))]
    found = _compare(capsys, *folders)
    assert [one["name"] for one in found["sets"]] == ["x/out", "y/out", "z/out"]
    assert found["overlap"] == alone
    assert cli.main(["compare", *folders]) == 0
    text = capsys.readouterr().out
    matrix = text[text.index("same uid") :].splitlines()[2:5]
    assert [line.split() for line in matrix] == [["A", "-", "100.0", "100.0"], ["B", "50.0", "-", "100.0"], ["C", "33.3", "66.7", "-"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "none"], "no manifest"),
        (["a.txt", "a.txt"], "no file"),
        (["none"], "two or more"),
        (["none", "none", "--output", "x.pdf"], ".html"),
        (["none", "none", "--radius", "99"], "radius: found 99"),
    ],
)
def test_what_is_not_there_is_exit_2(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err
