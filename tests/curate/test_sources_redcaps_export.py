"""redcaps: the Hugging Face export, galleries, subreddits before captions, and the picture of a removed image."""

from __future__ import annotations

import csv
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from native import jpeg, ledger, make_pool, records, sidecar
from test_sources_redcaps import ONE

from curate.sources import redcaps
from curate.sources.base import Input
from shards.core.errors import TornFileError, UsageError

NAMES = ["abandonedporn", "abandoned", "itookapicture"]
# Features of huggingface.co/datasets/kdexd/red_caps (red_caps.py): `datasets` writes them into the parquet schema.
SCHEMA = pa.schema(
    [("image_id", pa.string()), ("author", pa.string()), ("image_url", pa.string()), ("raw_caption", pa.string()),
     ("caption", pa.string()), ("subreddit", pa.int64()), ("score", pa.int32()), ("created_utc", pa.timestamp("s", "UTC")),
     ("permalink", pa.string()), ("crosspost_parents", pa.list_(pa.string()))],
    {"huggingface": json.dumps({"info": {"features": {"subreddit": {"names": NAMES, "_type": "ClassLabel"}, "score": {"dtype": "int32"}}}})},
)  # fmt: skip
ROW = {
    "image_id": "1bd79", "author": "me", "image_url": "https://i.redd.it/x.jpg", "raw_caption": "[OC] Itap of the Taj Mahal (4000x3000)",
    "caption": "itap of the taj mahal", "subreddit": 2, "score": None, "created_utc": datetime(2019, 5, 18, 1, 36, 41, tzinfo=UTC),
    "permalink": "/r/itookapicture/comments/1bd79/", "crosspost_parents": ["abc12"],
}  # fmt: skip


def parquet(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "red_caps-train-00000-of-00007.parquet")
    return folder / "red_caps-train-00000-of-00007.parquet"


def official(folder: Path, *items: Any) -> Path:
    (folder / "cats_2017.json").write_text(json.dumps({"info": {}, "annotations": items}))
    return folder / "cats_2017.json"


def test_the_export_gives_what_the_annotations_give(tmp_path: Path) -> None:
    (found,) = records(redcaps, parquet(tmp_path, [ROW]))
    item = {k: v for k, v in ROW.items() if k != "image_url"}
    item |= {"url": ROW["image_url"], "subreddit": "itookapicture", "created_utc": 1558143401}
    (expected,) = records(redcaps, official(tmp_path, item))
    assert (found.source_id, found.captions, found.urls) == (expected.source_id, expected.captions, expected.urls)
    assert json.loads(found.meta) == json.loads(expected.meta)
    assert json.loads(found.meta)["crosspost_parents"] == ["abc12"]


def test_the_export_as_text(tmp_path: Path) -> None:
    """JSON Lines and CSV hold the class ids alone: they stay ids, and are no prefix."""
    plain = ROW | {"created_utc": 1558143401, "crosspost_parents": None}
    (tmp_path / "a.jsonl").write_text(json.dumps(plain) + "\n" + json.dumps(plain | {"image_id": "2"}) + "\n")
    with (tmp_path / "b.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, plain)
        writer.writeheader()
        writer.writerows([plain, plain | {"image_id": "2"}])
    for name in ("a.jsonl", "b.csv"):
        first, second = records(redcaps, tmp_path / name)
        assert (first.source_id, second.source_id, first.captions) == ("1bd79", "2", ("itap of the taj mahal",))
        assert json.loads(first.meta)["subreddit"] == "2"
        with pytest.raises(UsageError, match="class ids without names"):
            records(redcaps, tmp_path / name, with_subreddit=True)


def test_layouts_are_stated(tmp_path: Path) -> None:
    options = redcaps.Options()
    assert redcaps.layout(Input(str(parquet(tmp_path, [ROW])), "a"), options).startswith("the Hugging Face export: parquet of image_id")
    assert redcaps.layout(Input(str(official(tmp_path, ONE)), "a"), options).startswith("the official annotations: json of image_id")


@pytest.mark.parametrize(("field", "caption"), [("caption", "cats: a cat"), ("raw_caption", "cats: A Cat!")])
def test_the_subreddit_may_stand_before_the_caption(tmp_path: Path, field: str, caption: str) -> None:
    empty = ONE | {"image_id": "e", "caption": "", "raw_caption": " "}
    found = records(redcaps, official(tmp_path, ONE, empty), field=field, with_subreddit=True)
    assert [r.captions for r in found] == [(caption,), ("",)]
    assert found[0].source_id == "abc"


def test_swapped_columns_are_refused_by_name(tmp_path: Path) -> None:
    path = official(tmp_path, ONE | {"url": "a cat", "caption": ONE["url"]})
    with pytest.raises(UsageError, match="no URL in the first 1 rows of 'url'; they stand in 'caption'"):
        records(redcaps, path)


def test_a_torn_file_with_subreddits_gives_its_whole_records(tmp_path: Path) -> None:
    path = official(tmp_path, ONE, ONE | {"image_id": "b"}, ONE | {"image_id": "c"})
    path.write_bytes(path.read_bytes()[:-20])
    found = []
    with pytest.raises(TornFileError):
        found.extend(redcaps.read(Input(str(path), "x"), redcaps.Options(with_subreddit=True)))
    assert [r.source_id for r in found] == ["abc", "b"]


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("https://i.redd.it/a,b.jpg?x=1,2", ["https://i.redd.it/a,b.jpg?x=1,2"]),
        ("http://i.imgur.com/abc,def.png,ghi", ["http://i.imgur.com/abc.jpg", "http://i.imgur.com/def.png", "http://i.imgur.com/ghi.jpg"]),
        ("http://imgur.com/abc,http://imgur.com/def#0", ["http://i.imgur.com/abc.jpg", "http://i.imgur.com/def.jpg"]),
        ("http://h/1.jpg https://h/2.jpg", ["http://h/1.jpg", "https://h/2.jpg"]),
        ("http://h/with space.jpg", ["http://h/with space.jpg"]),
        ("http://h/1.jpg http://h/1.jpg", ["http://h/1.jpg"]),
        ("", []),
    ],
)
def test_one_field_may_hold_several_urls(text: str, urls: list[str]) -> None:
    assert redcaps.urls_of(text) == urls


