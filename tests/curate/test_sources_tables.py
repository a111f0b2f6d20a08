"""Tables of any format and packed text: what comes out is what went in, and a fault costs its own record alone."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.sources import _guess, _table
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.tables import json_records as _json
from shards.tables import table as _tables
from shards.tables import text as _text
from shards.tables.json_records import Bad

NAMES = ("id", "text", "more")
ROWS = [{"id": str(i), "text": f'caption {i}, "quoted"\nover lines', "more": "NA"} for i in range(7)]
any_text = st.text(st.characters(codec="utf-8"))
relaxed = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(folder: Path, content: bytes | str, name: str) -> str:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def as_csv(rows: list[dict[str, Any]], names: tuple[str, ...] = NAMES) -> str:
    """Write rows with the csv module."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read(path: str, key: str = "data") -> list[Any]:
    """Return all rows of a table file."""
    return list(_tables.sniff(path, "a table", key).rows())


def written(folder: Path, kind: str, rows: list[dict[str, str]]) -> str:
    """Write rows in a format, by another library than the reader's where there is one."""
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in NAMES])), folder / "t.parquet", row_group_size=3)
        return str(folder / "t.parquet")
    text = {
        "csv": lambda: as_csv(rows),
        "list": lambda: json.dumps(rows),
        "document": lambda: json.dumps({"page": 1, "data": rows}, indent=1),
        "jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows),
    }[kind]()
    return put(folder, text, "t." + {"list": "json", "document": "json"}.get(kind, kind))


@pytest.mark.parametrize("kind", ["parquet", "csv", "list", "document", "jsonl"])
def test_formats_agree(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, ROWS)
    assert read(path) == ROWS
    assert _tables.sniff(path, "a table", "data").columns == NAMES


@relaxed
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, any_text)), min_size=1, max_size=6), st.sampled_from(["csv", "list", "jsonl"]))
def test_any_text_comes_back(tmp_path: Path, rows: list[dict[str, str]], kind: str) -> None:
    """CSV ends lines with CR LF, which no reader can tell from LF inside a cell."""
    expected = [{k: v.replace("\r\n", "\n") for k, v in row.items()} for row in rows] if kind == "csv" else rows
    assert read(written(tmp_path, kind, rows)) == expected


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("kind", ["csv", "list", "jsonl"])
def test_packed_files_are_unpacked(tmp_path: Path, pack: Any, kind: str) -> None:
    plain = Path(written(tmp_path, kind, ROWS))
    plain.write_bytes(pack(plain.read_bytes()))
    assert read(str(plain)) == ROWS


