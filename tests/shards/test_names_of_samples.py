"""How people name samples: lists of uids in all forms, beginnings, ids, URLs, paths, conditions, fractions."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import math
import uuid
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import cli, which
from shards.core import notices
from shards.core.errors import UsageError
from shards.listed import ID_COLUMNS, URL_COLUMNS, read_names
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.remove import RemoveConfig, chosen
from shards.subset import part_of
from shards.uids import pack, read_listed, read_uid_file, read_uids, unpack

UIDS = sorted(f"{0x0123456789ABCDEF0123456789ABCDEF * (i + 3) % 2**128:032x}" for i in range(5))


def _keys(folder: str | Path) -> list[str]:
    return [s.key for s in read_samples(read_manifest(str(folder)), [])]


def _rows(folder: str) -> list[dict[str, object]]:
    return [row for path in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def _dashed(uid: str) -> str:
    return str(uuid.UUID(uid))


@pytest.mark.parametrize(
    "write",
    [
        lambda p: _write(p / "u.txt", "\n".join(UIDS)),
        lambda p: _write(p / "u.txt", "uid\n" + "\n".join(UIDS) + "\n"),
        lambda p: _write(p / "u.txt", "# a list\n\n" + "".join(f'"{u}",\n' for u in UIDS)),
        lambda p: _write(p / "u.txt", "".join(f"'{u}'\r\n" for u in UIDS)),
        lambda p: _write(p / "u.txt", "".join(f"{_dashed(u)}\n" for u in UIDS)),
        lambda p: _write(p / "u.txt", "".join(f"{{{_dashed(u).upper()}}}\n" for u in UIDS)),
        lambda p: _write(p / "u.txt", "\n".join(map(str.upper, UIDS)), "utf-16"),
        lambda p: _write(p / "u.txt", "uid\n" + "\n".join(UIDS), "utf-8-sig"),
        lambda p: _write(p / "u.csv", "score,uid\n" + "".join(f"0.5,{u}\n" for u in UIDS)),
        lambda p: _write(p / "u.csv", "".join(f"{i};{u};x\n" for i, u in enumerate(UIDS))),
        lambda p: _write(p / "u.tsv", "UID\tcaption\n" + "".join(f'{u}\t"a, b"\n' for u in UIDS)),
        lambda p: _write(p / "u.csv", "note,uid\n" + "".join(f'"a\nb, ""c""",{u}\n' for u in UIDS)),
        lambda p: _write(p / "u.csv", "uid|note\n" + "".join(f'{u}|5" wide\n' for u in UIDS)),
        lambda p: _write(p / "u.txt", "# uids\nuid\n# more\n" + "".join(f"{u}\n# again\n" for u in UIDS)),
        lambda p: (p / "u.txt.gz").write_bytes(gzip.compress("\n".join(UIDS).encode())) and p / "u.txt.gz",
        lambda p: (p / "u.csv.bz2").write_bytes(bz2.compress(("x,uid\n" + "".join(f"1,{u}\n" for u in UIDS)).encode())) and p / "u.csv.bz2",
        lambda p: _write(p / "u.json", json.dumps({"uids": UIDS, "count": 5})),
        lambda p: _write(p / "u.json", json.dumps([{"uid": u} for u in UIDS], indent=1)),
        lambda p: _write(p / "u.jsonl", "".join(json.dumps(u) + "\n" for u in UIDS)),
        lambda p: _write(p / "u.json", json.dumps(UIDS)),
        lambda p: _write(p / "u.jsonl", "".join(json.dumps({"uid": u, "x": 1}) + "\n" for u in UIDS)),
        lambda p: pq.write_table(pa.table({"x": range(5), "uid": UIDS}), p / "u.parquet") or p / "u.parquet",
        lambda p: pq.write_table(pa.table({"uid": [bytes.fromhex(u) for u in UIDS]}), p / "u.parquet") or p / "u.parquet",
        lambda p: np.save(p / "u.npy", np.array(UIDS, "S32")) or p / "u.npy",
        lambda p: np.save(p / "u.npy", np.array(UIDS, "U32")) or p / "u.npy",
        lambda p: np.save(p / "u.npy", np.array([[_dashed(u)] for u in UIDS])) or p / "u.npy",
        lambda p: np.save(p / "u.npy", pack(UIDS).astype([("f0", ">u8"), ("f1", ">u8")])) or p / "u.npy",
        lambda p: np.save(p / "u.npy", pack(UIDS).view("u8").reshape(-1, 2)) or p / "u.npy",
        lambda p: np.save(p / "u.npy", pack(UIDS).view("u8").reshape(-1, 2).astype(">u8")) or p / "u.npy",
    ],
)
def test_uid_lists_are_read_in_the_forms_that_people_have(tmp_path, write):
    found, others = read_listed(str(write(tmp_path)))
    assert list(unpack(found.uids)) == UIDS
    assert others == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("u.txt", b"\xff\xfe\x00", "neither text"),
        ("u.txt", b"nonsense\n", "1 of the names are no uids, such as 'nonsense'"),
        ("u.csv", b"a,b\n1,2\n", "no uids"),
        ("u.json", b'[{"a": 1, "b": 2}]', "one called uid"),
        ("u.json", b"[" * 5000, "no JSON"),
        ("u.json", b"5", "a list of names"),
        ("u.parquet", b"PAR1nonsense", "a whole parquet file"),
        ("u.txt", b"PAR1nonsense", "this is a parquet file"),
        ("u.jsonl", b'{"uid": "a"}\nnonsense\n', "line 2 is no JSON"),
    ],
)
def test_what_is_no_list_of_uids_is_refused_by_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=r"u\.") as error:
        read_uid_file(str(tmp_path / name))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["short"]), np.zeros((3, 3), "u8"), np.zeros(3, "u4,u4"), np.zeros((2, 2), "u8,u8")]
)
def test_arrays_that_hold_no_uids_are_refused(tmp_path, array):
    np.save(tmp_path / "u.npy", array)
    with pytest.raises(UsageError, match=r"u\.npy"):
        read_uids(str(tmp_path / "u.npy"))


