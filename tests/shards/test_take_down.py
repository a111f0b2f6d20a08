"""Take-downs: honoured at once by whoever reads, completed after any interruption, and after compacting the bytes are gone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import cli, tombstones
from shards.compact import ASIDE, compact
from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import remove
from shards.uids import UidSet, pack, uids_of
from shards.verify import verify


def _keys(folder: str | Path) -> list[str]:
    return [s.key for s in read_samples(read_manifest(str(folder)), [])]


def _remove(folder: str, uids: list[str]):
    return remove(folder, UidSet(pack(uids)))


def _grep(folder: str | Path, needle: bytes) -> list[str]:
    return [str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file() and needle in p.read_bytes()]


def _problems(folder: str | Path) -> list[str]:
    return [str(p) for p in verify(read_manifest(str(folder), removed=True), engine="inline")]


def test_a_tombstone_is_honoured_at_once_by_all_that_read(make_shards, tmp_path, capsys):
    folder, sub = make_shards(20, captions=2), str(tmp_path / "sub")
    assert cli.main(["subset", folder, "--window", "2:14", "--output", sub]) == 0
    keys, before = _keys(folder), read_manifest(folder).digest
    gone = [keys[3], keys[9], keys[19]]
    (tmp_path / "uids.txt").write_text("# asked for on a Tuesday\n" + "\n".join([*gone, "0" * 32]) + "\n\n")
    assert cli.main(["remove", folder, "--uids", str(tmp_path / "uids.txt")]) == 0
    said = capsys.readouterr()
    assert "3 samples taken down" in said.out
    assert "1 of the 4 samples named is in no shard" in said.err
    manifest = read_manifest(folder)
    assert _keys(folder) == [k for k in keys if k not in gone] == list(uids_of(manifest))
    assert _keys(sub) == [k for k in keys[2:14] if k not in gone]
    assert (manifest.samples, read_manifest(sub).samples) == (17, 10)
    assert manifest.digest != before
    assert manifest.sources["drawn"]["kept"] == 17
    assert manifest.sources["drawn"]["dropped"] == {"removed": 3}
    assert read_manifest(sub).sources["drawn"]["kept"] == 10
    assert _problems(folder) == _problems(sub) == []
    assert cli.main(["subset", folder, "--samples", "17", "--output", str(tmp_path / "all"), "--materialize"]) == 0
    assert _keys(tmp_path / "all") == _keys(folder)
    assert sum(json.loads(Path(folder, "sizes.json").read_text()).values()) == 17


def test_what_was_counted_of_a_shard_goes_with_its_samples(make_shards, tmp_path):
    folder = make_shards(20)
    stats = Path(folder, "stats")
    stats.mkdir()
    counted = {f"0000{i}.parquet" for i in range(3)}
    for name in counted:
        (stats / name).write_bytes(b"counts")
    _remove(folder, _keys(folder)[:1])
    assert {path.name for path in stats.iterdir()} == counted - {"00000.parquet"}
    (stats / "00000.parquet").write_bytes(b"counts of the first shard as it was, and not of the one to come")
    compact(folder)
    assert {path.name for path in stats.iterdir()} == counted - {"00000.parquet"}


def test_statistics_are_not_copied_and_do_not_outlive_a_copy(make_shards, tmp_path):
    folder, target = make_shards(20), str(tmp_path / "copy")
    Path(folder, "stats").mkdir()
    Path(folder, "stats", "00000.parquet").write_bytes(b"counts")
    command = ["subset", folder, "--samples", "9", "--output", target, "--materialize", "--engine", "inline"]
    assert cli.main(command) == 0
    assert not Path(target, "stats").exists()
    Path(target, "stats").mkdir()
    Path(target, "stats", "00001.parquet").write_bytes(b"counts")
    assert cli.main([*command, "--overwrite"]) == 0
    assert not Path(target, "stats").exists()
    assert Path(folder, "stats", "00000.parquet").exists()
    assert _problems(folder) == []


def test_taking_down_twice_and_in_turn_is_taking_down_both(make_shards):
    folder = make_shards(20)
    keys = _keys(folder)
    assert _remove(folder, keys[:3]).samples == 3
    first = read_manifest(folder).digest
    again = _remove(folder, keys[:3])
    assert (again.samples, again.before, again.not_found) == (0, 3, 0)
    assert read_manifest(folder).digest == first
    assert _remove(folder, keys[2:5]).samples == 2
    assert _keys(folder) == keys[5:]


def test_after_compacting_no_file_has_the_bytes_and_the_rest_is_untouched(make_shards):
    folder = make_shards(20, captions=2)
    samples = list(read_samples(read_manifest(folder)))
    gone = [samples[i] for i in (1, 8, 9, 10, 11, 12, 13, 14, 15)]  # one of the first shard, all of the second
    other = hashlib.sha256(Path(folder, "00002.tar").read_bytes()).hexdigest()
    assert all(_grep(folder, s.members["jpg"][-300:]) and _grep(folder, s.key.encode()) for s in gone)
    _remove(folder, [s.key for s in gone])
    assert compact(folder) == 2
    for sample in gone:
        assert _grep(folder, sample.members["jpg"][-300:]) == []
        assert _grep(folder, sample.members["txt"] + b"\0") == []
        assert _grep(folder, sample.key.encode()) == []
    rows = [row for path in Path(folder).glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["uid"] for row in rows}.isdisjoint(s.key for s in gone)
    left = [s for s in samples if s.key not in {g.key for g in gone}]
    assert list(read_samples(read_manifest(folder))) == left
    assert hashlib.sha256(Path(folder, "00002.tar").read_bytes()).hexdigest() == other
    assert sorted(p.name for p in Path(folder).iterdir()) == sorted(
        [*(f"{n}.{e}" for n in ("00000", "00002") for e in ("tar", "idx", "parquet")), "compacted.json", "manifest.json", "sizes.json"]
    )
    assert _problems(folder) == []
    assert compact(folder) == 0


def test_a_compacted_shard_is_what_the_same_samples_would_have_made(make_shards, tmp_path):
    """Naive twin: the samples that are left, written by themselves."""
    from shards.writer import write_shard

    folder = make_shards(8)
    samples = list(read_samples(read_manifest(folder), columns=["rank"]))
    _remove(folder, [samples[2].key])
    compact(folder)
    left = [s for i, s in enumerate(samples) if i != 2]
    write_shard(str(tmp_path), "twin", [(s.key, s.members) for s in left], pa.table({"key": [s.key for s in left]}))
    assert (tmp_path / "twin.tar").read_bytes() == Path(folder, "00000.tar").read_bytes()
    assert (tmp_path / "twin.idx").read_bytes() == Path(folder, "00000.idx").read_bytes()
    assert [s.row["rank"] for s in read_samples(read_manifest(folder), [], ["rank"])] == [s.row["rank"] for s in left]


def test_old_subsets_follow_their_build_through_any_number_of_compactions(make_shards, tmp_path):
    """Naive twin: the keys of each subset as it was made, without those taken down so far."""
    folder, rng = make_shards(40), random.Random(3)
    keys, subs = _keys(folder), {}
    for name, flags in {"a": ["--samples", "21"], "b": ["--window", "5:39"], "c": ["--where", "contains(caption, 'e')"]}.items():
        assert cli.main(["subset", folder, *flags, "--output", str(tmp_path / name)]) == 0
        subs[name] = _keys(tmp_path / name)
    gone: set[str] = set()
    for wave in (rng.sample(keys, 5), keys[8:16], rng.sample(keys[20:], 4)):
        gone |= set(wave)
        _remove(folder, wave)
        for compacted in (False, True):
            assert compact(folder) > 0 if compacted else True
            assert _keys(folder) == [k for k in keys if k not in gone]
            for name, expected in subs.items():
                manifest = read_manifest(str(tmp_path / name))
                assert _keys(tmp_path / name) == [k for k in expected if k not in gone] == list(uids_of(manifest))
                assert manifest.samples == manifest.sources["drawn"]["kept"] == sum(e.used for e in manifest.shards)
    later = str(tmp_path / "later")
    assert cli.main(["subset", str(tmp_path / "b"), "--samples", "9", "--output", later]) == 0
    assert _keys(later) == [k for k in subs["b"] if k not in gone][:9]
    assert _problems(later) == []


KILLED = """
import os, signal, sys
from shards import compact
from shards.core import fs
left = [int(sys.argv[2])]
move, write = fs.move, fs.write_bytes
def counted(real):
    def run(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return run
fs.move, fs.write_bytes, fs.remove = counted(move), counted(write), counted(fs.remove)
compact.compact(sys.argv[1])
"""


@pytest.mark.slow
def test_killed_at_any_step_the_same_command_completes_it(make_shards, tmp_path):
    """SIGKILL before the n-th move, write or removal, for every n there is; then once more."""
    done = 0
    for n in range(60):
        folder = make_shards(20, f"b{n}")
        keys = _keys(folder)
        _remove(folder, [keys[1], keys[9]])
        ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(n)], check=False, capture_output=True, text=True)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        compact(folder)
        assert _keys(folder) == [k for k in keys if k not in (keys[1], keys[9])]
        assert _problems(folder) == []
        assert not Path(folder, ASIDE).exists()
        assert tombstones.read(folder) == {}
        done += ended.returncode == 0
        if done:
            break
    assert done
    assert n > 8


def test_no_take_down_while_a_compaction_is_half_way(make_shards):
    folder = make_shards(20)
    keys = _keys(folder)
    _remove(folder, [keys[1]])
    os.makedirs(f"{folder}/{ASIDE}")
    read_manifest(folder).save(f"{folder}/{ASIDE}")
    with pytest.raises(UsageError, match="broken off"):
        _remove(folder, [keys[2]])


def test_a_subset_is_not_where_to_take_down_or_compact(make_shards, tmp_path):
    folder, sub = make_shards(20), str(tmp_path / "sub")
    assert cli.main(["subset", folder, "--samples", "5", "--output", sub]) == 0
    with pytest.raises(UsageError, match=r"the tars of .* lie in .*build"):
        _remove(sub, [_keys(folder)[0]])
    with pytest.raises(UsageError, match="tars of other folders"):
        compact(sub)


def test_copies_in_a_materialized_subset_are_taken_down_there(make_shards, tmp_path, capsys):
    folder, sub = make_shards(20), str(tmp_path / "sub")
    assert cli.main(["subset", folder, "--window", "3:20", "--output", sub, "--materialize", "--engine", "inline"]) == 0
    keys = _keys(folder)
    uids = tmp_path / "uids.txt"
    uids.write_text(f"{keys[4]}\n{keys[9]}\n")
    assert cli.main(["remove", sub, "--uids", str(uids)]) == 0
    assert "are not this set's own" in capsys.readouterr().err
    assert _keys(sub) == [k for k in keys[3:] if k != keys[4]]
    assert cli.main(["remove", folder, "--uids", str(uids)]) == 0
    assert _keys(sub) == [k for k in keys[3:] if k not in (keys[4], keys[9])]
    assert compact(sub) == compact(folder) - 1 == 1
    assert _keys(sub) == [k for k in keys[3:] if k not in (keys[4], keys[9])]
    assert _problems(sub) == _problems(folder) == []


def test_torn_tombstones_stop_every_reader(make_shards):
    folder = make_shards(4)
    Path(folder, tombstones.NAME).write_text('{"00000.tar": [[1')
    with pytest.raises(RunError, match=r"tombstones\.json"):
        read_manifest(folder)


def test_one_of_two_samples_with_equal_uid_goes_with_the_other(make_shards):
    """A build that repeats a sample (keys UID, UID-1) loses every copy."""
    folder = make_shards(6, per_shard=6)
    manifest = read_manifest(folder)
    path = manifest.path_of(manifest.shards[0], ".parquet")
    table = pq.read_table(path)
    uids = table["uid"].to_pylist()
    uids[4] = uids[1]
    pq.write_table(table.set_column(table.column_names.index("uid"), "uid", pa.array(uids)), path)
    assert _remove(folder, [uids[1]]).samples == 2
    assert list(uids_of(read_manifest(folder))) == [uids[i] for i in (0, 2, 3, 5)]