def test_the_removed_picture_is_no_image(tmp_path: Path) -> None:
    gone, good = "https://i.imgur.com/removed.png", "https://i.imgur.com/DXOdR.jpg"
    items = [ONE | {"url": gone}, ONE | {"url": [gone, good]}, ONE | {"url": "https://example.org/removed.png"}]
    found = records(redcaps, official(tmp_path, *items))
    assert [(r.status, r.urls) for r in found] == [("placeholder", ()), ("", (good,)), ("", ("https://example.org/removed.png",))]
    assert found[0].detail == f"{gone}: Imgur's picture of a removed image"


def test_native_columns_can_be_stored(tmp_path: Path) -> None:
    """Scores beyond 32 bits, text for numbers, times as text: what does not fit its column is null."""
    odd = [{"score": 2**40, "created_utc": "1558143401"}, {"score": "7", "created_utc": 1558143401.0}, {"score": "many", "subreddit": 5}]
    found = [json.loads(r.meta) for r in records(redcaps, official(tmp_path, *(ONE | o for o in odd)))]
    kinds = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64()}
    for name, kind in redcaps.COLUMNS:
        pa.array([row.get(name) for row in found], kinds[kind])
    assert [row.get("score") for row in found] == [None, 7, None]
    assert [row.get("created_utc") for row in found] == [1558143401, 1558143401, None]


def test_in_a_build_every_post_is_accounted_for(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """A post whose picture was removed is dropped as a placeholder; subreddit and score stand in sidecar and JSON member."""
    good, gone = [f"http://h.example/{i}.jpg" for i in range(4)], "https://i.imgur.com/removed.png"
    items = [ONE | {"image_id": str(i), "url": url, "score": i or None} for i, url in enumerate(good)]
    path = official(tmp_path, *items, ONE | {"image_id": "gone", "url": gone}, ONE | {"image_id": "0"}, {"image_id": "none"})
    pool = make_pool(tmp_path / "pool", {url: jpeg(i) for i, url in enumerate(good[:3])} | {good[3]: None})
    flags = ("--images", pool, "--with-subreddit", "--samples", "all", "--json-member", "--no-caption-length")
    code, out, err = build("--source", "redcaps", "--input", path, *flags)
    assert code == 0, err
    found = Counter(row["reason"] or row["decision"] for row in ledger(out))
    assert found == {"kept": 3, "failed_to_download": 1, "placeholder": 1, "duplicate_id": 1, "bad_record": 1}
    rows = sidecar(out)
    assert {(r["caption"], r["redcaps.subreddit"], r["redcaps.score"]) for r in rows} == {("cats: a cat", "cats", s) for s in (None, 1, 2)}
    with tarfile.open(out / "00000.tar") as tar:
        members = [json.load(tar.extractfile(m)) for m in tar.getmembers() if m.name.endswith(".json")]  # type: ignore[arg-type]
    assert sorted(m["redcaps.score"] for m in members) == [-1, 1, 2]
    assert {m["redcaps.subreddit"] for m in members} == {"cats"}
