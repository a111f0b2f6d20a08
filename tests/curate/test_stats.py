"""Statistics against plain Counters over the same rows; however rows are split, they add up to the same."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.report import readability, stats
from curate.report.concepts import default_lists, forms_of
from curate.report.stats import add_up, count_rows, merged, parts, path_of, read_statistics, write_statistics
from curate.report.wordcount import tokens
from shards.manifest import Manifest, read_manifest
from shards.schema import SIDECAR, arrow_schema

KINDS = {name: kind for name, kind in zip(arrow_schema(SIDECAR).names, arrow_schema(SIDECAR).types, strict=True) if name in stats.COUNTED}
NAMES = st.lists(st.sampled_from(["a", "cat", "dogs", "hot dog", "IMG_12.jpg", "maine coon's", "http://a.io", "image"]), max_size=4).map(
    " ".join
)
CAPTIONS = st.text("ab'É \u0301", max_size=12) | st.text(max_size=8) | NAMES | st.none()
ROW = st.fixed_dictionaries({
    "source": st.sampled_from(["redcaps", "it's", ""]),
    "caption": CAPTIONS,
    "width": st.integers(1, 5) | st.none(),
    "height": st.integers(0, 5),
    "bytes": st.integers(0, 2**40),
    "original_format": st.sampled_from(["JPEG", "PNG", None]),
    "information": st.floats(0, 128) | st.none(),
})  # fmt: skip
ROWS = st.lists(ROW, max_size=12)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema(list(KINDS.items())))


def three(value: float) -> float:
    return float(f"{value:.3g}")


def naive(rows: Iterable[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return {(source, kind, text, value): (count, captions)}."""
    count, holding = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
    for row in rows:
        found: list[tuple[str, str | None, float | None]] = [("samples", None, None)]
        if (caption := row["caption"]) is not None:
            words = tokens(caption)
            found += [("word", word, None) for word in words]
            found += [("bigram", f"{a} {b}", None) for a, b in itertools.pairwise(words)]
            found += [("words", None, len(words)), ("characters", None, len(caption))]
            holding.update((row["source"], "word", word, None) for word in set(words))
            found += [
                ("clip_tokens", None, len(clip().encode(caption))),
                ("readability", classed(caption), None),
                ("caption", None, said(caption)),
            ]
            found += [("repetition", None, round((len(words) - len(set(words))) / len(words) * 100) / 100)] if words else []
            classes = mentioned(tuple(words))
            found += [("concept", name, None) for name, n in classes.items() for _ in range(n)]
            holding.update((row["source"], "concept", name, None) for name in classes)
        found += [(name, None, row[name]) for name in ("width", "height") if row[name] is not None]
        if row["width"] and row["height"]:
            found.append(("aspect", None, three(row["width"] / row["height"])))
            found.append(("shorter_side", None, min(row["width"], row["height"])))
        found.append(("bytes", None, three(row["bytes"])))
        found += [("format", row["original_format"], None)] if row["original_format"] else []
        found += [("information", None, round(row["information"] * 10) / 10)] if row["information"] is not None else []
        count.update((row["source"], *what) for what in found)
    return {key: (n, holding[key]) for key, n in count.items()}


def said(caption: str) -> int:
    """What a caption says, as a hash of its words: eight bytes at a time, a longer word's together."""
    mask, state = 2**64 - 1, 0

    def mixed(key: int) -> int:
        key = (key ^ key >> 32) * 0x9E3779B97F4A7C15 & mask
        return key ^ key >> 32

    for word in tokens(caption):
        content, rest = word.encode(), 0
        pieces = [content[i : i + 8] for i in range(0, len(content), 8)]
        for piece in pieces[:-1]:
            rest = mixed(rest ^ int.from_bytes(piece, "big"))
        state = mixed(state ^ max(int.from_bytes(pieces[-1], "big") ^ rest, 1))
    return (state or xxhash.xxh3_64_intdigest(caption.encode())) >> 12


@cache
def mentioned(words: tuple[str, ...]) -> Counter[str]:
    """The classes of all lists that stand in words: from the left, the longest form, none inside another of its set."""
    found = Counter[str]()
    for concepts in default_lists():
        forms, at = forms_of(concepts), 0
        while at < len(words):
            here = next((words[at : at + n] for n in range(8, 0, -1) if words[at : at + n] in forms and at + n <= len(words)), None)
            found.update(f"{concepts.name}\t{concepts.classes[place][0]}" for place in (forms[here] if here else ()))
            at += len(here or "a")
    return found


