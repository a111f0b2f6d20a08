"""Subsets by condition and by uids, and merges, against naive twins: lists of keys."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import cli, tar
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.reader import read_samples
from shards.uids import UidSet, pack, uids_of, write_uids
from shards.verify import verify


def _keys(folder: str | Path) -> list[str]:
    return [s.key for s in read_samples(read_manifest(str(folder)), [])]


def _rows(folder: str | Path, *columns: str) -> list[dict[str, Any]]:
    return [s.row for s in read_samples(read_manifest(str(folder)), [], columns)]


def _problems(folder: str | Path) -> list[str]:
    return [str(p) for p in verify(read_manifest(str(folder), removed=True), engine="inline")]


def _grow(folder: str, name: str, values: list[Any]) -> None:
    """Add a column to the sidecars, as a filter or a source would."""
    manifest, at, entries = read_manifest(folder), 0, []
    import dataclasses
    import hashlib

    for entry in manifest.shards:
        path = manifest.path_of(entry, ".parquet")
        table = pq.read_table(path)
        pq.write_table(table.append_column(name, pa.array(values[at : at + len(table)])), path)
        entries.append(dataclasses.replace(entry, sidecar_sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest()))
        at += len(table)
    dataclasses.replace(manifest, shards=tuple(entries)).save(folder)


@given(st.sets(st.integers(0, 59)), st.integers(60, 80))
def test_an_entry_is_cut_to_any_positions(chosen, samples):
    import numpy as np

    entry = ShardEntry("00000.tar", samples, 1).cut(np.array(sorted(chosen), np.int64))
    assert entry.positions().tolist() == sorted(chosen)
    assert entry.used == len(chosen)
    again = ShardEntry("00000.tar", samples, 1).cut(np.arange(samples))
    assert again.use is None


@pytest.mark.parametrize("materialize", [False, True])
def test_a_condition_chooses_what_a_loop_would(make_shards, tmp_path, materialize):
    folder, out = make_shards(50, captions=2), str(tmp_path / "sub")
    rng = random.Random(0)
    values = [None if rng.random() < 0.1 else rng.random() for _ in range(50)]
    _grow(folder, "laion.similarity", values)
    rows = _rows(folder, "uid", "caption", "laion.similarity")
    expected = [r["uid"] for r in rows if (r["laion.similarity"] or 0) > 0.4 and "red" not in r["caption"]]
    assert 5 < len(expected) < 40
    flags = ["--materialize", "--engine", "inline"] if materialize else []
    assert cli.main(["subset", folder, "--where", "laion.similarity > 0.4 AND caption NOT LIKE '%red%'", "--output", out, *flags]) == 0
    manifest = read_manifest(out)
    assert _keys(out) == expected == list(uids_of(manifest))
    assert manifest.samples == len(expected) == sum(json.loads(Path(out, "sizes.json").read_text()).values())
    assert manifest.sources == {"drawn": {"reader": "drawn", "unit": "image", "kept": len(expected)}}
    assert manifest.parents[0]["where"].startswith("laion.similarity")
    assert _problems(out) == []
    whole = {s.key: s.members for s in read_samples(read_manifest(folder))}
    assert {s.key: s.members for s in read_samples(manifest)} == {k: whole[k] for k in expected}
    if materialize:
        assert [e.samples for e in manifest.shards][:-1] == [8] * (len(manifest.shards) - 1)
        assert all(e.use is None for e in manifest.shards)
        assert [r["laion.similarity"] for r in _rows(out, "laion.similarity")] == [
            r["laion.similarity"] for r in rows if r["uid"] in expected
        ]
    else:
        indices = [tar.parse_index(Path(manifest.path_of(e, ".idx")).read_text()) for e in manifest.shards]
        assert [g[0].key for groups in indices for g in groups] == expected


def test_a_window_counts_among_those_that_meet_the_condition(make_shards, tmp_path):
    folder = make_shards(50)
    met = [r["uid"] for r in _rows(folder, "uid", "caption") if "circle" in r["caption"]]
    arguments = ["subset", folder, "--where", "contains(caption, 'circle')"]
    assert cli.main([*arguments, "--samples", "5", "--output", str(tmp_path / "five")]) == 0
    assert cli.main([*arguments, "--window", "2:7", "--output", str(tmp_path / "window")]) == 0
    assert (_keys(tmp_path / "five"), _keys(tmp_path / "window")) == (met[:5], met[2:7])


def test_an_exact_size_that_is_not_there_is_refused(make_shards, tmp_path, capsys):
    folder, out = make_shards(20), tmp_path / "sub"
    met = sum("circle" in r["caption"] for r in _rows(folder, "caption"))
    assert cli.main(["subset", folder, "--where", "contains(caption, 'circle')", "--samples", str(met + 1), "--output", str(out)]) == 2
    assert f"at most {met}" in capsys.readouterr().err
    assert cli.main(["subset", folder, "--where", "width > 9999", "--output", str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize("kind", ["npy", "txt"])
def test_a_list_of_uids_chooses_those_that_are_there(make_shards, tmp_path, capsys, kind):
    folder, out, rng = make_shards(50), str(tmp_path / "sub"), random.Random(1)
    keys = _keys(folder)
    listed = [*rng.sample(keys, 21), "f" * 32, keys[0]]
    if kind == "npy":
        write_uids(str(tmp_path / "u.npy"), pack(listed))
    else:
        (tmp_path / "u.txt").write_text("# ours\n\n" + "\n".join(u.upper() for u in listed))
    assert cli.main(["subset", folder, "--uids", str(tmp_path / f"u.{kind}"), "--output", out]) == 0
    assert _keys(out) == [k for k in keys if k in set(listed)]
    assert "1 of the 2" in capsys.readouterr().err
    assert cli.main(["subset", folder, "--uids", str(tmp_path / f"u.{kind}"), "--output", out, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["uids_not_found"], found["samples"]) == (1, len(_keys(out)))


@pytest.mark.parametrize(("content", "said"), [("not a uid\n", "32 hex"), (b"\xff\xfe\x00", "neither text")])
def test_what_is_no_list_of_uids(make_shards, tmp_path, capsys, content, said):
    path = tmp_path / "u.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["subset", make_shards(4), "--uids", str(path), "--output", str(tmp_path / "s")]) == 2
    assert said in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_uid_sets_are_sets_even_where_halves_repeat(inside, asked):
    """Naive twin: a Python set. Few values of either half, so that first halves collide."""
    names = [f"{a:016x}{b:016x}" for a, b in inside]
    uids = UidSet(pack(names))
    found = [f"{a:016x}{b:016x}" for a, b in asked]
    assert [p >= 0 for p in uids.places(found).tolist()] == [u in set(names) for u in found]
    assert len(uids) == len(set(names))


def test_subsets_of_scattered_subsets_compose(make_shards, tmp_path):
    folder, middle, inner = make_shards(40), str(tmp_path / "m"), str(tmp_path / "x" / "i")
    assert cli.main(["subset", folder, "--where", "contains(caption, 'e')", "--output", middle]) == 0
    assert cli.main(["subset", middle, "--window", "3:9", "--output", inner]) == 0
    assert _keys(inner) == _keys(middle)[3:9]
    assert _problems(inner) == []


def test_unknown_columns_and_functions_are_exit_2(make_shards, tmp_path, capsys):
    folder = make_shards(4)
    for text, said in (("widht > 3", "did you mean 'width'"), ("read_csv('x') > 1", "function read_csv"), ("width", "true or false")):
        assert cli.main(["subset", folder, "--where", text, "--output", str(tmp_path / "s")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def _merge(*arguments: str) -> int:
    return cli.main(["merge", *arguments, "--engine", "inline"])


@pytest.mark.parametrize("materialize", [False, True])
def test_merged_sets_are_one_after_the_other_each_sample_once(make_shards, tmp_path, capsys, materialize):
    one, two = make_shards(20, "one"), make_shards(13, "two", seed=1, source="other")
    assert cli.main(["subset", one, "--window", "5:12", "--output", str(tmp_path / "part")]) == 0
    out = str(tmp_path / "merged")
    assert _merge(one, two, str(tmp_path / "part"), "--output", out, *(["--materialize"] if materialize else [])) == 0
    assert f"7 samples of {tmp_path / 'part'} left out" in capsys.readouterr().out
    manifest = read_manifest(out)
    assert _keys(out) == _keys(one) + _keys(two)
    assert {n: s["kept"] for n, s in manifest.sources.items()} == {"drawn": 20, "other": 13}
    assert [p["repeated"] for p in manifest.parents] == [0, 0, 7]
    assert manifest.samples == 33 == sum(json.loads(Path(out, "sizes.json").read_text()).values())
    assert _problems(out) == []
    whole = [s for folder in (one, two) for s in read_samples(read_manifest(folder), columns=["uid", "rank"])]
    assert list(read_samples(manifest, columns=["uid", "rank"])) == whole


def test_what_two_merged_builds_share_counts_as_repeated_ids(make_shards, tmp_path):
    one, two = make_shards(20, "one"), make_shards(12, "two")  # the second one's pictures are all in the first
    assert _merge(one, two, "--output", str(tmp_path / "m")) == 0
    manifest = read_manifest(str(tmp_path / "m"))
    assert _keys(tmp_path / "m") == _keys(one)
    assert manifest.sources["drawn"]["inputs"] == 32
    assert manifest.sources["drawn"]["dropped"] == {"duplicate_id": 12}
    assert _problems(tmp_path / "m") == []
    assert cli.main(["subset", str(tmp_path / "m"), "--samples", "20", "--output", str(tmp_path / "s")]) == 0


def test_windows_of_one_tar_merge_back(make_shards, tmp_path):
    folder = make_shards(20)
    for name, window in (("b", "11:20"), ("a", "3:11")):
        assert cli.main(["subset", folder, "--window", window, "--output", str(tmp_path / name)]) == 0
    assert _merge(str(tmp_path / "b"), str(tmp_path / "a"), "--output", str(tmp_path / "m")) == 0
    assert _keys(tmp_path / "m") == _keys(folder)[11:] + _keys(folder)[3:11]
    assert _problems(tmp_path / "m") == []


def test_sets_that_are_unlike_are_not_merged(make_shards, tmp_path, capsys):
    one, two = make_shards(4, "one"), make_shards(4, "two", classes=True, seed=1)
    assert _merge(one, two, "--output", str(tmp_path / "m")) == 2
    assert "members" in capsys.readouterr().err
    assert _merge(one, "--output", str(tmp_path / "m")) == 2
    assert _merge(one, make_shards(4, "three", seed=2), "--output", one, "--overwrite") == 2
    assert not (tmp_path / "m").exists()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.booleans(), min_size=24, max_size=24).filter(any), st.integers(1, 9))
def test_any_choice_read_back_and_repacked(tmp_path_factory, chosen, size):
    """Property: for any mask, the cut set, its materialised twin and the list of keys are the same."""
    from shards.copy import copy_shard
    from shards.manifest import entries
    from shards.subset import _repacked

    tmp = tmp_path_factory.mktemp("any")
    folder = _build(tmp, 24, size)
    manifest = read_manifest(str(folder))
    import dataclasses

    import numpy as np

    mask = np.array(chosen)
    shards = tuple(e.cut(np.flatnonzero(mask[at : at + e.samples])) for e, at in entries(manifest))
    shards = tuple(e for e in shards if e.used)
    cut = dataclasses.replace(manifest, shards=shards, samples=int(mask.sum()))
    expected = [k for k, c in zip([s.key for s in read_samples(manifest, [])], chosen, strict=True) if c]
    assert [s.key for s in read_samples(cut, [])] == expected
    made = tuple(copy_shard(task) for task in _repacked(manifest, shards, str(tmp / "out")))
    repacked = dataclasses.replace(manifest, shards=made, folder=str(tmp / "out"))
    assert list(read_samples(repacked)) == list(read_samples(cut))


def _build(tmp: Path, n: int, size: int) -> Path:
    from shards.writer import write_shard

    samples = [(f"{i:032x}", {"jpg": bytes([i]) * i, "txt": f"caption {i}".encode()}) for i in range(n)]
    shards = []
    for number, start in enumerate(range(0, n, size)):
        part = samples[start : start + size]
        shards.append(write_shard(str(tmp), f"{number:05d}", part, pa.table({"key": [k for k, _ in part], "uid": [k for k, _ in part]})))
    Manifest(samples=n, bytes=sum(e.bytes for e in shards), shards=tuple(shards), members=("jpg", "txt")).save(str(tmp))
    return tmp
