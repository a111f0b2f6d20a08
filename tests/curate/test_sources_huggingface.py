"""huggingface: what `datasets` itself leaves on disk, read without it; images by byte range in Arrow, out of parquet as bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import jpeg, ledger, make_pool, pointed, records, sidecar

from curate.sources import _datasets, huggingface
from curate.sources.base import Record
from shards.core.errors import TornFileError, UsageError
from shards.manifest import read_manifest
from shards.tables.values import NULL_WORDS

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dataset(n: int = 6, **columns: Any) -> Any:
    """Return a `datasets` data set of n drawn photos with a caption, a class and a number each."""
    import datasets

    values = {
        "image": [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(n)],
        "caption": [f"photo {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "score": [i / 2 for i in range(n)],
    } | columns
    features = datasets.Dataset.from_dict({k: v for k, v in values.items() if k != "image"}).features
    features["image"], features["label"] = datasets.Image(), datasets.ClassLabel(names=["cat", "dog"])
    return datasets.Dataset.from_dict(values, features=features)


FORMS: dict[str, Callable[[Any, Path], Path]] = {
    "save_to_disk": lambda d, p: d.save_to_disk(str(p / "d"), num_shards=2) or p / "d",
    "parquet": lambda d, p: d.to_parquet(str(p / "train-00000-of-00001.parquet")) and p,
    "cache": lambda d, p: pa.feather.write_feather(d.data.table, p / "d-train.arrow", compression="uncompressed") or p,
    "lz4": lambda d, p: pa.feather.write_feather(d.data.table, p / "train.feather", compression="lz4") or p,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    path = FORMS[form](dataset(), tmp_path)
    found = records(huggingface, path)
    assert [pointed(r) for r in found] == [jpeg(i) for i in range(6)]
    assert [(r.source_id, r.captions, r.class_index, r.class_name) for r in found] == [
        (str(i), (f"photo {i}",), i % 2, ("cat", "dog")[i % 2]) for i in range(6)
    ]
    assert [json.loads(r.meta) for r in found] == [{"score": i / 2} for i in range(6)]
    in_place = form in ("save_to_disk", "cache")
    assert all((r.image is not None) == in_place and bool(r.content) != in_place for r in found)
    if form == "save_to_disk":
        assert [r.row for r in found] == [0, 1, 2, 0, 1, 2]  # two files, ids run through


def test_layouts_are_stated(tmp_path: Path) -> None:
    options = huggingface.Options()
    (one,) = huggingface.inputs(str(FORMS["parquet"](dataset(), tmp_path)), options)
    assert huggingface.layout(one, options) == (
        "parquet: image 'image' (bytes and paths), caption 'caption', class 'label' (2 names), id: row number"
    )
    options = huggingface.Options(id_column="key")
    (one,) = huggingface.inputs(str(write(tmp_path / "t.parquet", file=[None, "a.jpg"], text=[["a"], ["b"]], key=[7, 8])), options)
    assert huggingface.layout(one, options) == "parquet: image 'file' (paths), caption 'text' (lists), id 'key'"


def test_splits(tmp_path: Path) -> None:
    import datasets

    both = datasets.DatasetDict({"train": dataset(4), "test": dataset(2)})
    both.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "hub/data").mkdir(parents=True)
    for name, part in both.items():
        part.to_parquet(str(tmp_path / f"hub/data/{name}-00000-of-00001.parquet"))
    for folder in ("saved", "hub"):
        assert len(records(huggingface, tmp_path / folder, split="train")) == 4
        assert len(records(huggingface, tmp_path / folder, split="test")) == 2
        with pytest.raises(UsageError, match="has the splits") as several:
            records(huggingface, tmp_path / folder)
        assert "--split" in several.value.advice
        with pytest.raises(UsageError, match="no 'dev'"):
            records(huggingface, tmp_path / folder, split="dev")
    assert len(records(huggingface, tmp_path / "saved/test")) == 2


def test_cached_results_of_map_are_passed_over(tmp_path: Path) -> None:
    FORMS["cache"](dataset(), tmp_path)
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes((tmp_path / "d-train.arrow").read_bytes())
    assert len(records(huggingface, tmp_path)) == 6
    (tmp_path / "d-train.arrow").unlink()
    with pytest.raises(UsageError, match="only cached results"):
        records(huggingface, tmp_path)


def test_a_selection_saved_is_read_in_its_order(tmp_path: Path) -> None:
    dataset().select([4, 1]).save_to_disk(str(tmp_path / "d"))
    assert [r.captions[0] for r in records(huggingface, tmp_path / "d")] == ["photo 4", "photo 1"]
    state = json.loads((tmp_path / "d/state.json").read_text())
    (tmp_path / "d/state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(UsageError, match="indices mapping"):
        records(huggingface, tmp_path / "d")
    (tmp_path / "d/state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "../elsewhere.arrow"}]}))
    with pytest.raises(UsageError, match="elsewhere"):
        records(huggingface, tmp_path / "d")


def write(path: Path, **columns: Any) -> Path:
    """Write columns as parquet."""
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_of_other_kinds(tmp_path: Path) -> None:
    pictures = pa.array([jpeg(0), None, jpeg(2)], pa.large_binary())
    path = write(tmp_path / "t.parquet", jpg=pictures, Text=[["a", None, "b"], [], None], key=["x", None, "z"], n=[1.5, float("nan"), None])
    one, two, three = records(huggingface, path, id_column="key")
    assert (one.source_id, one.captions, pointed(one), one.meta) == ("x", ("a", "b"), jpeg(0), '{"n":1.5}')
    assert (two.status, two.detail) == ("bad_record", "no 'key'")
    assert (three.captions, three.meta, pointed(three)) == ((), "", jpeg(2))
    assert [r.status for r in records(huggingface, path)] == ["", "image_missing", ""]


def test_paths_and_urls(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg(0))
    names = ["images/a.jpg", "../a.jpg", "http://h.example/b.jpg", None, "zip://a.jpg::b.zip", "gone.jpg"]
    path = write(tmp_path / "data/t.parquet", image=names, caption=list("abcdef"), url=["u", *[None] * 5])
    found = records(huggingface, path)
    assert pointed(found[0]) == jpeg(0)
    assert (found[0].urls, found[2].urls) == (("u",), ("http://h.example/b.jpg",))
    assert [r.status for r in found] == ["", "image_missing", "", "image_missing", "image_missing", ""]
    assert "--images POOL" in found[2].detail
    structs = pa.array([{"bytes": None, "path": "images/a.jpg"}, {"bytes": b"", "path": None}, None])
    found = records(huggingface, write(tmp_path / "t.parquet", image=structs, caption=list("abc")))
    assert pointed(found[0]) == jpeg(0)
    assert [r.status for r in found] == ["", "image_missing", "image_missing"]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"ok"], pa.binary()).buffers())
    path = write(tmp_path / "t.parquet", image=pa.array([jpeg(0), jpeg(1)]), caption=raw)
    assert [r.captions for r in records(huggingface, path)] == [("café",), ("ok",)]


PICTURE = pa.array([jpeg(0)])
REFUSED: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"caption": ["a"]}, {}, "none holds images"),
    ({"image": PICTURE, "words": ["a"]}, {}, "none is known to hold captions"),
    ({"image": PICTURE, "caption": [1]}, {}, "none is known to hold captions"),
    ({"image": PICTURE, "caption": ["a"]}, {"caption_column": "titel"}, "there is no 'titel'"),
    ({"image": PICTURE, "caption": ["a"]}, {"caption_column": "image"}, "'image' holds bytes"),
    ({"image": PICTURE, "caption": ["a"], "n": [1]}, {"image_column": "n"}, "'n' holds number"),
    ({"image": PICTURE, "caption": ["a"]}, {"id_column": "image"}, "'image' holds bytes"),
    ({"image": PICTURE, "caption": ["a"]}, {"label_column": "class"}, "there is no 'class'"),
    ({"a": [{"bytes": b"", "path": ""}], "b": [{"bytes": b"", "path": ""}], "caption": ["x"]}, {}, "several hold images"),
]


@pytest.mark.parametrize(("columns", "options", "says"), REFUSED)
def test_columns_that_do_not_fit_are_refused_by_name(tmp_path: Path, columns: dict[str, Any], options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        records(huggingface, write(tmp_path / "t.parquet", **columns), **options)
    assert "its columns are" in refused.value.found


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match=r"no \.parquet or \.arrow"):
        records(huggingface, tmp_path)


words = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: text.strip().lower() not in NULL_WORDS)


# Bytes that are a URL or a data URI are taken for one.
pictures = st.binary(min_size=1, max_size=99).filter(lambda content: content[:5].lower() not in (b"http:", b"https", b"data:"))


@QUICK
@given(st.lists(st.tuples(pictures, st.lists(words, max_size=3), st.booleans()), min_size=1, max_size=9), st.data())
def test_what_was_written_comes_back(tmp_path: Path, rows: list[tuple[bytes, list[str], bool]], data: st.DataObject) -> None:
    """Any bytes and texts, nulls between them, in batches of any size, sliced or not, in streams and in parquet."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": content, "path": None} if there else None for content, _, there in rows], kind)
    table = pa.table({"image": images, "captions": pa.array([texts for _, texts, _ in rows], pa.list_(pa.string()))})
    size = data.draw(st.integers(1, len(rows)))
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches(size):
            stream.write_batch(batch)
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=size)
    for name in ("s.arrow", "s.parquet"):
        found = records(huggingface, tmp_path / name)
        assert [r.captions for r in found] == [tuple(texts) for _, texts, _ in rows]
        assert [r.status for r in found] == ["" if there else "image_missing" for _, _, there in rows]
        assert [pointed(r) for r in found if not r.status] == [content for content, _, there in rows if there]