def test_each_way_to_name_a_sample_finds_it_alone(make_shards):
    folder = make_shards(20)
    manifest = read_manifest(folder)
    for row in _rows(folder)[:6]:
        uid = str(row["uid"])
        names = [uid, _dashed(uid), uid.upper(), uid[:8], uid[:6].upper(), row["source_id"], row["url"], f" {row['url']} "]
        names += [str(row["url"]).rpartition("/")[2], f"/data/pictures/{row['source_id']}"]
        assert which.resolve(manifest, list(map(str, names))) == [uid]
    assert which.find(manifest, ["abcde", "nothing", ""]) == {"abcde": [], "nothing": [], "": []}


def test_an_ambiguous_name_lists_its_candidates(make_shards, tmp_path):
    one, two = make_shards(4, "one"), make_shards(4, "two", seed=1, source="other")
    assert cli.main(["merge", one, two, "--output", str(tmp_path / "m"), "--engine", "inline"]) == 0
    manifest = read_manifest(str(tmp_path / "m"))
    with pytest.raises(UsageError) as error:
        which.resolve(manifest, ["2.jpg"])
    both = [row for folder in (one, two) for row in _rows(folder) if str(row["url"]).endswith("/2.jpg")]
    assert "'2.jpg' fits 2 samples" in error.value.found
    for row in both:
        assert f"{row['uid']}  {row['source']}" in error.value.found
    with pytest.raises(UsageError, match="names no sample"):
        which.resolve(manifest, ["absent.jpg"])


def _with_rows(folder: str, change) -> None:
    for path in Path(folder).glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()], table.schema), path)


def test_a_url_stands_for_all_its_samples_a_path_for_the_closest(make_shards):
    folder = make_shards(8)
    urls = {f"0/{i}": f"https://example.org/{i // 2}.jpg?w=1" for i in range(8)}
    ids = {"0/0": "cat.jpg", "0/1": "more/cat.jpg", "0/2": "https://example.org/x.jpg\na caption"}
    _with_rows(folder, lambda row: row | {"url": urls[row["source_id"]], "source_id": ids.get(row["source_id"], row["source_id"])})
    manifest = read_manifest(folder)
    by_id = {row["source_id"]: row["uid"] for row in _rows(folder)}
    assert which.resolve(manifest, ["/somewhere/more/cat.jpg"]) == [by_id["more/cat.jpg"]]
    assert which.resolve(manifest, ["cat.jpg"]) == [by_id["cat.jpg"]], "a whole id goes before a file name"
    assert which.resolve(manifest, ["https://example.org/x.jpg"]) == [by_id["https://example.org/x.jpg\na caption"]]
    assert len(which.resolve(manifest, ["https://example.org/3.jpg?w=1"])) == 2
    with pytest.raises(UsageError, match="fits 2 samples"):
        which.resolve(manifest, ["3.jpg"])


