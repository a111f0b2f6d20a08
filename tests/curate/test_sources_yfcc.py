"""yfcc: YFCC100M's TSV of 25 and 23 columns, its SQLite file, and CLIP's list of 15 million ids."""

from __future__ import annotations

import bz2
import contextlib
import json
import sqlite3
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import records

from curate.recipe import Recipe, SourceSpec
from curate.sources import _yfcc, yfcc
from curate.sources._yfcc import FIELDS
from curate.sources.base import Input, Record
from shards.core.errors import TornFileError, UsageError

# The first lines of the published files, by column name (multimediacommons.wordpress.com/yfcc100m-core-dataset).
ONE = {
    "line": "0", "hash": "d29ad0fc7dd4ee6b8d5d5e8e9e8d2e5b", "photoid": "48431", "uid": "35034359904@N01", "unickname": "quinnums",
    "datetaken": "2004-06-07 14:40:01.0", "dateuploaded": "1087331558", "capturedevice": "Canon+PowerShot+A40",
    "title": "ada+at+chinese+garden", "description": "in+portland%0A%3Cb%3EC%2B%2B%3C%2Fb%3E", "usertags": "ada,chinese+garden,b%26w%2C+c",
    "machinetags": "", "longitude": "-122.431393", "latitude": "37.785588", "accuracy": "16",
    "pageurl": "http://www.flickr.com/photos/35034359904@N01/48431/",
    "downloadurl": "http://farm1.staticflickr.com/1/48431_5033f547b0.jpg", "licensename": "Attribution License",
    "licenseurl": "http://creativecommons.org/licenses/by/2.0/", "serverid": "1", "farmid": "1", "secret": "5033f547b0",
    "secretoriginal": "5033f547b0", "ext": "jpg", "marker": "0",
}  # fmt: skip
TWO = ONE | {
    "line": "1",
    "photoid": "9731335",
    "title": "",
    "description": "Why+do+islanders+love+spam%3F",
    "longitude": "",
    "accuracy": "",
}
FILM = ONE | {"line": "2", "photoid": "777", "title": "a+film", "marker": "1"}


def lines(rows: list[dict[str, str]], width: int = 25) -> str:
    return "".join("\t".join(row[name] for name in _yfcc.LAYOUTS[width]) + "\n" for row in rows)


def write(folder: Path, content: str | bytes, name: str = "yfcc100m_dataset.txt") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def write_sqlite(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = FIELDS) -> Path:
    """Write the published schema: `yfcc100m_dataset` with an integer key and text."""
    path = folder / "yfcc100m_dataset.sql"
    path.unlink(missing_ok=True)
    kinds = {"photoid": "INTEGER PRIMARY KEY", "accuracy": "INTEGER", "marker": "INTEGER"}
    with sqlite3.connect(path) as con:
        con.execute(f"CREATE TABLE yfcc100m_dataset ({', '.join(name + ' ' + kinds.get(name, 'TEXT') for name in columns)})")
        con.executemany(f"INSERT INTO yfcc100m_dataset VALUES ({', '.join('?' * len(columns))})", [[r[c] for c in columns] for r in rows])
    con.close()
    return path


def comparable(found: list[Record], *left_out: str) -> list[tuple[object, ...]]:
    meta = [{k: v for k, v in json.loads(r.meta or "{}").items() if k not in ("hash", *left_out)} for r in found]
    return [(r.source_id, r.captions, r.urls, r.licence, r.status, m) for r, m in zip(found, meta, strict=True)]


def test_a_photo(tmp_path: Path) -> None:
    (found,) = records(yfcc, write(tmp_path, lines([ONE])))
    assert (found.source_id, found.urls, found.row) == ("48431", (ONE["downloadurl"],), 0)
    assert found.captions == ("ada at chinese garden", "in portland\n<b>C++</b>")
    assert found.licence == "http://creativecommons.org/licenses/by/2.0/"
    meta = json.loads(found.meta)
    assert meta["usertags"] == ["ada", "chinese garden", "b&w, c"]
    assert (meta["longitude"], meta["latitude"], meta["accuracy"]) == (-122.431393, 37.785588, 16)
    assert (meta["uid"], meta["capturedevice"], meta["hash"]) == ("35034359904@N01", "Canon PowerShot A40", ONE["hash"])


def test_the_three_layouts_agree(tmp_path: Path) -> None:
    rows = [ONE, FILM, TWO]
    expected = comparable(records(yfcc, write(tmp_path, lines(rows))))
    assert [row[0] for row in expected] == ["48431", "777", "9731335"]
    assert comparable(records(yfcc, write(tmp_path, lines(rows, 23), "yfcc100m_dataset-0"))) == expected
    assert comparable(records(yfcc, write(tmp_path, bz2.compress(lines(rows).encode()), "yfcc100m_dataset.bz2"))) == expected
    assert sorted(comparable(records(yfcc, write_sqlite(tmp_path, rows)))) == sorted(expected)


