"""Layers: a file's columns by uid, in shard order, read like sidecar columns; they follow cuts, copies and take-downs."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import cli
from shards import cli as shards_cli
from shards.compact import compact
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack


def _rows(folder: str | Path, *columns: str) -> list[dict[str, Any]]:
    return [s.row for s in read_samples(read_manifest(str(folder)), [], columns)]


def _keys(folder: str | Path) -> list[str]:
    return [s.key for s in read_samples(read_manifest(str(folder)), [])]


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            kind: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if path.suffix == ".tsv" else {}
            writer = csv.DictWriter(file, list(rows[0]), **kind)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def said(make_shards, tmp_path):
    """Return (build, rows of a layer for a shuffled half of it and three strangers, {uid: row})."""
    folder, rng = make_shards(30), random.Random(0)
    uids = rng.sample(_keys(folder), 15) + [f"{i:032d}" for i in range(3)]
    rows = [{"uid": uid, "caption": f"{i}" if i % 3 else f'a "quoted" NA, ünï {i}', "score": i / 7} for i, uid in enumerate(uids)]
    return folder, rows, {row["uid"]: row for row in rows}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_of_any_kind_becomes_columns_by_uid(said, tmp_path, capsys, kind):
    folder, rows, by_uid = said
    path = _write(tmp_path / f"layer.{kind}", rows)
    assert cli.main(["layer", "add", folder, "recaps", path, "--json"]) == 0
    out = capsys.readouterr()
    about = json.loads(out.out)
    assert (about["samples"], about["without"], about["unknown"]) == (15, 15, 3)
    assert "3 uids of the file are not in the build" in out.err
    read = _rows(folder, "uid", "recaps.caption", "recaps.score")
    for row in read:
        expected = by_uid.get(row["uid"])
        assert row["recaps.caption"] == (expected["caption"] if expected else None)
        assert row["recaps.score"] == (pytest.approx(expected["score"]) if expected else None)
    files = sorted(p.name for p in Path(folder, "layers", "recaps").iterdir())
    assert files == ["00000.parquet", "00001.parquet", "00002.parquet", "00003.parquet", "layer.json"]
    assert pq.read_table(Path(folder, "layers", "recaps", "00001.parquet"))["uid"].to_pylist() == _keys(folder)[8:16]


def test_a_uid_of_digits_alone_stays_text(make_shards, tmp_path):
    folder = make_shards(3)
    rows = [{"uid": uid, "n": 1} for uid in [*_keys(folder), "0" * 31 + "7"]]
    assert cli.main(["layer", "add", folder, "x", _write(tmp_path / "a.csv", rows[-1:] + rows[:1])]) == 0


def test_added_again_it_is_there_and_another_is_refused(said, tmp_path, capsys):
    folder, rows, _ = said
    one, two = _write(tmp_path / "one.csv", rows), _write(tmp_path / "two.csv", rows[:4])
    assert cli.main(["layer", "add", folder, "recaps", one]) == 0
    stamp = Path(folder, "layers/recaps/00000.parquet").stat().st_mtime_ns
    assert cli.main(["layer", "add", folder, "recaps", one]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert Path(folder, "layers/recaps/00000.parquet").stat().st_mtime_ns == stamp
    assert cli.main(["layer", "add", folder, "recaps", two]) == 2
    assert cli.main(["layer", "add", folder, "recaps", two, "--overwrite"]) == 0
    assert sum(r["recaps.score"] is not None for r in _rows(folder, "recaps.score")) == 4
    assert cli.main(["layer", "list", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.rpartition("\n{\n")[2].join(("{", "")))["recaps"]["samples"] == 4


def test_a_layer_without_its_last_file_is_none(said, tmp_path):
    folder, rows, _ = said
    assert cli.main(["layer", "add", folder, "recaps", _write(tmp_path / "a.csv", rows)]) == 0
    Path(folder, "layers/recaps/layer.json").unlink()
    assert _rows(folder, "uid", "recaps.score")[0].keys() == {"uid"}
    assert cli.main(["layer", "add", folder, "recaps", _write(tmp_path / "b.csv", rows[:2])]) == 0


def test_several_captions_of_one_sample_are_lists_on_request(make_shards, tmp_path, capsys):
    folder = make_shards(10)
    uids = _keys(folder)
    rows = [{"id": uids[i % 4].upper(), "caption": f"caption {i}"} for i in range(10)]
    path = _write(tmp_path / "a.tsv", rows)
    assert cli.main(["layer", "add", folder, "captions", path, "--key", "id"]) == 2
    assert "--many" in capsys.readouterr().err
    assert cli.main(["layer", "add", folder, "captions", path, "--key", "id", "--many"]) == 0
    found = {r["uid"]: r["captions.caption"] for r in _rows(folder, "uid", "captions.caption")}
    assert found == {uid: [f"caption {i}" for i in range(10) if i % 4 == k] if k < 4 else None for k, uid in enumerate(uids)}


@pytest.mark.parametrize(
    ("arguments", "said_"),
    [
        (["Recaps", "a.csv"], "lower-case"), (["recaps", "none.csv"], "no file"), (["recaps", "a.xml"], "of which kind"),
        (["recaps", "a.csv", "--key", "uids"], "did you mean 'uid'"), (["recaps", "strangers.csv"], "none of its 2 uids"),
        (["recaps"], "a name and a file"), (["recaps", "only.csv"], "at least one other"), (["recaps", "torn.parquet"], "torn.parquet"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_exit_2(make_shards, tmp_path, monkeypatch, capsys, arguments, said_):
    folder = make_shards(3)
    _write(tmp_path / "a.csv", [{"uid": u, "n": 1} for u in _keys(folder)])
    _write(tmp_path / "strangers.csv", [{"uid": "f" * 32, "n": 1}, {"uid": "NA", "n": 1}])
    _write(tmp_path / "only.csv", [{"uid": "f" * 32}])
    (tmp_path / "a.xml").write_text("<a/>")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["layer", "add", folder, *arguments]) == 2
    assert said_ in capsys.readouterr().err
    assert not Path(folder, "layers").exists()


def test_layers_follow_conditions_copies_and_take_downs(said, tmp_path, capsys):
    folder, rows, by_uid = said
    assert cli.main(["layer", "add", folder, "recaps", _write(tmp_path / "a.jsonl", rows)]) == 0
    chosen = [k for k in _keys(folder) if k in by_uid and by_uid[k]["score"] > 1]
    for flags in ([], ["--materialize", "--engine", "inline"]):
        out = str(tmp_path / f"sub{len(flags)}")
        assert shards_cli.main(["subset", folder, "--where", "recaps.score > 1", "--output", out, *flags]) == 0
        read = _rows(out, "uid", "recaps.caption")
        assert [(r["uid"], r["recaps.caption"]) for r in read] == [(k, by_uid[k]["caption"]) for k in chosen]
    whole = {r["uid"]: r for r in _rows(folder, "uid", "recaps.caption", "recaps.score")}
    remove(folder, UidSet(pack(chosen[:3])))
    compact(folder)
    after = _rows(folder, "uid", "recaps.caption", "recaps.score")
    assert after == [whole[k] for k in _keys(folder)]
    for path in Path(folder, "layers").rglob("*.parquet"):
        assert set(pq.read_table(path)["uid"].to_pylist()).isdisjoint(chosen[:3])
    out = str(tmp_path / "merged")
    other = _other(tmp_path)
    assert shards_cli.main(["merge", folder, other, "--output", out, "--materialize", "--engine", "inline"]) == 0
    merged = {r["uid"]: r["recaps.score"] for r in _rows(out, "uid", "recaps.score")}
    assert merged == {k: whole[k]["recaps.score"] if k in whole else None for k in _keys(out)}


def _other(tmp_path: Path) -> str:
    from shards.manifest import Manifest
    from shards.writer import write_shard

    out = tmp_path / "other"
    out.mkdir()
    entry = write_shard(str(out), "00000", [("e" * 32, {"jpg": b"x", "txt": b"y"})], pa.table({"key": ["e" * 32], "uid": ["e" * 32]}))
    Manifest(samples=1, bytes=entry.bytes, shards=(entry,), members=("jpg", "txt")).save(str(out))
    return str(out)
