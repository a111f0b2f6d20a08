"""Tables as people have them: one reader of encodings, line ends, delimiters, quotes, types and nulls."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.core.errors import UsageError
from shards.tables import table
from shards.tables.json_records import Bad
from shards.tables.notes import noting
from shards.tables.text import decoded, first_lines, lines
from shards.tables.values import captions_of, id_of, label_of, plain, uid_of_value

TEXT = "id,url,text\n1,http://h/1.jpg,a café\n2,http://h/2.jpg,two mugs\n"
EXPECTED = [{"id": "1", "url": "http://h/1.jpg", "text": "a café"}, {"id": "2", "url": "http://h/2.jpg", "text": "two mugs"}]
UID = "0f8fad5bd9cb469fa16570867728950e"


def read(folder: Path, content: str | bytes, name: str = "t.csv") -> list[Any]:
    """Return all rows of a table file."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(table.sniff(str(path), "a table").rows())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    """UTF-16 without a mark is known by its zero bytes; what is no UTF-8 is Western European, and counted."""
    with noting() as notes:
        assert read(tmp_path, TEXT.replace("\n", end).encode(encoding)) == EXPECTED
    western = encoding in ("cp1252", "latin-1")
    assert notes.counts == ({"texts that are no UTF-8, read as cp1252": 1} if western else {})
    assert first_lines(str(tmp_path / "t.csv"), 2) == TEXT.split("\n")[:2]


def test_bytes_that_are_no_utf8_leave_the_rest_of_their_line_alone() -> None:
    assert decoded("naïve ".encode() + b"caf\xe9 \x81 \x93ok\x94") == "naïve café \x81 “ok”"
    assert decoded("a scene".encode("utf-16")) == "a scene"


def test_a_carriage_return_in_a_file_with_line_feeds_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"one\rtwo\nthree\r\n")
    assert list(lines(str(path))) == [("one\rtwo", True), ("three", True)]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("before", ["", "\n", "# made by us\n", "# a, b\n\n# c; d\n"])
def test_delimiters_and_what_stands_before_the_header(tmp_path: Path, delimiter: str, before: str) -> None:
    rows = [["id", "url", "text"], ["1", "http://h/1.jpg", '"a; b, c | d"'], ["2", "http://h/2.jpg", "plain"]]
    found = read(tmp_path, before + "".join(delimiter.join(row) + "\n" for row in rows))
    assert [row["text"] for row in found] == ["a; b, c | d", "plain"]
    assert [row["id"] for row in found] == ["1", "2"]


@pytest.mark.parametrize(("first", "delimiter"), [("sep=;", ";"), ('"sep=,"', ","), ("SEP=\t", "\t"), ("sep=^", "^")])
def test_a_line_that_names_the_delimiter(tmp_path: Path, first: str, delimiter: str) -> None:
    found = read(tmp_path, f"{first}\r\nid{delimiter}text\r\n1{delimiter}one\r\n")
    assert found == [{"id": "1", "text": "one"}]


def test_comments_between_rows_are_counted(tmp_path: Path) -> None:
    with noting() as notes:
        assert read(tmp_path, "# one\n" + TEXT + "# two\n") == EXPECTED
    assert notes.counts == {"comment [line|lines] passed over": 1}
    assert read(tmp_path, "#image,text\na.jpg,one\n") == [{"image": "a.jpg", "text": "one"}]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (r'1,http://h/1.jpg,"say \"hi\", now"', 'say "hi", now'),
        ('1,http://h/1.jpg,"say ""hi"", now"', 'say "hi", now'),
        ('1, http://h/1.jpg, "one, two"', "one, two"),
        ('1,http://h/1.jpg,a 5" nail', 'a 5" nail'),
        ('1,http://h/1.jpg,"open, quote', '"open, quote'),
        ('1,http://h/1.jpg,"first\nsecond"', "first\nsecond"),
        ("1,http://h/1.jpg,first\rsecond", "first\rsecond"),
        ("1,http://h/1.jpg,one,,", "one"),
    ],
)
def test_quotes_as_writers_write_them(tmp_path: Path, line: str, text: str) -> None:
    found = read(tmp_path, f"id,url,text\n{line}\n2,http://h/2.jpg,two\n")
    assert [row["text"] for row in found] == [text, "two"]


def test_blanks_around_cells_are_none_of_theirs_where_the_header_has_them(tmp_path: Path) -> None:
    assert read(tmp_path, "id , url , text\n1 , http://h/1.jpg , one \n") == [{"id": "1", "url": "http://h/1.jpg", "text": "one"}]


@pytest.mark.parametrize("quote", ['"', '"""'])
def test_a_stray_quote_swallows_no_row_even_if_a_later_one_closes_it(tmp_path: Path, quote: str) -> None:
    found = read(tmp_path, f'id,url,text\n1,http://h/1.jpg,{quote}open\n2,http://h/2.jpg,two\n3,http://h/3.jpg,"\n4,http://h/4.jpg,four\n')
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert [row["text"] for row in found[1::2]] == ["two", "four"]


def test_tabs_and_line_feeds_in_quoted_cells_of_a_tsv(tmp_path: Path) -> None:
    found = read(tmp_path, 'id\ttext\n1\t"first\nsecond"\n2\t"a\tb"\n3\t"12 inch\n4\tfour\n', "t.tsv")
    assert [row["text"] for row in found] == ["first\nsecond", "a\tb", '"12 inch', "four"]