@QUICK
@given(st.data())
def test_a_torn_stream_gives_its_whole_batches(tmp_path: Path, data: st.DataObject) -> None:
    table = pa.table({"image": pa.array([jpeg(i)[:300] for i in range(6)]), "caption": list("abcdef")})
    sink = io.BytesIO()
    ends = []
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches(2):
            stream.write_batch(batch)
            ends.append(sink.tell())
    whole = sink.getvalue()
    cut = data.draw(st.integers(0, ends[-1] - 1))
    (tmp_path / "s.arrow").write_bytes(whole[:cut])
    found: list[Record] = []
    options = huggingface.Options()
    (one,) = huggingface.inputs(str(tmp_path / "s.arrow"), options)
    complete = 2 * sum(end <= cut for end in ends)
    try:
        found.extend(huggingface.read(one, options))
    except TornFileError:
        pass
    else:
        assert cut in ends  # between two batches nothing is missing that Arrow's format would tell
    assert [r.captions[0] for r in found] == list("abcdef")[:complete]
    assert _datasets.rows_of(one.path) == complete


def test_a_torn_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", image=PICTURE, caption=["a"])
    path.write_bytes(path.read_bytes()[:-9])
    options = huggingface.Options()
    (one,) = huggingface.inputs(str(path), options)
    with pytest.raises(TornFileError, match="cut off, or no parquet file"):
        list(huggingface.read(one, options))