@cache
def clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def classed(caption: str) -> str:
    """The class of one caption; tests/curate/test_readability.py says which are right."""
    found = readability.readability(pa.array([caption]), np.array([len(tokens(caption))]))
    return readability.CLASSES[found[0]]


def as_dict(found: pa.Table) -> dict[tuple[Any, ...], tuple[int, int]]:
    rows = [tuple(row.values()) for row in unspelled(found).to_pylist()]
    assert len({row[:4] for row in rows}) == len(rows)
    return {row[:4]: (row[4], row[5] or 0) for row in rows}


def unspelled(found: pa.Table) -> pa.Table:
    """Statistics without the spelling of captions, which is no key and hangs on the shard."""
    texts = pc.if_else(pc.equal(found["kind"], "caption"), pa.scalar(None, pa.string()), found["text"])
    return found.set_column(2, found.schema.field(2), texts).combine_chunks()


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_statistics_are_the_counters(rows: list[dict[str, Any]]) -> None:
    found = count_rows(table(rows))
    assert found.schema == stats.schema()
    assert as_dict(found) == naive(rows)


@given(st.lists(ROWS, max_size=4), st.randoms())
@settings(deadline=None, max_examples=40)
def test_any_split_in_any_order_adds_up_to_the_same(blocks: list[list[dict[str, Any]]], rng: Any) -> None:
    rows = [row for block in blocks for row in block]
    rng.shuffle(rows)
    whole, counted = count_rows(table(rows)), [count_rows(table(block)) for block in blocks]
    for found in (merged(counted), merged([merged(counted[:2]), *counted[2:]]), merged(counted[::-1])):
        assert unspelled(found).equals(unspelled(whole))


