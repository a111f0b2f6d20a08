"""Planning shards: the cut by samples and by bytes, what the ledger says of it, and the digest that a plan goes by."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deciding import row, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide import Decided, decide
from curate.plan import members_of, plan, write_ledger
from curate.recipe import Recipe, ShardSize, SourceSpec
from curate.table import table_sha256
from curate.write import WriteTask, text_members
from shards import tar

Planned = tuple[list[WriteTask], Decided, Path]


def planned(folder: Path, recipe: Recipe, count: int = 60) -> Planned:
    """Plan `count` samples of varied sizes, one in seven of them dropped, and write their ledger."""
    rows = [
        row("a", f"{i}", "" if i % 7 == 3 else "wörter " * (i % 90), image=i, bytes=900 * (i % 13), class_index=i % 11)
        for i in range(count)
    ]
    rows[1]["caption"] = "first of all"
    parts = write_parts(folder / "measured", recipe, rows, [7, 11])
    decided = decide(recipe, parts, str(folder), 1)
    tasks = plan(recipe, decided, str(folder), str(folder / "out"), members_of(recipe, decided))
    write_ledger(decided.con, str(folder / "out"), str(folder / "work"))
    return tasks, decided, folder


def recipe_of(size: ShardSize, json: bool = False) -> Recipe:
    return Recipe((SourceSpec("folder", "a", "a"),), samples=40, filters=(), shards=size, json=json)


def tar_bytes(rows: list[dict[str, object]], task: WriteTask) -> int:
    members = [size for r in rows for size in (r["bytes"], *(len(c) for c in text_members(r, task.members).values()))]
    return tar.tar_size(members)  # type: ignore[arg-type]


@pytest.mark.parametrize("json", [False, True])
def test_a_shard_is_as_full_as_its_bytes_allow(tmp_path: Path, json: bool) -> None:
    cap = 60_000
    tasks, _, _ = planned(tmp_path, recipe_of(ShardSize(bytes=cap), json))
    shards = [pq.read_table(task.plan).to_pylist() for task in tasks]
    assert len(shards) > 3
    assert [r["rank"] for rows in shards for r in rows] == list(range(40))
    for rows, following, task in zip(shards, shards[1:], tasks, strict=False):
        assert tar_bytes(rows, task) <= cap < tar_bytes([*rows, following[0]], task)


def test_a_sample_larger_than_the_cap_has_a_shard_of_its_own(tmp_path: Path) -> None:
    tasks, _, _ = planned(tmp_path, recipe_of(ShardSize(bytes=1)))
    assert [pq.read_metadata(task.plan).num_rows for task in tasks] == [1] * 40


@pytest.mark.parametrize("size", [ShardSize(samples=9), ShardSize(bytes=60_000), ShardSize()])
def test_the_ledger_names_the_shard_of_each_kept_sample_and_of_no_other(tmp_path: Path, size: ShardSize) -> None:
    tasks, decided, folder = planned(tmp_path, recipe_of(size))
    where = {r["uid"]: (task.name, r["rank"]) for task in tasks for r in pq.read_table(task.plan).to_pylist()}
    ledger = [r for part in sorted((folder / "out" / "ledger").iterdir()) for r in pq.read_table(part).to_pylist()]
    assert [r["uid"] for r in ledger] == sorted(r["uid"] for r in ledger)
    assert len(ledger) == 60
    assert {r["uid"]: (r["shard"], r["rank"]) for r in ledger if r["decision"] == "kept"} == where
    assert {(r["shard"], r["decision"]) for r in ledger if r["uid"] not in where} == {("", "spare"), ("", "dropped")}
    assert decided.kept == len(where) == 40


def test_equal_plans_are_known_again_and_other_ones_are_not(tmp_path: Path) -> None:
    first, second = (planned(tmp_path / name, recipe_of(ShardSize(samples=9)))[0] for name in ("one", "two"))
    assert [t.digest for t in first] == [t.digest for t in second]  # though they were measured elsewhere
    longer = planned(tmp_path / "three", recipe_of(ShardSize(samples=9)), count=61)[0]
    assert {t.digest for t in longer} != {t.digest for t in first}


VALUES = st.tuples(st.none() | st.text(max_size=5), st.none() | st.booleans(), st.lists(st.text(max_size=3), max_size=3), st.integers(0, 9))


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=40), st.lists(st.integers(1, 9), max_size=5), st.integers(0, 5), st.data())
def test_a_tables_digest_is_that_of_its_values(rows: list[tuple[object, ...]], cuts: list[int], before: int, data: st.DataObject) -> None:
    """However the table is sliced and chunked; and another value gives another digest."""
    schema = pa.schema([("text", pa.string()), ("flag", pa.bool_()), ("texts", pa.list_(pa.string())), ("n", pa.int64())])

    def table(values: list[tuple[object, ...]]) -> pa.Table:
        return pa.Table.from_pylist([dict(zip(schema.names, v, strict=True)) for v in values], schema=schema)

    whole = table(rows)
    sliced = table([("x", None, ["y"], 1)] * before + rows + [(None, True, [], 2)]).slice(before, len(rows))
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(sliced.slice(at, cut))
        at += cut
    chunked = pa.concat_tables([*pieces, sliced.slice(at)])
    assert table_sha256(whole) == table_sha256(sliced) == table_sha256(chunked)
    changed = list(rows)
    k = data.draw(st.integers(0, len(rows) - 1))
    changed[k] = (*rows[k][:3], int(rows[k][3]) + 1)  # type: ignore[call-overload]
    assert table_sha256(table(changed)) != table_sha256(whole)