@pytest.mark.parametrize("kind", ["csv", "list", "document", "jsonl"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, kind: str) -> None:
    path = Path(written(tmp_path, kind, ROWS))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(str(path)) == ROWS


@pytest.mark.parametrize("kind", ["csv", "jsonl", "list", "tsv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """Twelve megabytes of text take no more than a few chunks of it; parquet is measured in test_sources_laion."""
    rows = [{"id": str(i), "text": "x" * 3000, "more": ""} for i in range(4000)]
    text = "id\ttext\tmore\n" + "".join("\t".join(row.values()) + "\n" for row in rows)
    path = put(tmp_path, text, "t.tsv") if kind == "tsv" else written(tmp_path, kind, rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in _tables.sniff(path, "a table").rows()) == 4000
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["parquet", "csv", "list"])
def test_tables_are_read_through_fsspec(tmp_path: Path, kind: str) -> None:
    local = written(tmp_path, kind, ROWS)
    remote = f"memory://tables/{Path(local).name}"
    fs.write_bytes(remote, Path(local).read_bytes() if kind == "parquet" else gzip.compress(Path(local).read_bytes()))
    try:
        assert read(remote) == ROWS
    finally:
        fs.remove("memory://tables")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_cut_packed_file_gives_what_stands_before(tmp_path: Path, pack: Any) -> None:
    import random

    noise = random.Random(0)
    whole = "".join(f"{i}\t{noise.random()}\n" for i in range(120_000)).encode()  # bzip2 packs blocks of 900 kB
    packed = pack(whole)
    path = put(tmp_path, packed[: len(packed) * 9 // 10], "cut.tsv")
    found = []
    with pytest.raises(TornFileError, match="cut off or damaged"):
        found.extend(_text.lines(path))
    assert len(found) > 30_000
    assert "".join(line + "\n" for line, ended in found if ended).encode() == whole[: sum(len(line) + 1 for line, ended in found if ended)]


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ('1,"opens and never closes,x\n2,two,y\n3,three,z\n', ["1", "2", "3"], []),
        ('1,one,x\n2,"opens,y\n3,"three",z\n4,four,w\n', ["1", "2", "3", "4"], []),
        ('1,"closed" too early,x\n2,two,y\n', ["1", "2"], []),
        ('1,"opens, and never closes,x\n2,two,y\n', ["2"], ["1"]),
        ('1,5" screen,x\n2,6" screen,y\n', ["1", "2"], []),
        ("1,one,x\n2,two\n3,three,z,extra\n4,four,w\n", ["1", "4"], ["2", "3"]),
        ('1,"over\ntwo lines",x\n2,two,y\n', ["1", "2"], []),
    ],
)
def test_a_wrong_quote_costs_its_line_at_most(tmp_path: Path, text: str, good: list[str], bad: list[str]) -> None:
    """The trap of other readers: a caption that opens with a quote swallows the rows behind it."""
    found = read(put(tmp_path, "id,text,more\n" + text, "t.csv"))
    assert [row["id"] for row in found if isinstance(row, dict)] == good
    assert [row.text[0] for row in found if isinstance(row, Bad)] == bad


@relaxed
@given(st.lists(st.fixed_dictionaries({n: st.text("ab,\"'\n", max_size=6) for n in NAMES}), min_size=1, max_size=8), st.data())
def test_a_stray_quote_never_hides_rows_far_away(tmp_path: Path, rows: list[dict[str, str]], data: st.DataObject) -> None:
    """Between rows with quotes and line feeds of their own stands a line with a quote too many: every row before it is
    whole, and so are plain ones behind."""
    at = data.draw(st.integers(0, len(rows)))
    tail = [{"id": f"tail {i}", "text": "plain", "more": "x"} for i in range(3)]
    head, behind = as_csv(rows[:at]), as_csv(rows[at:] + tail).split("\r\n", 1)[1]
    found = read(put(tmp_path, head + 'id,"never closed,x\r\n' + behind, "t.csv"))
    whole = [row for row in found if isinstance(row, dict)]
    assert whole[:at] == [{k: v.replace("\r\n", "\n") for k, v in row.items()} for row in rows[:at]]
    assert whole[-3:] == tail


def test_tsv_does_not_quote(tmp_path: Path) -> None:
    found = read(put(tmp_path, '\ufeffid\ttext\tmore\r\n1\t"open\tNA\r\n2\tit" closes\tnull\r\n', "t.tsv"))
    assert found == [{"id": "1", "text": '"open', "more": "NA"}, {"id": "2", "text": 'it" closes', "more": "null"}]


@relaxed
@given(st.data(), st.sampled_from(["csv", "jsonl"]))
def test_wherever_a_file_is_cut_whole_rows_stay(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """Rows before the cut come out whole; the rest is one row that is bad, cut in its last cell, or an error."""
    rows = [{"id": str(i), "text": f"text {i}", "more": "x" * i} for i in range(1, 6)]
    path = Path(written(tmp_path, kind, rows))
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10][1 if kind == "csv" else 0 :]
    header = len("id,text,more\r\n") if kind == "csv" else 0
    path.write_bytes(whole[: data.draw(st.integers(header, len(whole)))])
    found = []
    with contextlib.suppress(TornFileError):
        found.extend(_tables.sniff(str(path), "a table").rows())
    complete = sum(end <= path.stat().st_size for end in ends)
    assert found[:complete] == rows[:complete]
    assert len(found) <= complete + 1


def test_bad_json_lines_are_rows(tmp_path: Path) -> None:
    found = read(put(tmp_path, '{"id": 1}\n{"id": 2,}\n\n[3]\nnull\n{"id": NaN}\n', "t.jsonl"))
    assert found[0] == {"id": 1}
    assert found[-1] == {"id": None}
    assert [type(row) for row in found[1:4]] == [Bad, Bad, Bad]
    assert "line 2 is no JSON" in found[1].why


def test_a_document_is_no_json_lines(tmp_path: Path) -> None:
    for text in ('{"data": [{"id": 1}]}\n', '{"data": [\n{"id": 1}\n]}', '{"x": {}\n, "data": [{"id": 1}]}'):
        assert read(put(tmp_path, text, "t.json")) == [{"id": 1}]
    with pytest.raises(UsageError, match="an object of a, b"):
        read(put(tmp_path, '{"a": [], "b": 1}', "t.json"))


def test_a_value_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one value takes more than 16 MiB"):
        read(put(tmp_path, json.dumps({"image_urls": ["x" * 100] * (_json.MAX_RECORD // 80)}), "t.json"))


def test_damaged_parquet_gives_the_row_groups_before(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "parquet", ROWS))
    whole = path.read_bytes()
    last = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    path.write_bytes(whole[:last] + b"\xff" * 8 + whole[last + 8 :])
    found = []
    with pytest.raises(TornFileError):
        found.extend(read(str(path)))
    path.write_bytes(whole[:-20])
    with pytest.raises(TornFileError):
        _tables.sniff(str(path), "a table")


def test_parquet_text_that_is_no_utf8(tmp_path: Path) -> None:
    column = pa.array([b"good", b"bad \xff", None]).cast(pa.binary()).view(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, column.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet")) == [{"text": "good"}, {"text": "bad ÿ"}, {"text": None}]


def test_columns_are_found_whatever_their_case(tmp_path: Path) -> None:
    table = _tables.sniff(put(tmp_path, "URL,url,Text\n", "t.csv"), "a table")
    assert (table.column("url"), table.column("URL"), table.column("caption", "text"), table.column("none")) == ("url", "URL", "Text", "")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("0.5", "double", 0.5), (float("nan"), "double", None), ("n/a", "double", None), (2.0, "int32", 2), (2**40, "int32", None),
        (2**40, "int64", 2**40), (10**30, "int64", None), ("Yes", "bool", True), (0, "bool", False), ("maybe", "bool", None),
        (7, "string", "7"), ("", "string", None), (None, "double", None), (float("inf"), "int32", None),
    ],
)  # fmt: skip
def test_native_values_fit_their_column_or_are_null(value: Any, kind: str, expected: Any) -> None:
    assert _table.fitted(value, kind) == expected


def test_files_are_known_by_their_columns() -> None:
    assert _guess.by_columns(["language", "page_url", "image_url", "caption_reference_description"]) == "wit"
    assert _guess.by_columns(["URL", "TEXT", "similarity"]) == "laion"
    assert _guess.by_line("a cat\thttp://h/1.jpg") == "cc3m"
    assert _guess.by_line("http://h/1.jpg\ta cat") == "cc12m"
    assert _guess.by_line("\t".join(["x"] * 22 + ["0"])) == "yfcc"
    assert _guess.advice(_guess.by_line("words")) == "name another --source"