def test_layouts_are_stated(tmp_path: Path) -> None:
    def stated(path: Path) -> str:
        return yfcc.layout(Input(str(path), "x"), yfcc.Options())

    assert stated(write(tmp_path, lines([ONE]))) == "headerless TSV of 25 columns, title and description in 8 and 9"
    assert stated(write(tmp_path, lines([ONE], 23))) == "headerless TSV of 23 columns, title and description in 6 and 7"
    assert stated(write_sqlite(tmp_path, [ONE])) == "SQLite table yfcc100m_dataset of 23 columns"


def test_the_caption_rules(tmp_path: Path) -> None:
    path = write(tmp_path, lines([ONE, TWO]))
    title, text = "ada at chinese garden", "in portland\n<b>C++</b>"
    spam = "Why do islanders love spam?"
    assert [r.captions for r in records(yfcc, path, field="title")] == [(title, text), ("", spam)]
    assert [r.captions for r in records(yfcc, path, field="description")] == [(text, title), (spam, "")]
    assert [r.captions for r in records(yfcc, path, field="both")] == [(f"{title} {text}",), (spam,)]


@pytest.mark.parametrize(
    ("encoded", "text"),
    [("C%2B%2B", "C++"), ("1+%2B+1", "1 + 1"), ("100%25+wool", "100% wool"), ("caf%C3%A9", "café"), ("bad+%FF", "bad \ufffd"),
     ("50% off, decoded+already", "50% off, decoded+already"), ("a%0A%09b", "a\n\tb"), ("%3Ca+href%3D%22x%22%3Ey%3C%2Fa%3E", '<a href="x">y</a>')],
)  # fmt: skip
def test_url_encoding(encoded: str, text: str) -> None:
    assert yfcc.decoded(encoded) == text


def test_videos_and_bad_lines_are_rows(tmp_path: Path) -> None:
    odd = [FILM, ONE | {"photoid": "x1"}, ONE | {"downloadurl": ""}, ONE | {"marker": "2"}]
    found = records(yfcc, write(tmp_path, lines([ONE]) + "too\tfew\n\n" + lines([*odd, TWO])))
    assert [r.status for r in found] == ["", "bad_record", "bad_record", "unsupported", "bad_record", "bad_record", "bad_record", ""]
    assert [r.row for r in found] == list(range(8))
    details = [r.detail for r in found]
    assert details[1:4] == ["line 2: 2 fields, not 25", "line 3: 1 fields, not 25", "a video"]
    assert details[4:7] == ["row 5: no photo id: 'x1'", "row 6: no URL: ''", "row 7: the marker is '2', not 0 (photo) or 1 (video)"]


def test_a_cut_file_gives_its_whole_lines(tmp_path: Path) -> None:
    whole = lines([ONE, TWO])
    (one,) = yfcc.inputs(str(write(tmp_path, whole[:-60])), yfcc.Options())
    found = []
    with pytest.raises(TornFileError, match="line 2 is cut off"):
        found.extend(yfcc.read(one, yfcc.Options()))
    assert [r.source_id for r in found] == ["48431"]
    path = write_sqlite(tmp_path, [ONE | {"photoid": str(i), "description": "x" * 900} for i in range(99)])
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(TornFileError, match="cut off or damaged"):
        list(yfcc.read(Input(str(path), "x"), yfcc.Options()))


