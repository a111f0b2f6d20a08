"""DataComp's uid files, foreign folders, and what `inspect` says."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from braceexpand import braceexpand

from shards import cli
from shards.core import console
from shards.core.errors import RunError, TornFileError, UsageError
from shards.index import index
from shards.inspect import brace
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.uids import pack, read_uids, unpack, write_uids


def test_uids_are_datacomps_format(make_shards, tmp_path, capsys):
    """The oracle is DataComp's own recipe: `np.array([(int(u[:16], 16), int(u[16:], 16)) …], "u8,u8")`, sorted."""
    folder, out = make_shards(20), tmp_path / "kept.npy"
    assert cli.main(["uids", folder, "--output", str(out)]) == 0
    keys = [s.key for s in read_samples(read_manifest(folder), [])]
    expected = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in keys], np.dtype("u8,u8"))
    expected.sort()
    saved = np.load(out)
    assert saved.dtype == np.dtype("u8,u8")
    assert (saved == expected).all()
    capsys.readouterr()
    assert cli.main(["uids", str(out)]) == 0
    assert capsys.readouterr().out.split() == sorted(keys)
    assert cli.main(["uids", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == sorted(keys)


def test_uid_files_read_back_with_and_without_header_and_with_repeats(tmp_path):
    rng = random.Random(0)
    uids = [f"{rng.getrandbits(128):032x}" for _ in range(50)] + ["0" * 32, "f" * 32, "f" * 32]
    write_uids(str(tmp_path / "a.npy"), pack(uids))
    assert list(unpack(read_uids(str(tmp_path / "a.npy")))) == sorted(uids)
    (tmp_path / "b.npy").write_bytes(pack(uids).tobytes())
    assert (read_uids(str(tmp_path / "b.npy")) == read_uids(str(tmp_path / "a.npy"))).all()
    assert list(unpack(pack([]))) == []


def test_what_is_no_uid_file(tmp_path):
    np.save(tmp_path / "floats.npy", np.zeros(3))
    with pytest.raises(UsageError, match="dtype float64"):
        read_uids(str(tmp_path / "floats.npy"))
    whole = (tmp_path / "floats.npy").read_bytes()
    for content in (whole[:-9], whole[:10], b"x" * 17):
        (tmp_path / "torn.npy").write_bytes(content)
        with pytest.raises(TornFileError):
            read_uids(str(tmp_path / "torn.npy"))
    with pytest.raises(UsageError, match="no file"):
        read_uids(str(tmp_path / "none.npy"))
    with pytest.raises(UsageError, match="32 hex digits"):
        pack(["00012"])


def _foreign(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1234.5
            file.addfile(info, io.BytesIO(content))


def test_a_foreign_folder_becomes_readable(tmp_path, capsys):
    shards = {f"train/{n:05d}.tar": {f"{n}{i}.{e}": f"{n}{i}{e}".encode() for i in range(3) for e in ("png", "json")} for n in range(2)}
    for name, members in shards.items():
        _foreign(tmp_path / name, members)
    (tmp_path / "train/00000.parquet").write_bytes(b"img2dataset's, with a row per attempt")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.tar")}
    assert cli.main(["index", str(tmp_path), "--workers", "1"]) == 0
    assert "6 samples in 2 tars; members: .png .json" in capsys.readouterr().out
    got = {f"{s.key}.{e}": c for s in read_samples(read_manifest(str(tmp_path)), columns=["uid"]) for e, c in s.members.items()}
    assert got == {k: v for members in shards.values() for k, v in members.items()}
    for path, content in before.items():
        assert path.read_bytes() == content
        subprocess.run([sys.executable, "-m", "wds2idx", str(path), str(tmp_path / "theirs")], check=True, capture_output=True)
        assert path.with_suffix(".idx").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert cli.main(["verify", str(tmp_path), "--no-decode", "--engine", "inline"]) == 0
    assert cli.main(["index", str(tmp_path)]) == 2
    assert cli.main(["index", str(tmp_path), "--overwrite", "--engine", "inline"]) == 0


def test_members_that_vary_and_names_with_spaces_are_told(tmp_path, capsys):
    _foreign(tmp_path / "a.tar", {"1.jpg": b"x", "1.txt": b"y", "2.jpg": b"z"})
    _foreign(tmp_path / "b.tar", {"my photo.jpg": b"xx"})
    _foreign(tmp_path / "c.tar", {})
    (tmp_path / "b.idx").write_text("v1.2 1\nstale\n")
    manifest = index(str(tmp_path), engine="inline")
    said = capsys.readouterr().err
    assert (manifest.samples, manifest.members) == (3, ("jpg",))
    assert "members differ" in said
    assert "b.tar: member names hold spaces" in said
    assert "1 tar left out: no sample in it, such as c.tar" in said
    assert [s.members["jpg"] for s in read_samples(manifest)] == [b"x", b"z", b"xx"]


def test_a_torn_tar_stops_or_is_left_out_by_name(tmp_path):
    _foreign(tmp_path / "a.tar", {"1.jpg": b"x"})
    _foreign(tmp_path / "b.tar", {"2.jpg": bytes(5000)})
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:3000])
    with pytest.raises(RunError, match=r"b\.tar: .*cut off"):
        index(str(tmp_path), engine="inline")
    assert not (tmp_path / "manifest.json").exists()
    manifest = index(str(tmp_path), bad_files="skip", engine="inline")
    assert (manifest.samples, list(manifest.notes["bad_files"])) == (1, ["b.tar"])


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_compressed_tars_are_refused_with_advice(tmp_path, capsys, name):
    _foreign(tmp_path / "b.tar", {"1.jpg": b"x"})
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    assert cli.main(["index", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert name in said
    assert "gunzip" in said
    assert not (tmp_path / "manifest.json").exists()


def test_where_there_is_nothing_to_index(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            index(str(folder), engine="inline")
    _foreign(tmp_path / "a.tar", {"README": b"x"})
    with pytest.raises(UsageError, match="no sample"):
        index(str(tmp_path), engine="inline")


def test_inspect_counts_what_is_there(make_shards, capsys):
    folder = make_shards(20, width=300, height=70)
    assert cli.main(["inspect", folder, "--json", "--examples", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    samples = list(read_samples(read_manifest(folder)))
    assert (facts["samples"], facts["shards"], facts["bytes"]) == (20, 3, sum(p.stat().st_size for p in Path(folder).glob("*.tar")))
    assert facts["shorter_side"] == {"< 128": 20}
    assert facts["caption_words"] == {"< 10": 20}
    assert [r["key"] for r in facts["examples"]] == [s.key for s in samples[:2]]
    words = shlex.split(facts["open_clip"])
    assert list(braceexpand(words[words.index("--train-data") + 1])) == [f"{folder}/{i:05d}.tar" for i in range(3)]
    assert words[words.index("--train-num-samples") + 1] == "20"
    assert int(words[words.index("--workers") + 1]) <= 3


def test_keys_of_others_command_no_terminal(tmp_path, capsys):
    _foreign(tmp_path / "a.tar", {"k\x1b[2J.jpg": b"no JPEG", "k\x1b[2J.txt": b"\x9b31m"})
    assert cli.main(["index", str(tmp_path), "--engine", "inline"]) == 0
    assert cli.main(["verify", str(tmp_path), "--engine", "inline"]) == 1
    assert cli.main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out.count("k␛[2J") == 2, "a problem of verify, an example of inspect"
    assert not {"\x1b", "\x9b"} & set(said.out + said.err)


def _with_captions(folder: str, changes: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the rows of a set's sidecars."""
    for path in Path(folder).glob("*.parquet"):
        old = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist([changes(row) for row in old.to_pylist()], schema=old.schema), path)


def test_inspect_spreads_are_those_of_plain_python(make_shards, capsys):
    """The oracle is `statistics` and a loop over the sidecars' rows."""
    rng = random.Random(0)
    folder = make_shards(300, per_shard=70)
    changed = []

    def change(row: dict[str, Any]) -> dict[str, Any]:
        source = rng.choice(["redcaps", "drawn"])
        width, height, n = rng.randrange(1, 900), rng.randrange(1, 900), rng.randrange(0, 30)
        row |= {"source": source, "caption": "w " * n, "width": width, "height": height, "bytes": rng.randrange(1, 10**6)}
        changed.append((source, n, min(width, height), round(width / height, 2), float(f"{row['bytes']:.3g}")))
        return row

    _with_captions(folder, change)
    assert cli.main(["inspect", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["distributions"]
    assert list(found) == ["words", "shorter_side", "aspect", "bytes"]
    for place, spread in enumerate(found.values(), start=1):
        edges = spread["edges"]
        assert list(spread["sources"]) == ["drawn", "redcaps"], "the manifest's source comes first"
        for source, told in [("", spread["all"]), *spread["sources"].items()]:
            values = sorted(row[place] for row in changed if source in ("", row[0]))
            assert told["samples"] == len(values) == sum(told["counts"])
            ranks = (1, math.ceil(len(values) / 100), math.ceil(len(values) / 2), math.ceil(0.99 * len(values)), len(values))
            assert [told[k] for k in ("min", "p1", "median", "p99", "max")] == [values[r - 1] for r in ranks]
            inner = [sum(a <= v < b for v in values) for a, b in itertools.pairwise(edges)][1:-1]
            assert told["counts"][1:-1] == inner
    assert found["words"]["edges"] == list(range(0, 32, 2))


def test_inspect_shows_sparklines_within_80_columns(make_shards, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = make_shards(20, width=300, height=70)
    hostile = itertools.cycle(["\x1b[2Jgone", "猫" * 60, "line\none", "x" * 200])
    lengths = itertools.cycle([1, 2, 2, 3])
    _with_captions(folder, lambda row: row | {"caption": f"{next(hostile)} {'w ' * next(lengths)}", "licence": ""})
    assert cli.main(["inspect", folder, "--examples", "4"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert "\x1b" not in said
    assert "␛[2Jgone" in said
    assert [w for line in lines[1:-1] if (w := console.width_of(line)) > 80] == []
    # 2, 3, 4 and 4 words in turn: 5, 5 and 10 captions of 20.
    assert next(line for line in lines if line.startswith("words per")).split() == [
        "words",
        "per",
        "caption",
        "2",
        "2",
        "3",
        "4",
        "4",
        "▄▄█",
    ]
    assert next(line for line in lines if line.startswith("shorter side")).split() == [
        "shorter",
        "side,",
        "px",
        "70",
        "70",
        "70",
        "70",
        "70",
        "█",
    ]


def test_inspect_limits_say_what_was_counted_and_foreign_sets_show_their_text(make_shards, tmp_path, capsys):
    folder = make_shards(20)
    assert cli.main(["inspect", folder, "--limit", "2"]) == 0
    assert "counted in 16 samples of the first 2 shards" in capsys.readouterr().out
    _foreign(tmp_path / "f/a.tar", {"1.jpg": b"x", "1.txt": "a c\xe4t".encode("latin-1"), "2.jpg": b"x"})
    index(str(tmp_path / "f"), engine="inline")
    assert cli.main(["inspect", str(tmp_path / "f"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["examples"] == [{"key": "1", "caption": "a c\u00e4t"}, {"key": "2", "caption": ""}]
    assert facts["distributions"] == facts["caption_words"] == {}


def test_inspect_names_licences(make_shards, capsys):
    folder = make_shards(3)
    path = Path(folder) / "manifest.json"
    licences = {"drawn": {f"https://example.org/{i}": 20 - i for i in range(14)}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"licences": licences}))
    assert cli.main(["inspect", folder]) == 0
    said = capsys.readouterr().out
    assert "drawn   https://example.org/0        20" in said
    assert "and 2 licences more" in said


def test_inspect_of_a_cut_set_gives_no_command_that_would_read_too_much(make_shards, tmp_path, capsys):
    folder = make_shards(20)
    assert cli.main(["subset", folder, "--samples", "5", "--output", str(tmp_path / "s")]) == 0
    assert cli.main(["inspect", str(tmp_path / "s")]) == 0
    assert "--materialize" in capsys.readouterr().out


def test_inspect_names_layers_and_take_downs(make_shards, tmp_path, capsys):
    from shards.remove import remove
    from shards.uids import UidSet

    folder = make_shards(20)
    manifest = read_manifest(folder)
    (tmp_path / "build" / "layers" / "scores").mkdir(parents=True)
    (tmp_path / "build" / "layers" / "scores" / "layer.json").write_text(json.dumps({"columns": ["clip"]}))
    remove(folder, UidSet(pack([s.key for s in itertools.islice(read_samples(manifest, []), 3)])))
    assert cli.main(["inspect", folder]) == 0
    said = capsys.readouterr().out
    assert "layer scores: clip" in said
    assert "3 samples of these tars were taken down" in said
    assert "open_clip needs `shards compact`" in said


@pytest.mark.parametrize(
    "paths",
    [
        ["d/00000.tar"],
        [f"d/{i:05d}.tar" for i in range(12)],
        ["d/00000.tar", "d/00001.tar", "e/00002.tar"],
        ["d/8.tar", "d/9.tar", "d/10.tar"],
        ["a.tar", "b.tar"],
        ["s/00000.tar", "d/00001.tar", "d/00002.tar", "s/00003.tar"],
    ],
)
def test_brace_patterns_expand_to_the_paths(paths):
    assert list(braceexpand(brace(paths))) == paths