def test_a_build(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """The same data set from Arrow and from parquet: the same shards, byte for byte; parquet's images go to the work folder."""
    made = dataset(6, caption=["one", "", "three", "<br>", "five", "six"])
    FORMS["save_to_disk"](made, tmp_path)
    path = tmp_path / "train.parquet"
    FORMS["parquet"](made, tmp_path).joinpath("train-00000-of-00001.parquet").rename(path)
    shards = {}
    for name, where in (("arrow", tmp_path / "d"), ("parquet", path)):
        code, out, talk = build("--source", "huggingface", "--input", where, "--samples", "all", "--samples-per-shard", 3, output=name)
        assert code == 0, talk
        assert [r["reason"] for r in sorted(ledger(out), key=lambda r: int(r["source_id"]))] == [
            "",
            "caption_missing",
            "",
            "caption_missing",
            "",
            "",
        ]
        shards[name] = [(s.path, s.sha256) for s in read_manifest(str(out)).shards]
        kept = list((tmp_path / f"{name}.work/records").glob("*.blob"))
        assert len(kept) == (name == "parquet")
    assert shards["arrow"] == shards["parquet"]
    assert {r["caption"]: r["class"] for r in sidecar(out)} == {"one": 0, "three": 0, "five": 0, "six": 1}


def test_a_build_of_classes_by_template(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    FORMS["save_to_disk"](dataset(4).remove_columns("caption"), tmp_path)
    code, out, talk = build("--source", "huggingface", "--input", tmp_path / "d", "--template", "a {}", "--samples", "all")
    assert code == 0, talk
    assert {r["caption"] for r in sidecar(out)} == {"a cat", "a dog"}
    assert len(ledger(out)) == 4


def test_a_build_of_urls_and_a_pool(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    urls = [f"http://h.example/{i}.jpg" for i in range(4)]
    path = write(tmp_path / "t.parquet", url=urls, caption=[f"photo {i}" for i in range(4)])
    pool = make_pool(tmp_path / "pool", {url: jpeg(i) if i else None for i, url in enumerate(urls)})
    code, out, talk = build("--source", "huggingface", "--input", path, "--images", pool, "--samples", "all")
    assert code == 0, talk
    assert {r["source_id"]: r["reason"] for r in ledger(out)} == {"0": "failed_to_download", "1": "", "2": "", "3": ""}
    code, out, talk = build("--source", "huggingface", "--input", path, "--samples", 1, output="without")
    assert code == 2
    assert "'url' (URLs: curate fetch, then --images POOL)" in talk
    assert "image_missing" in talk


def test_a_table_of_files_and_urls(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """The pool gives what the table has not got itself."""
    structs = [{"bytes": jpeg(0), "path": None}, {"bytes": None, "path": "http://h.example/1.jpg"}, {"bytes": None, "path": "b.jpg"}]
    (tmp_path / "b.jpg").write_bytes(jpeg(2))
    path = write(tmp_path / "t.parquet", image=structs, caption=[f"photo {i}" for i in range(3)])
    pool = make_pool(tmp_path / "pool", {"http://h.example/1.jpg": jpeg(1)})
    code, out, talk = build("--source", "huggingface", "--input", path, "--images", pool, "--samples", "all")
    assert code == 0, talk
    assert [r["reason"] for r in ledger(out)] == ["", "", ""]


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Of a parquet file four times as long, pyarrow's pool holds no more at once."""

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.parquet"
        picture = jpeg(0) * 20
        with pq.ParquetWriter(path, pa.schema([("image", pa.binary()), ("caption", pa.string())]), compression="none") as writer:
            for _ in range(n // 100):
                table = pa.table({"image": [picture + bytes([i]) for i in range(100)], "caption": ["x"] * 100})
                writer.write_table(table, row_group_size=100)
        options = huggingface.Options()
        (one,) = huggingface.inputs(str(path), options)
        highest = 0
        for _ in huggingface.read(one, options):
            highest = max(highest, pa.total_allocated_bytes())
        return highest

    assert peak(2000) < 1.3 * peak(500)