def test_names_are_looked_up_in_the_ledger_too(make_shards):
    folder = make_shards(4)
    (Path(folder) / "ledger").mkdir()
    row = {"uid": "f" * 32, "source": "drawn", "source_id": "spare.jpg", "decision": "spare", "caption_raw": "a spare"}
    pq.write_table(pa.Table.from_pylist([row]), Path(folder) / "ledger" / "0.parquet")
    found = which.find(read_manifest(folder), ["spare.jpg", "ffffff"])
    assert [[m.uid, m.place, m.caption] for matches in found.values() for m in matches] == [["f" * 32, "spare", "a spare"]] * 2


def test_a_foreign_set_with_uids_for_keys_knows_their_beginnings(tmp_path):
    from foreign import write

    from shards.index import index

    write(tmp_path / "0.tar", [(f"{uid}.jpg", b"x") for uid in UIDS])
    assert which.resolve(index(str(tmp_path), engine="inline"), [UIDS[2][:7]]) == [UIDS[2]]


@given(st.integers(1, 10**6), st.integers(0, 3000))
def test_a_fraction_is_the_decimal_number_that_was_written(millionths, samples):
    """The oracle computes in whole numbers: ⌊F·M + ½⌋ with F = millionths / 10⁶."""
    assert part_of(millionths / 10**6, samples) == (2 * millionths * samples + 10**6) // (2 * 10**6)


