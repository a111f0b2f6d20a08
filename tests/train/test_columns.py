"""Compact columns of text against pyarrow's own lists: slices, chunks, nulls, empty ones; and what they keep in memory."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.columns import TextColumn, TextListColumn

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=12)
LISTS = st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=4)), max_size=10)
CUTS = st.lists(st.integers(0, 12), max_size=3)


def chunked(values: list[Any], cuts: list[int], kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column of slices of one array, as Parquet readers and `take` give them."""
    whole = pa.array(values, kind)
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    return pa.chunked_array([whole.slice(a, b - a) for a, b in itertools.pairwise(edges)], kind)


@settings(deadline=None)
@given(TEXTS, CUTS, st.integers(0, 5), st.sampled_from([pa.string(), pa.large_string()]))
def test_texts_are_pyarrows(values: list[str | None], cuts: list[int], skip: int, kind: pa.DataType) -> None:
    for column in (pa.array(values, kind), chunked(values, cuts, kind), pa.array(values, kind).slice(min(skip, len(values)))):
        texts = TextColumn(column)
        assert len(texts) == len(column)
        assert [texts[row] for row in range(len(texts))] == column.to_pylist()


@settings(deadline=None)
@given(LISTS, CUTS, st.integers(0, 5), st.sampled_from([pa.list_(pa.string()), pa.large_list(pa.large_string())]))
def test_lists_are_pyarrows(values: list[list[str | None] | None], cuts: list[int], skip: int, kind: pa.DataType) -> None:
    for column in (pa.array(values, kind), chunked(values, cuts, kind), pa.array(values, kind).slice(min(skip, len(values)))):
        lists = TextListColumn(column)
        for row, expected in enumerate(column.to_pylist()):
            assert lists[row] == [text for text in expected or [] if text is not None]


def test_columns_without_rows_or_chunks() -> None:
    for column in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.nulls(0, pa.string())):
        assert len(TextColumn(column)) == 0
    TextListColumn(pa.chunked_array([], pa.list_(pa.string())))
    nothing = TextColumn(pa.nulls(3, pa.string()))
    assert [nothing[row] for row in range(3)] == [None] * 3
    assert [TextListColumn(pa.nulls(2, pa.list_(pa.string())))[row] for row in range(2)] == [[], []]


@pytest.mark.parametrize("how", ["slice", "take", "chunked slice"])
def test_what_it_was_cut_from_may_go(how: str) -> None:
    whole = pa.array([f"caption number {i} of many" for i in range(50_000)])
    before = pa.total_allocated_bytes()
    parts = {"slice": whole.slice(1000, 10), "take": whole.take(pa.array(range(1000, 1010)))}
    column = pa.chunked_array([whole.slice(1000, 4), whole.slice(1004, 6)]) if how == "chunked slice" else parts[how]
    texts = TextColumn(column)
    held = before - pa.total_allocated_bytes()
    del whole, column, parts
    released = before + held - pa.total_allocated_bytes()
    assert released > 1_000_000  # the 1.3 MB of the whole are free again
    assert [texts[row] for row in range(10)] == [f"caption number {i} of many" for i in range(1000, 1010)]