@given(st.lists(ROWS, max_size=3))
@settings(deadline=None, max_examples=15)
def test_files_add_up_to_the_same(tmp_path_factory: pytest.TempPathFactory, blocks: list[list[dict[str, Any]]]) -> None:
    folder = tmp_path_factory.mktemp("it's stats")
    paths = [str(folder / f"{i}.parquet") for i in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        write_statistics(path, count_rows(table(block)))
        assert read_statistics(path).equals(count_rows(table(block)))  # type: ignore[union-attr]
    assert sums(paths) == naive(row for block in blocks for row in block)


def sums(paths: list[str]) -> dict[tuple[Any, ...], tuple[int, int]]:
    with add_up(paths) as con:
        return all_of(con)


def all_of(con: Any) -> dict[tuple[Any, ...], tuple[int, int]]:
    found = [
        *con.sql("SELECT source, 'word', word, NULL, count, captions FROM words").fetchall(),
        *con.sql("SELECT source, 'bigram', bigram, NULL, count, 0 FROM bigrams").fetchall(),
        *con.sql("SELECT source, 'caption', NULL, hash::DOUBLE, count, 0 FROM captions").fetchall(),
        *con.sql("SELECT source, kind, text, value, count, coalesce(captions, 0) FROM others").fetchall(),
    ]
    assert len({row[:4] for row in found}) == len(found)
    return {row[:4]: row[4:] for row in found}


OF_CAPTIONS = {"word", "bigram", "concept", "words", "characters", "clip_tokens", "repetition", "readability", "caption"}


def test_columns_that_are_not_there_are_not_counted() -> None:
    found = count_rows(pa.table({"caption": ["a dog", None]}))
    assert set(found["kind"].to_pylist()) == {"samples", *OF_CAPTIONS}
    assert as_dict(found)["", "samples", None, None] == (2, 0)
    unnamed = pa.table({"source": pa.nulls(2, pa.string()), "width": [3, 3]})
    assert as_dict(count_rows(unnamed)) == {("", "samples", None, None): (2, 0), ("", "width", None, 3.0): (2, 0)}


@given(st.floats(1e-6, 1e12) | st.integers(1, 2**50).map(float))
def test_three_digits_are_within_half_a_percent(value: float) -> None:
    (found,) = stats.three_digits(np.array([value])).tolist()
    assert found == three(found)
    assert abs(found - value) <= 0.005001 * value
    assert stats.three_digits(np.array([found])).tolist() == [found]


def test_a_row_group_holds_one_kind_of_one_source_and_equal_statistics_are_equal_bytes(tmp_path: Path) -> None:
    rows = [
        {"source": "st"[i % 2], "caption": f"a dog number {i}", "width": i, "height": 3, "bytes": i, "original_format": "PNG"}
        for i in range(9)
    ]
    for name, order in (("a", rows), ("b", rows[::-1])):
        write_statistics(str(tmp_path / name), count_rows(table(order)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    file = pq.ParquetFile(tmp_path / "a")
    groups = [file.read_row_group(i, ["kind", "source"]).to_pylist() for i in range(file.num_row_groups)]
    assert all(row == group[0] for group in groups for row in group)
    kinds = [tuple(group[0].values()) for group in groups if group[0]["kind"] != "caption"]
    assert len(set(kinds)) == len(kinds) > 20
    places = [i for i, group in enumerate(groups) if group[0] == {"kind": "caption", "source": "s"}]
    cuts = [0, *(share * 2**52 for share in (1 / 64, 1 / 16, 1 / 4, 1))]
    for i in places:
        values = file.read_row_group(i, ["value"])["value"].to_pylist()
        assert values == sorted(values)
        assert len({np.searchsorted(cuts, value, side="right") for value in values}) == 1
    assert sum(len(groups[i]) for i in places) == 5


def test_shards_are_counted_once(make_shards: Callable[..., str], tmp_path: Path) -> None:
    manifest = read_manifest(make_shards(20, per_shard=8))
    first = parts(manifest, str(tmp_path), engine="inline")
    assert first == [path_of(manifest, entry) for entry in manifest.shards]
    assert [Path(path).relative_to(manifest.folder).as_posix() for path in first] == [f"stats/{i:05d}.parquet" for i in range(3)]
    for path in first:
        os.utime(path, ns=(1, 1))
    assert parts(manifest, str(tmp_path), engine="inline") == first
    assert {os.stat(path).st_mtime_ns for path in first} == {1}
    assert sums(first) == naive(kept_rows(manifest))


def kept_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """The rows in use, by the manifest's own words: sidecars in order, and `use`."""
    rows = []
    for entry in manifest.shards:
        whole = pq.read_table(manifest.path_of(entry, ".parquet")).to_pylist()
        rows += [whole[i] for start, stop in entry.ranges for i in range(start, stop)]
    return rows


def test_a_cut_shard_is_counted_anew(make_shards: Callable[..., str], tmp_path: Path) -> None:
    whole = read_manifest(make_shards(20, per_shard=8))
    beside = parts(whole, str(tmp_path), engine="inline")
    before = [Path(path).read_bytes() for path in beside]
    shards = (whole.shards[0], whole.shards[1].cut(np.array([1, 2, 6])))
    cut = dataclasses.replace(whole, shards=shards, samples=11)
    with add_up(parts(cut, str(tmp_path / "aside"), engine="inline")) as con:
        assert all_of(con) == naive(kept_rows(cut))
    assert [Path(path).read_bytes() for path in beside] == before


def test_statistics_out_of_date_are_counted_anew(make_shards: Callable[..., str], tmp_path: Path) -> None:
    old, new = read_manifest(make_shards(8, "old", seed=1)), read_manifest(make_shards(8, "new", seed=2))
    (stale,) = parts(old, str(tmp_path), engine="inline")
    os.makedirs(os.path.dirname(path_of(new, new.shards[0])))
    shutil.copy(stale, path_of(new, new.shards[0]))
    assert sums(parts(new, str(tmp_path), engine="inline")) == naive(kept_rows(new)) != naive(kept_rows(old))
    assert read_statistics(stale, "another sidecar") is None
    table = pq.read_table(stale)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"version": b"0"}), stale)
    assert read_statistics(stale, old.shards[0].sidecar_sha256) is None


def test_another_sets_folder_is_read_and_never_written(make_shards: Callable[..., str], tmp_path: Path) -> None:
    whole = read_manifest(make_shards(20, per_shard=8))
    entries = tuple(dataclasses.replace(entry, path=f"../build/{entry.path}") for entry in whole.shards)
    subset = dataclasses.replace(whole, shards=entries, folder=str(tmp_path / "subset"))
    aside = tmp_path / "aside"
    (tmp_path / "subset").mkdir()
    found = parts(subset, str(aside), engine="inline")
    assert {Path(path).parent for path in found} == {aside}
    assert not (Path(whole.folder) / "stats").exists()
    beside = parts(whole, str(tmp_path), engine="inline")
    assert [os.path.realpath(path) for path in parts(subset, str(aside), engine="inline")] == beside
    assert sums(beside) == sums(found)


def test_shards_without_sidecars_are_counted_from_their_tars(make_shards: Callable[..., str], tmp_path: Path) -> None:
    ours = read_manifest(make_shards(12, per_shard=8))
    foreign = dataclasses.replace(ours, shards=tuple(dataclasses.replace(entry, sidecar_sha256="") for entry in ours.shards))
    with add_up(parts(foreign, str(tmp_path), engine="inline")) as con:
        found = all_of(con)
    assert found == {key: n for key, n in naive(kept_rows(ours)).items() if key[1] != "information"}
    for entry in foreign.shards:
        assert read_statistics(path_of(foreign, entry), entry.sha256) is not None