def test_without_a_header_columns_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "x.jpg,no header here\n") == [{"1": "x.jpg", "2": "no header here"}]
    found = table.sniff(str(tmp_path / "t.csv"), "a table")
    assert found.headless
    assert found.described == "no header; its first row: 1: 'x.jpg', 2: 'no header here'"
    assert (found.asked("2"), table.sniff(str(tmp_path / "t.csv"), "").column("url")) == ("2", "")
    with pytest.raises(UsageError, match="no column '3'"):
        found.asked("3")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name(tmp_path: Path, kind: str) -> None:
    """Neither is taken in silence: the name alone is refused, and each can be had."""
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text("text,n,text\none,1,two\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(["one"]), pa.array(["1"]), pa.array(["two"])], names=["text", "n", "text"]), path)
    found = table.sniff(str(path), "a table")
    assert found.columns == ("text", "n", "text.1")
    assert [list(row.values()) for row in found.rows() if isinstance(row, dict)] == [["one", "1", "two"]]
    assert (found.column("n"), found.asked("text"), found.asked("text.1")) == ("n", "text", "text.1")
    with pytest.raises(UsageError, match="2 columns are called 'text'"):
        found.column("text")


def test_json_with_huge_integers_several_documents_and_comments(tmp_path: Path) -> None:
    huge = "9" * 5000
    one = f'[{{"id": {huge}, "text": "one"}}]'
    assert read(tmp_path, one + "\n" + '[{"text": "two"}]', "t.json") == [{"id": huge, "text": "one"}, {"text": "two"}]
    found = read(tmp_path, f'# note\n{{"id": {huge}, "text": "one"}}\n{{"id": 2, "text": "two"}}\n', "t.jsonl")
    assert [row["text"] for row in found] == ["one", "two"]
    assert read(tmp_path, json.dumps([{"text": "café"}], ensure_ascii=False).encode("utf-16"), "t.json") == [{"text": "café"}]


def test_an_empty_parquet_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "t.parquet")
    assert list(table.sniff(str(tmp_path / "t.parquet"), "").rows()) == []


def test_nested_text_of_a_parquet_that_is_no_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9", b"fine"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    nested = pa.table({"a": pa.ListArray.from_arrays([0, 1, 2], text), "b": pa.StructArray.from_arrays([text], ["c"])})
    pq.write_table(nested, tmp_path / "t.parquet")
    assert list(table.sniff(str(tmp_path / "t.parquet"), "").rows()) == [
        {"a": ["café"], "b": {"c": "café"}},
        {"a": ["fine"], "b": {"c": "fine"}},
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a kite", ["a kite"]), (b"caf\xc3\xa9", ["café"]), (b"caf\xe9", ["café"]), (["a", None, "b"], ["a", "b"]), (7, ["7"]),
        ({"en": "a", "de": "b"}, ["a"]), ({"fr": "x", "de": "y"}, ["x", "y"]), ({"raw": "a", "tokens": ["a"]}, ["a"]), ([("en", "a"), ("de", "b")], ["a", "b"]),
        ([{"text": "a"}, {"text": "b"}], ["a", "b"]), ([["a"], ["b"]], ["a", "b"]), (datetime.date(2020, 1, 2), ["2020-01-02"]),
        (Decimal("1.50"), ["1.5"]), (None, []), (float("nan"), []), ("", []), ("  ", []), ("nan", []), ("None", []), ("NULL", []),
        (" null ", []), ("<NA>", []), ("\\N", []), ("NA", ["NA"]), ("none of these", ["none of these"]), ([], []), ({}, []),
    ],
)  # fmt: skip
def test_captions_of_cells_of_any_type(value: Any, expected: list[str]) -> None:
    assert captions_of(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x01\x02", "0102"), (b"text", "text"), (datetime.datetime(2020, 1, 1), "2020-01-01T00:00:00"), (Decimal(2**63), 2**63),
        (Decimal("0.1"), 0.1), (Decimal("0.12345678901234567890123"), "0.12345678901234567890123"), (float("inf"), None),
        ([1.0, float("nan")], [1.0, None]), ([("a", 1)], {"a": 1}), (datetime.timedelta(seconds=5), 5.0), ({"a": b"b"}, {"a": "b"}),
    ],
)  # fmt: skip
def test_values_of_any_type_as_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_ids_uids_and_labels() -> None:
    assert [id_of(value) for value in (1.0, "1", 1, b"\x00\xff", Decimal(12), None)] == ["1", "1", "1", "00ff", "12", ""]
    dashed = "0f8fad5b-d9cb-469f-a165-70867728950e"
    for value in (UID, UID.upper(), dashed, dashed.upper(), f"{{{dashed}}}", f"urn:uuid:{dashed}", f'"{UID}"', bytes.fromhex(UID)):
        assert uid_of_value(value) == UID
    assert [uid_of_value(value) for value in ("", "x" * 32, UID[1:], None, 7)] == [""] * 5
    assert [label_of(value) for value in ({"id": 1, "url": "u"}, {"id": 1, "url": ""}, [{"name": "a"}, "b"], None)] == [
        "u",
        "1",
        "a, b",
        "",
    ]


def test_what_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    found = read(tmp_path, "id,text\n1,one\n2\n3,three,more\n")
    assert [row if isinstance(row, dict) else row.why for row in found] == [
        {"id": "1", "text": "one"},
        "1 fields, not 2",
        "3 fields, not 2",
    ]
    assert isinstance(found[1], Bad)
