"""laion: the layouts that LAION and DataComp publish, as pyarrow writes them from their stated schemas."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import records

from curate.sources import laion
from curate.sources.base import Input
from shards.core.errors import TornFileError, UsageError
from shards.tables.values import NULL_WORDS

URL = "https://ex.org/a,b.jpg?x=1"
# laion.ai/blog/laion-400-open-dataset: 32 parts; NSFW is UNLIKELY, UNSURE or NSFW, LICENSE is ? where unknown.
LAION_400M = {
    "SAMPLE_ID": [1055202, 990], "URL": [URL, "https://ex.org/b.png"], "TEXT": ["Oak dining table", "Portrait of a woman, 1920s"],
    "HEIGHT": [600.0, float("nan")], "WIDTH": [800.0, None], "LICENSE": ["?", "creativecommons.org/licenses/by-nc-sa/3.0/"],
    "NSFW": ["UNLIKELY", None], "similarity": [0.3312, 0.3054],
}  # fmt: skip
# The joined files of LAION-2B-en (schema of huggingface.co/datasets/laion/laion2B-en-joined): int32, float64, int64, float32.
JOINED = pa.schema([
    ("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", pa.int32()), ("HEIGHT", pa.int32()), ("similarity", pa.float64()),
    ("LANGUAGE", pa.string()), ("hash", pa.int64()), ("pwatermark", pa.float32()), ("punsafe", pa.float32()),
])  # fmt: skip
# github.com/mlfoundations/datacomp, metadata of the pools.
DATACOMP = {
    "uid": ["335db346a49045476677662a0067ce68", "1E42519D02455C06411394E19509547A"], "url": [URL, "http://ir.ebaystatic.com/1.jpg"],
    "text": ["untitled image", "Case Cover For LG AKA F520"], "original_width": [980, 82], "original_height": [405, 81],
    "clip_b32_similarity_score": [0.233643, 0.22168], "clip_l14_similarity_score": [0.132446, 0.183594],
    "face_bboxes": [[], [[0.1, 0.2, 0.3, 0.4]]], "sha256": ["695d74e8", "0bbad39e"],
}  # fmt: skip


def write(folder: Path, columns: dict[str, list[Any]] | pa.Table, name: str = "part-00000.parquet", **how: Any) -> Path:
    """Write a parquet part."""
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / name, **how)
    return folder / name


def stated(path: Path) -> str:
    """Return the layout that the reader states."""
    options = laion.Options()
    return laion.layout(laion.inputs(str(path), options)[0], options)


def test_laion_400m(tmp_path: Path) -> None:
    path = write(tmp_path, LAION_400M)
    first, second = records(laion, path)
    assert (first.source_id, first.captions, first.urls, first.licence) == (f"{URL}\nOak dining table", ("Oak dining table",), (URL,), "")
    assert json.loads(first.meta) == {"nsfw": "UNLIKELY", "similarity": 0.3312, "sample_id": 1055202, "width": 800, "height": 600}
    assert json.loads(second.meta) == {"similarity": 0.3054, "sample_id": 990}
    assert second.licence == "creativecommons.org/licenses/by-nc-sa/3.0/"
    assert stated(path).startswith("LAION-400M: parquet of SAMPLE_ID, URL, TEXT")


def test_laion_5b_joined_and_relaion(tmp_path: Path) -> None:
    row = {"URL": URL, "TEXT": "Blue tit on a branch", "WIDTH": 1024, "HEIGHT": 683, "similarity": 0.3341, "LANGUAGE": "en"}
    table = pa.Table.from_pylist([row | {"hash": 7245094561923041, "pwatermark": 0.25, "punsafe": 0.0625}], JOINED)
    (found,) = records(laion, write(tmp_path, table))
    expected = {"similarity": 0.3341, "punsafe": 0.0625, "pwatermark": 0.25, "language": "en", "hash": 7245094561923041}
    assert json.loads(found.meta) == expected | {"width": 1024, "height": 683}
    assert stated(tmp_path).startswith("LAION-5B joined")
    lower = table.rename_columns([{"TEXT": "caption"}.get(n, n.lower()) for n in table.column_names])
    assert records(laion, write(tmp_path, lower)) == [found]
    assert stated(tmp_path).startswith("Re-LAION")


def test_datacomp_keeps_its_uids(tmp_path: Path) -> None:
    path = write(tmp_path, DATACOMP)
    first, second = records(laion, path)
    assert [first.source_id, second.source_id] == [uid.lower() for uid in DATACOMP["uid"]]
    meta = json.loads(second.meta)
    assert (meta["clip_b32_similarity_score"], meta["face_bboxes"], meta["original_width"]) == (0.22168, [[0.1, 0.2, 0.3, 0.4]], 82)
    assert stated(path).startswith("DataComp")


@pytest.mark.parametrize("columns", [LAION_400M, DATACOMP])
def test_the_order_of_columns_does_not_matter(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    expected = records(laion, write(tmp_path, columns))
    assert records(laion, write(tmp_path, dict(sorted(columns.items(), reverse=True)))) == expected


def test_every_column_has_its_type(tmp_path: Path) -> None:
    """Publishers and mirrors differ in types: whatever comes, the native columns can be stored."""
    odd = LAION_400M | {"similarity": ["0.5", "n/a"], "NSFW": [1, None], "punsafe": [float("inf"), 0.5], "AESTHETIC_SCORE": [5, 6]}
    rows = [json.loads(r.meta) for r in records(laion, write(tmp_path, odd))]
    kinds = {"string": pa.string(), "double": pa.float64()}
    for name, kind in laion.COLUMNS:
        pa.array([row.get(name) for row in rows], kinds[kind])
    assert [row.get("similarity") for row in rows] == [0.5, None]
    assert [row["aesthetic"] for row in rows] == [5.0, 6.0]


def test_bad_rows_are_rows(tmp_path: Path) -> None:
    columns = {"URL": [URL, None, "ftp://x", " " + URL + "\n"], "TEXT": ["NA", "no url", "ftp", None]}
    found = records(laion, write(tmp_path, columns))
    assert [r.status for r in found] == ["", "bad_record", "bad_record", ""]
    assert found[0].captions == ("NA",)
    assert (found[3].captions, found[3].urls, found[3].source_id) == (("",), (URL,), f"{URL}\n")
    odd = {k: [v[0]] for k, v in DATACOMP.items()} | {"uid": ["not a uid"]}
    (found_uid,) = records(laion, write(tmp_path, odd))
    assert (found_uid.status, found_uid.detail) == ("bad_record", "row 1: the uid is not 32 hex digits: 'not a uid'")


def test_another_caption_column_leaves_ids_alone(tmp_path: Path) -> None:
    path = write(tmp_path, LAION_400M | {"recaption": ["a table of oak", "a woman"]})
    plain, other = records(laion, path), records(laion, path, caption_column="Recaption")
    assert [r.captions for r in other] == [("a table of oak",), ("a woman",)]
    assert [r.source_id for r in other] == [r.source_id for r in plain]
    with pytest.raises(UsageError, match="no column 'recaptoin'") as error:
        records(laion, path, caption_column="recaptoin")
    assert "did you mean 'recaption'" in error.value.advice


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"URL": ["a cat", "a dog"], "TEXT": [URL, URL]}, "they stand in 'TEXT'"),
        ({"URL": ["x", "y"], "TEXT": ["a", "b"]}, "no URL in the first 2 rows of 'URL'"),
        ({"TEXT": ["a"], "WIDTH": [1]}, "there is no URL"),
        ({"url": [URL], "label": ["a"]}, "there is no TEXT"),
        ({"image_id": ["a"], "image_url": [URL], "subreddit": [1], "caption": ["c"]}, "use --source redcaps"),
        ({"url": [URL], "caption": ["a"], "key": ["0"], "status": ["success"], "error_message": [""]}, "use --source img2dataset"),
    ],
)
def test_other_parquet_is_refused_by_name(tmp_path: Path, columns: dict[str, list[Any]], says: str) -> None:
    with pytest.raises(UsageError) as error:
        laion.inputs(str(write(tmp_path, columns)), laion.Options())
    assert says in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text(f"a cat\t{URL}\n")
    with pytest.raises(UsageError, match="a tsv file") as error:
        laion.inputs(str(tmp_path / "a.parquet"), laion.Options())
    assert error.value.advice == "use --source cc3m"


def test_a_cut_part_is_torn(tmp_path: Path) -> None:
    path = write(tmp_path, LAION_400M)
    path.write_bytes(path.read_bytes()[:-9])
    (one,) = laion.inputs(str(path), laion.Options())
    with pytest.raises(TornFileError, match="cut off or damaged"):
        list(laion.read(one, laion.Options()))


texts = st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip().lower() not in NULL_WORDS)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=9), st.integers(1, 4))
def test_any_caption_comes_back(tmp_path: Path, captions: list[str], group: int) -> None:
    urls = [f"{URL}&n={i}" for i in range(len(captions))]
    found = records(laion, write(tmp_path, {"TEXT": captions, "URL": urls}, row_group_size=group))
    assert [(r.captions[0], r.urls[0], r.status) for r in found] == [(c, u, "") for c, u in zip(captions, urls, strict=True)]
    assert [r.row for r in found] == list(range(len(captions)))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Not even with the row group: batches are decoded page by page."""
    count = 16_000
    columns = {"URL": [f"{URL}{i}" for i in range(count)], "TEXT": ["x" * 2400 + str(i) for i in range(count)]}
    path = write(tmp_path, columns, row_group_size=count, compression="none")
    most, before = 0, pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for number, _ in enumerate(laion.read(Input(str(path), "a"), laion.Options())):
            most = max(most, pa.total_allocated_bytes() - before) if number % 500 == 0 else most
        assert path.stat().st_size > 36 << 20
        assert most + tracemalloc.get_traced_memory()[1] < 18 << 20
    finally:
        tracemalloc.stop()