def test_halves_are_rounded_up_and_binary_fractions_do_not_show():
    assert [part_of(0.5, n) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert math.floor(0.145 * 100 + 0.5) == 14, "0.145 * 100 is below 14.5 in binary"
    assert part_of(0.145, 100) == 15 == int(Fraction(145, 1000) * 100 + Fraction(1, 2))


def test_subset_by_fraction_is_a_prefix_of_what_meets_the_condition(make_shards, tmp_path, capsys):
    folder = make_shards(21)
    for fraction, count in (("0.5", 11), ("0.1", 2), ("1", 21)):
        out = str(tmp_path / fraction)
        assert cli.main(["subset", folder, "--fraction", fraction, "--output", out]) == 0
        assert _keys(out) == _keys(folder)[:count]
    condition = "caption LIKE '%e%'"
    meeting = [str(row["uid"]) for row in _rows(folder) if "e" in str(row["caption"])]
    assert cli.main(["subset", folder, "--where", condition, "--fraction", "0.5", "--output", str(tmp_path / "w")]) == 0
    assert _keys(tmp_path / "w") == meeting[: (len(meeting) + 1) // 2]
    assert read_manifest(str(tmp_path / "w")).parents[0]["fraction"] == 0.5
    capsys.readouterr()
    for wrong in (
        ["--fraction", "0"],
        ["--fraction", "1.5"],
        ["--fraction", "nan"],
        ["--fraction", "0.5", "--samples", "3"],
        ["--fraction", "0.001"],
    ):
        assert cli.main(["subset", folder, *wrong, "--output", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_subset_takes_a_list_of_any_names_and_counts_those_not_there(make_shards, tmp_path, capsys):
    folder = make_shards(20)
    rows = _rows(folder)
    names = [str(rows[3]["uid"])[:9], str(rows[7]["url"]), str(rows[12]["uid"]), "0" * 32]
    (tmp_path / "u.txt").write_text("\n".join(names))
    out = str(tmp_path / "s")
    assert cli.main(["subset", folder, "--uids", str(tmp_path / "u.txt"), "--output", out]) == 0
    assert _keys(out) == [rows[i]["uid"] for i in (3, 7, 12)]
    assert "1 of the 4 uids is not in the set" in capsys.readouterr().err
    assert cli.main(["subset", folder, "--uids", str(tmp_path / "u.txt"), "--output", out, "--overwrite", "--strict"]) == 1


def test_uids_by_condition(make_shards, tmp_path, capsys):
    folder = make_shards(20)
    expected = sorted(str(row["uid"]) for row in _rows(folder) if "red" in str(row["caption"]))
    assert expected
    assert cli.main(["uids", folder, "--where", "contains(caption, 'red')"]) == 0
    assert capsys.readouterr().out.split() == expected
    assert cli.main(["uids", folder, "--where", "contains(caption, 'red')", "--output", str(tmp_path / "u.npy")]) == 0
    assert list(unpack(read_uids(str(tmp_path / "u.npy")))) == expected
    assert cli.main(["uids", folder, "--where", "widht > 3"]) == 2
    assert cli.main(["uids", str(tmp_path / "u.npy"), "--where", "width > 3"]) == 2
    assert cli.main(["uids", str(tmp_path / "absent")]) == 2


def test_samples_without_a_value_for_the_condition_are_counted(make_shards, tmp_path, capsys):
    folder = make_shards(20)
    _with_rows(folder, lambda row: row | {"width": None if "red" in row["caption"] else row["width"]})
    unknown = sum(row["width"] is None for row in _rows(folder))
    command = ["subset", folder, "--where", "width > 5", "--output", str(tmp_path / "s")]
    assert cli.main(command) == 0
    assert f"{unknown} samples left out: the condition has no value for them" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--strict"]) == 1
    assert cli.main(["uids", folder, "--where", "width > 5", "--strict"]) == 1


def test_a_dry_run_shows_what_would_go_and_changes_nothing(make_shards, capsys):
    folder = make_shards(20)
    long = "x" * 80
    _with_rows(folder, lambda row: row | {"caption": f"{row['caption']} \x1b[2J {long}"})
    going = [row for row in _rows(folder) if "red" in str(row["caption"])]
    before = {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}
    assert cli.main(["remove", folder, "--where", "contains(caption, 'red')", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(going)} samples of" in said
    assert "nothing is changed" in said
    for row in going[:10]:
        assert str(row["uid"]) in said
    assert "\x1b" not in said
    captions = [line.split("  ", 1)[1] for line in said.splitlines()[3:]]
    assert all(len(caption) == 60 and caption.endswith("…") for caption in captions)
    assert {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()} == before
    assert cli.main(["remove", folder, "--where", "contains(caption, 'red')", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["dry_run"], len(found["examples"])) == (len(going), True, min(10, len(going)))


def test_take_downs_by_condition_url_id_and_name_may_be_run_again(make_shards, tmp_path, capsys):
    folder = make_shards(30)
    rows = _rows(folder)
    left = [row for row in rows if "red" not in str(row["caption"])]
    with (tmp_path / "urls.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "url"], *([str(i), row["url"]] for i, row in enumerate(left[:3])), ["9", "https://absent.example/"]]
        )
    (tmp_path / "ids.txt").write_text(f"{left[4]['source_id']}\n{left[5]['source_id']}\n")
    ways = [
        (["--where", "contains(caption, 'red')"], [row for row in rows if "red" in str(row["caption"])]),
        (["--urls", str(tmp_path / "urls.csv")], left[:3]),
        (["--source-ids", str(tmp_path / "ids.txt")], left[4:6]),
        (["--json", str(left[7]["uid"])[:10], str(left[8]["url"])], left[7:9]),
    ]
    gone: set[object] = set()
    for arguments, going in ways:
        for _ in range(2):
            assert cli.main(["remove", folder, *arguments]) == 0
            gone |= {row["uid"] for row in going}
            assert _keys(folder) == [row["uid"] for row in rows if row["uid"] not in gone]
            said = capsys.readouterr()
            if "--urls" in arguments:
                assert "1 of the 4 URLs is of no sample: such as 'https://absent.example/'" in said.err
        assert "0 samples taken down" in said.out or '"samples": 0' in said.out
    assert cli.main(["remove", folder, "--urls", str(tmp_path / "urls.csv"), "--strict"]) == 1


def test_a_take_down_names_its_samples_in_one_way(make_shards, tmp_path, capsys):
    folder = make_shards(4)
    (tmp_path / "u.txt").write_text("0" * 32)
    for arguments in ([], ["--where", "width > 3", "--uids", str(tmp_path / "u.txt")], ["--where", "width < 0"], ["12345"], ["absent.jpg"]):
        assert cli.main(["remove", folder, *arguments]) == 2
    assert "names no sample" in capsys.readouterr().err
    assert len(_keys(folder)) == 4
    assert chosen(RemoveConfig(folder, uids=str(tmp_path / "u.txt"))) == {"0" * 32}


def test_a_comma_in_an_only_column_is_the_names_own(tmp_path):
    urls = ["https://example.org/a,b.jpg", "https://example.org/c.jpg?size=1,2", "https://example.org/d.jpg"]
    (tmp_path / "urls.csv").write_text("\n".join(["URL", f'"{urls[0]}"', *urls[1:]]))
    (tmp_path / "plain.txt").write_text("\n".join(urls))
    for name in ("urls.csv", "plain.txt"):
        assert read_names(str(tmp_path / name), URL_COLUMNS, lambda cell: "://" in cell) == urls


def test_what_reading_a_list_had_to_change_is_a_notice(tmp_path):
    notices.clear()
    (tmp_path / "ids.txt").write_bytes(b"plain\ncaf\xe9\n")
    assert read_names(str(tmp_path / "ids.txt"), ID_COLUMNS, lambda cell: False) == ["plain", "caf\u00e9"]
    assert notices.lines() == ["1 texts that are no UTF-8, read as cp1252: such as 'caf\u00e9'"]
    notices.clear()