def test_what_cannot_be_written_beside_the_shards_goes_aside(make_shards: Callable[..., str], tmp_path: Path) -> None:
    manifest = read_manifest(make_shards(12, per_shard=8))
    found = parts(manifest, str(tmp_path / "aside"), engine="inline", beside=False)
    assert {Path(path).parent for path in found} == {tmp_path / "aside"}
    assert parts(manifest, str(tmp_path / "aside"), engine="inline", beside=False) == found
    assert not (Path(manifest.folder) / "stats").exists()
    assert sums(found) == naive(kept_rows(manifest))


@pytest.fixture
def few_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.report.stats.sums.MOST_CAPTIONS", 10_000)
    monkeypatch.setattr("curate.report.stats.sums.CANDIDATES", 50)


def said_often(shards: int, rng: np.random.Generator) -> list[list[str]]:
    """Captions of shards by a law under which a few come very often and many once."""
    numbers = (rng.pareto(0.8, (shards, 5_000)) * 400).astype(np.int64)
    return [[f"Caption number {n}!" for n in shard] for shard in numbers.tolist()]


def test_many_captions_are_estimated_and_the_commonest_are_exact(tmp_path: Path, few_told_apart: None) -> None:
    shards = said_often(8, np.random.default_rng(0))
    for number, captions in enumerate(shards):
        write_statistics(str(tmp_path / f"{number}.parquet"), count_rows(pa.table({"caption": captions})))
    true = Counter(caption for captions in shards for caption in captions)
    with add_up([str(path) for path in tmp_path.iterdir()]) as con:
        found = stats.duplicates(con, "")
        assert con.sql("SELECT share, captions FROM caption_shares").fetchall() == [(0.25, 40_000)]
        assert found["captions"] == 40_000 == found["distinct"] + found["duplicates"]
        assert 0 < found["standard_error"] < 0.02 * len(true)
        assert abs(found["distinct"] - len(true)) < 4 * found["standard_error"]
        first = stats.most_repeated(con, "", 20)
        assert [(text, n) for _, n, text in first] == sorted(true.items(), key=lambda pair: (-pair[1], pair[0]))[:20]


@pytest.mark.slow
def test_standard_errors_are_honest(tmp_path: Path, few_told_apart: None) -> None:
    """Of many draws, about 95% are within 1.96 standard errors."""
    within = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        captions = [f"{seed} {n}" for n in rng.integers(0, 9_000, 12_000).tolist()]
        write_statistics(str(tmp_path / "one.parquet"), count_rows(pa.table({"caption": captions})))
        with add_up([str(tmp_path / "one.parquet")]) as con:
            found = stats.duplicates(con, "")
        within += abs(found["distinct"] - len(set(captions))) <= 1.96 * found["standard_error"]
    assert 51 <= within <= 60


def test_few_captions_are_exact_to_the_last(tmp_path: Path) -> None:
    shards = [["A dog", "a DOG!", "cat", "?"], ["a dog", "?", "!"], [""]]
    for number, captions in enumerate(shards):
        write_statistics(str(tmp_path / f"{number}.parquet"), count_rows(pa.table({"source": ["s"] * len(captions), "caption": captions})))
    with add_up([str(path) for path in tmp_path.iterdir()]) as con:
        assert stats.duplicates(con, "s") == {"captions": 8, "distinct": 5, "duplicates": 3, "standard_error": 0.0}
        assert [(n, text) for _, n, text in stats.most_repeated(con, "s", 9)] == [(3, "A dog"), (2, None)]
        assert stats.duplicates(con, "nobody")["captions"] == 0


def test_workers_count_as_one_process_does(make_shards: Callable[..., str], tmp_path: Path) -> None:
    manifest = read_manifest(make_shards(20, per_shard=8))
    found = parts(manifest, str(tmp_path), workers=2)
    assert sorted(found) == [path_of(manifest, entry) for entry in manifest.shards]
    assert sums(found) == naive(kept_rows(manifest))


def test_remote_statistics(make_shards: Callable[..., str], tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    manifest = read_manifest(make_shards(20, per_shard=8))
    memory.put(manifest.folder, "/statistics", recursive=True)
    try:
        remote = read_manifest("memory://statistics")
        with add_up(parts(remote, str(tmp_path), engine="inline")) as con:
            assert all_of(con) == naive(kept_rows(manifest))
        assert memory.exists("/statistics/stats/00002.parquet")
    finally:
        memory.rm("/statistics", recursive=True)


def test_no_shards() -> None:
    assert sums([]) == {}
    assert merged([]).num_rows == 0
