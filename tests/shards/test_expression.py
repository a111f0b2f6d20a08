"""Conditions: what DuckDB's parser understood, and nothing beyond an expression over columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.core.errors import UsageError
from shards.expression import Filter, parse

TABLE = pa.table({
    "width": pa.array([100, 200, None, 400], pa.int32()),
    "caption": ["a dog", "it's", "A DOG; drop", None],
    "captions": [["a"], ["b", ""], [], None],
    "laion.similarity": [0.2, 0.4, 0.5, None],
    "class": pa.array([1, 2, 3, 4], pa.int32()),
    "Odd Name": [1, 2, 3, 4],
})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("laion.similarity > 0.3 AND width >= 200", [1]),
        ("laion.similarity > 0.3 or width >= 200", [1, 2, 3]),
        ('"laion.similarity" > 0.3', [1, 2]),
        ("LAION.Similarity BETWEEN 0.1 AND 0.4", [0, 1]),
        ("caption ILIKE '%dog%'", [0, 2]),
        ("caption = 'it''s'", [1]),
        ("regexp_matches(caption, '^a ')", [0]),
        ("len(list_filter(captions, lambda x: x <> '')) >= 1", [0, 1]),
        ("CASE WHEN class > 2 THEN TRUE ELSE width = 100 END", [0, 2, 3]),
        ("class IN (1, 4) -- a note", [0, 3]),
        ("width::DOUBLE / 100 = 2", [1]),
        ("coalesce(width, 0) - 1 < 0", [2]),
        ("width IS NULL", [2]),
        ('"Odd Name" % 2 = 0', [1, 3]),
        ("TRUE", [0, 1, 2, 3]),
        ("caption LIKE '%;%'", [2]),
    ],
)
def test_conditions_choose_rows(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(Filter(parse(text), TABLE.schema).holds(TABLE)).tolist() == rows


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 +", "width >", "1) FROM read_csv('x'", "1) FROM read_csv('x') --", "width = 1); DROP TABLE samples; SELECT (1",
        "width IN (SELECT 1)", "EXISTS (SELECT 1)", "(SELECT max(width) FROM samples) > 1", "(FROM read_text('/etc/passwd')) IS NULL",
        "read_text('/etc/passwd') = ''", "read_blob('x') IS NULL", "random() < 0.5", "now() > '2020-01-01'", "count(*) > 1",
        "max(width) > 1", "row_number() OVER () < 3", "? > 1", "*", "COLUMNS('w.*') > 1", "current_setting('threads') = '1'",
        "getvariable('x') = 1", "nextval('x') = 1", "error('x')", "width, class", "width AS w", "1) ORDER BY (width", "width = 1 LIMIT 1",
        "pg_catalog.lower(caption) = 'x'", "uuid() = ''", "width", "caption", "nothing.here > 1", "caption + 1 = 2", "sleep_ms(9) = 1",
        "write_log('x') IS NULL", "__internal_compress_string_ubigint(caption) = 1",
    ],
)  # fmt: skip
def test_what_is_no_condition_over_columns_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Filter(parse(text), TABLE.schema)


def test_the_closest_column_is_named() -> None:
    with pytest.raises(UsageError, match=r"no column 'laion.similarty'") as error:
        Filter(parse("laion.similarty > 1"), TABLE.schema)
    assert "did you mean 'laion.similarity'?" in error.value.advice


def test_a_column_that_a_shard_lacks_is_null_there() -> None:
    table = TABLE.drop_columns(["laion.similarity"])
    assert not Filter(parse("laion.similarity > 0.3"), TABLE.schema).holds(table).any()
    assert Filter(parse("laion.similarity IS NULL"), TABLE.schema).holds(table).all()


def test_a_value_that_cannot_be_computed_is_said() -> None:
    condition = Filter(parse("caption::INT > 1"), TABLE.schema)
    with pytest.raises(UsageError, match="TRY_CAST"):
        condition.holds(TABLE)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | st.text(alphabet="widthcapon ()';,-*/=<>1\"\n", max_size=30))
def test_no_text_does_more_than_be_refused_or_understood(text: str) -> None:
    try:
        found = Filter(parse(text), TABLE.schema).holds(TABLE)
    except UsageError:
        return
    assert found.dtype == bool
    assert len(found) == 4
