"""redcaps: official annotation files, read record by record."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.sources import redcaps
from curate.sources.base import Input, Record
from shards.core.errors import TornFileError, UsageError
from shards.tables import json_records as _json

ONE = {"image_id": "abc", "subreddit": "cats", "url": "http://h.example/1.jpg", "caption": "a cat", "raw_caption": "A Cat!", "author": "me"}


def write(folder: Path, value: Any, name: str = "cats_2017.json") -> Path:
    """Write a value as JSON, or text as it is."""
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def records(path: Path | str, **options: Any) -> list[Record]:
    """Return all records of all inputs."""
    chosen = redcaps.Options(**options)
    return [r for one in redcaps.inputs(str(path), chosen) for r in redcaps.read(one, chosen)]


def test_a_record(tmp_path: Path) -> None:
    (found,) = records(write(tmp_path, {"info": {"year": 2017}, "annotations": [ONE]}))
    assert (found.source_id, found.captions, found.urls, found.row) == ("abc", ("a cat",), (ONE["url"],), 0)
    assert json.loads(found.meta) == {"subreddit": "cats", "raw_caption": "A Cat!", "author": "me"}
    assert records(write(tmp_path, [ONE])) == [found]
    (raw,) = records(tmp_path, field="raw_caption")
    assert raw.captions == ("A Cat!",)
    assert json.loads(raw.meta)["caption"] == "a cat"


def test_odd_values_are_rows(tmp_path: Path) -> None:
    several = {**ONE, "url": ["http://h.example/1.jpg", None, "http://h.example/2.jpg"]}
    odd = [ONE, several, {**ONE, "caption": None}, {"image_id": "x"}, {**ONE, "image_id": 7}, "text", None, {**ONE, "caption": "\ud800"}]
    found = records(write(tmp_path, {"annotations": odd}))
    assert [r.status for r in found] == ["", "", "", "bad_record", "", "bad_record", "bad_record", ""]
    assert found[1].urls == ("http://h.example/1.jpg", "http://h.example/2.jpg")
    assert found[2].captions == ("",)
    assert found[3].detail == "no url"
    assert found[4].source_id == "7"
    assert found[7].captions == ("\ufffd",)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([["id", "x.jpg", "caption"]], "its records are lists"),
        ({"image_urls": [], "captions": []}, "an object of image_urls, captions"),
        ({"annotations": [{"id": 1, "image_id": 2, "caption": "c"}]}, "looks like COCO"),
        ([{"filename": "f", "title": "t"}], "there is no 'image_id'"),
        ([{"image_id": "a", "url": "u", "title": "t"}], "there is no 'caption'"),
        ([{"image_id": "a", "image_url": "u", "raw_caption": "t"}], "there is no 'caption'"),
        ([{"page_url": "a", "image_url": "u", "caption_reference_description": "t"}], "use --source wit"),
        ('"text"', "there is no 'image_id'"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        redcaps.inputs(str(write(tmp_path, value)), redcaps.Options())


def test_a_caption_field_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [{k: v for k, v in ONE.items() if k != "raw_caption"}])
    with pytest.raises(UsageError, match="there is no 'raw_caption'"):
        redcaps.inputs(str(path), redcaps.Options("raw_caption"))


def test_no_annotations_no_records(tmp_path: Path) -> None:
    assert records(write(tmp_path, {"annotations": [], "info": {}})) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_torn_file_gives_its_whole_records(tmp_path: Path, data: st.DataObject) -> None:
    """Wherever the cut is: exactly the records that end before it, then one error."""
    items = [{**ONE, "image_id": str(i), "caption": f"{{[“{i}”]}}\\"} for i in range(5)]
    parts = [json.dumps(i, ensure_ascii=False).encode() for i in items]
    whole = b'{"info": {"a": [1, 2]}, "annotations": [' + b", ".join(parts) + b"]}"
    cut = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "cut.json"
    path.write_bytes(whole[:cut])
    found: list[Record] = []
    with pytest.raises(TornFileError):
        found.extend(redcaps.read(Input(str(path), "cut.json"), redcaps.Options()))
    starts = [whole.index(part) for part in parts]
    assert len(found) == sum(start + len(part) <= cut for start, part in zip(starts, parts, strict=True))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values, max_size=5), json_values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_the_stream_agrees_with_json_load(tmp_path: Path, items: list[Any], other: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps({"before": other, "annotations": items, "after": other}, indent=indent, ensure_ascii=ascii_only)
    assert list(_json.records(str(write(tmp_path, text)), "annotations")) == items
    assert list(_json.records(str(write(tmp_path, json.dumps(items, indent=indent))), "annotations")) == items


def test_a_window_may_end_anywhere(tmp_path: Path) -> None:
    """Records of many lengths cross the borders of chunks at all places, also inside characters and numbers."""
    items = [{"n": 10**17 + i, "t": "é“😀" * (i % 97)} for i in range(9000)]
    path = write(tmp_path, json.dumps({"annotations": items}, ensure_ascii=False))
    assert path.stat().st_size > 3 * _json.CHUNK
    assert list(_json.records(str(path), "annotations")) == items


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"annotations": [{**ONE, "image_id": str(i), "raw_caption": "x" * 6000} for i in range(3_000)]})
    assert path.stat().st_size > 16 * _json.CHUNK
    tracemalloc.start()
    try:
        assert sum(1 for _ in redcaps.read(Input(str(path), "a"), redcaps.Options())) == 3_000
        assert tracemalloc.get_traced_memory()[1] < 12 * _json.CHUNK
    finally:
        tracemalloc.stop()
