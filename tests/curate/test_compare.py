"""`curate compare` against naive twins: sets and loops over the samples, and scipy's Jensen–Shannon distance."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import encoded, picture
from PIL import Image
from scipy.spatial.distance import jensenshannon

from curate import cli
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
    a, b = (_rows(f, "uid", "original_sha256", "phash", "caption", "width") for f in (one, two))
    for key, column in (("ids", "uid"), ("bytes", "original_sha256")):
        mine, theirs = {r[column] for r in a}, {r[column] for r in b}
        assert found[key]["a_in_b"] == sum(r[column] in theirs for r in a)
        assert found[key]["b_in_a"] == sum(r[column] in mine for r in b)
        assert found[key]["jaccard"] == len(mine & theirs) / len(mine | theirs)
    assert found["bytes"]["a_in_b"] < found["ids"]["a_in_b"] == 40

    def near(x: list[dict[str, Any]], y: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hashes = [int(r["phash"], 16) for r in y]
        return [r for r in x if any((int(r["phash"], 16) ^ h).bit_count() <= 6 for h in hashes)]

    assert (found["near"]["a_in_b"], found["near"]["b_in_a"]) == (len(near(a, b)), len(near(b, a)))
    assert found["sources"] == [{"name": "drawn", "a": 40, "b": 47, "both": 40}]
    lengths = [len(r["caption"].split()) for r in b]
    assert found["caption_words"]["b"]["mean"] == round(sum(lengths) / len(lengths), 2)
    assert found["caption_words"]["b"]["median"] == sorted(lengths)[int(np.ceil(0.5 * len(lengths))) - 1]
    assert found["sizes"]["a"] == {"n": 40, "mean": 48.0, "min": 48, "p5": 48, "median": 48, "p95": 48, "max": 48}


def test_divergence_is_scipys_and_sets_are_cut_to_one_size(make_shards, capsys):
    one, two = make_shards(30, "one"), make_shards(80, "two", seed=5, source="other")
    words = [Counter(w for r in _rows(f, "caption")[:30] for w in re.findall(r"\w+", r["caption"].lower())) for f in (one, two)]
    found = _compare(capsys, one, two)["vocabulary"]
    names = sorted(words[0] | words[1])
    expected = jensenshannon([words[0][w] for w in names], [words[1][w] for w in names], base=2) ** 2
    assert found["captions"] == 30
    assert found["divergence"] == pytest.approx(expected, abs=1e-12)
    assert found["words"] == [sum(w.values()) for w in words]
    assert found["distinct"] == [len(w) for w in words]
    assert found["shared"] == len(set(words[0]) & set(words[1]))
    assert found["more_in_a"]
    assert all(row["a"] == words[0][row["word"]] and row["b"] == words[1][row["word"]] for row in found["more_in_a"])


def test_a_set_against_itself_shares_all_and_differs_in_nothing(make_shards, capsys):
    one = make_shards(20)
    found = _compare(capsys, one, one)
    assert all(found[k]["a_in_b"] == found[k]["b_in_a"] == 20 for k in ("ids", "bytes", "near"))
    assert found["near"]["beyond"] == [0, 0]
    assert found["vocabulary"]["divergence"] == 0
    assert found["vocabulary"]["divergence_of_halves"] > 0
    assert found["vocabulary"]["more_in_a"] == []


def test_a_foreign_folder_is_looked_at(make_shards, tmp_path, capsys):
    """A build, and its tars copied into a folder of their own with a manifest by `shards index`: no sidecars there."""
    one, foreign = make_shards(12), tmp_path / "foreign"
    foreign.mkdir()
    for path in Path(one).glob("*.tar"):
        (foreign / path.name).write_bytes(path.read_bytes())
    assert shards_cli.main(["index", str(foreign), "--engine", "inline"]) == 0
    found = _compare(capsys, one, str(foreign))
    assert found["ids"]["a_in_b"] == found["bytes"]["a_in_b"] == 12
    assert found["near"]["known"] == [12, 12]
    assert found["sizes"]["a"] == found["sizes"]["b"]
    assert found["vocabulary"]["divergence"] == 0
    blind = _compare(capsys, one, str(foreign), "--no-look")
    assert blind["bytes"]["known"] == blind["near"]["known"] == [12, 0]


def test_near_duplicates_beyond_ids_and_bytes(build, captioned, capsys):
    """Two builds of unlike sources; four pictures of the second are re-encodings of the first's."""
    one = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(8)], "one")
    two = captioned([(f"x{i}.jpg", encoded(picture(i if i < 4 else 100 + i), quality=60), f"photo {i}") for i in range(9)], "two")
    code, a, said = build("--source", "folder", "--input", one, "--samples", "all", "--name", "one", output="a")
    assert code == 0, said
    code, b, said = build("--source", "folder", "--input", two, "--samples", "all", "--name", "two", output="b")
    assert code == 0, said
    found = _compare(capsys, str(a), str(b))
    assert found["ids"]["a_in_b"] == found["bytes"]["a_in_b"] == 0
    assert (found["near"]["a_in_b"], found["near"]["b_in_a"], found["near"]["beyond"]) == (4, 4, [4, 4])
    assert cli.main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "of A in B" in text
    assert "Jensen–Shannon divergence" in text


def test_lists_of_ids(make_shards, tmp_path, capsys):
    """The three YFCC15M: lists of native ids; a .npy of numbers, text, and a build whose source ids they are."""
    (tmp_path / "a.txt").write_text("".join(f"{i}\n" for i in range(100)))
    np.save(tmp_path / "b.npy", np.arange(60, 160))
    found = _compare(capsys, str(tmp_path / "a.txt"), str(tmp_path / "b.npy"))
    assert found["ids"] == {"by": "uid", "known": [100, 100], "a_in_b": 40, "b_in_a": 40, "shared": 40, "jaccard": 40 / 160}
    assert "near" not in found
    folder = make_shards(20)
    keys = [r["uid"] for r in _rows(folder, "uid")]
    write_uids(str(tmp_path / "u.npy"), pack([*keys[:5], "f" * 32]))
    found = _compare(capsys, str(tmp_path / "u.npy"), folder)
    assert (found["ids"]["by"], found["ids"]["a_in_b"], found["ids"]["b_in_a"]) == ("uid", 5, 5)
    (tmp_path / "native.txt").write_text("0/3\n0/4\nnothing\n")
    found = _compare(capsys, folder, str(tmp_path / "native.txt"))
    assert (found["ids"]["by"], found["ids"]["a_in_b"], found["ids"]["b_in_a"]) == ("source_id", 2, 2)


@pytest.mark.parametrize(("arguments", "said"), [(["none", "none"], "no manifest"), (["a.txt", "a.txt"], "no file")])
def test_what_is_not_there_is_exit_2(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err