def test_an_id_list_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only listed photos are inputs; those that are not there are counted."""
    path = write(tmp_path, "\ufeff" + lines([ONE, FILM, TWO]))
    subset = write(tmp_path, bz2.compress(b"1\t9731335\tabc\n2\t777\tdef\n3\t555\tghi\n3\t555\tghi\n"), "yfcc100m_subset_data.tsv.bz2")
    found = records(yfcc, path, ids=str(subset))
    assert [(r.source_id, r.row, r.status) for r in found] == [("777", 1, "unsupported"), ("9731335", 2, "")]
    assert f"yfcc100m_dataset.txt: 2 of the 3 ids in {subset} are there, 1 are not" in capsys.readouterr().err
    plain = write(tmp_path, "48431\r\n\r\n9731335", "ids.txt")
    assert [r.source_id for r in records(yfcc, path, ids=str(plain))] == ["48431", "9731335"]
    assert [r.source_id for r in records(yfcc, write_sqlite(tmp_path, [ONE, TWO]), ids=str(subset))] == ["9731335"]
    assert yfcc.beside(Input(str(path), "x"), yfcc.Options(ids=str(plain))) == [str(plain)]


def test_of_an_id_list_its_content_counts(tmp_path: Path) -> None:
    """Equal recipes on two machines are equal, wherever the list lies there; another list makes another recipe."""

    def digest(ids: Path) -> str:
        return Recipe((SourceSpec("yfcc", "x", options={"ids": str(ids)}),)).digest

    here, there = write(tmp_path, "1\n2\n", "ids.txt"), write(tmp_path, "1\n2\n", "other name.txt")
    assert digest(here) == digest(there)
    assert digest(here) != digest(write(tmp_path, "1\n", "fewer.txt"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60), max_size=40))
def test_an_id_list_is_a_set(tmp_path: Path, there: set[int], wanted: list[int]) -> None:
    path = write(tmp_path, lines([ONE | {"photoid": str(10**15 + i)} for i in sorted(there)] or [ONE]))
    ids = write(tmp_path, "".join(f"{10**15 + i}\n" for i in wanted), "ids.txt")
    assert [int(r.source_id) - 10**15 for r in records(yfcc, path, ids=str(ids))] == sorted(there & set(wanted))


@pytest.mark.parametrize("content", ["name\nsomebody\n", "48431\tx\n", "a,b,c\n"])
def test_another_file_is_no_id_list(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, lines([ONE]))
    with pytest.raises(UsageError, match="is no photo id"):
        yfcc.inputs(str(path), yfcc.Options(ids=str(write(tmp_path, content, "ids.txt"))))
    with pytest.raises(UsageError, match="no id list"):
        yfcc.inputs(str(path), yfcc.Options(ids=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1\t48431\tabc\n2\t9\tdef\n", "--ids LIST"),
        ("48431\n9\n", "--ids LIST"),
        ("http://h/1.jpg\ta cat\n", "use --source cc12m"),
        ("a cat\thttp://h/1.jpg\n", "use --source cc3m"),
        ("\t".join(["a", "b"] + ["c"] * 23) + "\n", "no line of the first 1 is YFCC100M's; they have 25 columns"),
        (b"PAR1zzzz", "a parquet file"),
        (b"PK\x03\x04zz", "a zip file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(UsageError) as error:
        yfcc.inputs(str(write(tmp_path, content)), yfcc.Options())
    assert says in str(error.value)


def test_shifted_columns_are_refused(tmp_path: Path) -> None:
    """25 columns whose title has moved to another place: photo id and URL are not where they must be."""
    row = [ONE[name] for name in _yfcc.LAYOUTS[25]]
    with pytest.raises(UsageError, match="they have 25 columns"):
        yfcc.inputs(str(write(tmp_path, "\t".join(row[1:] + row[:1]) + "\n")), yfcc.Options())


def test_sqlite_columns(tmp_path: Path) -> None:
    kept = tuple(name for name in FIELDS if name != "machinetags")
    assert len(records(yfcc, write_sqlite(tmp_path, [ONE], kept[::-1]))) == 1
    with pytest.raises(UsageError, match="the table has no title among"):
        yfcc.inputs(str(write_sqlite(tmp_path, [ONE], tuple(n for n in FIELDS if n != "title"))), yfcc.Options())
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE other (x)")
    con.close()
    with pytest.raises(UsageError, match="tables other"):
        yfcc.inputs(str(path), yfcc.Options())


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.sampled_from([23, 25, 0]))
def test_any_text_comes_back(tmp_path: Path, pairs: list[tuple[str, str]], width: int) -> None:
    rows = [ONE | {"photoid": str(i), "title": quote_plus(t), "description": quote_plus(d)} for i, (t, d) in enumerate(pairs)]
    path = write(tmp_path, lines(rows, width)) if width else write_sqlite(tmp_path, rows)
    assert [r.captions for r in records(yfcc, path)] == pairs


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([23, 25]))
def test_wherever_a_file_is_cut_whole_lines_stay(tmp_path: Path, data: st.DataObject, width: int) -> None:
    whole = lines([ONE, FILM, TWO], width).encode()
    expected = records(yfcc, write(tmp_path, whole))
    cut = data.draw(st.integers(whole.index(b"\n") + 1, len(whole)))
    path = write(tmp_path, whole[:cut])
    found: list[Record] = []
    with contextlib.suppress(TornFileError):
        found.extend(yfcc.read(Input(str(path), path.name), yfcc.Options()))
    complete = whole[:cut].count(b"\n")
    assert found[:complete] == expected[:complete]
    assert len(found) <= complete + 1
