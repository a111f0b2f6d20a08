"""The filter `expression`: refused before anything is read, a ledger row with the values, unknown values kept."""

from __future__ import annotations

import duckdb
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture

from curate.filters import expression
from shards.core.errors import UsageError


def _refused(keep: str, rows: str) -> list[tuple[bool | None, str]]:
    options = expression.Options(keep=keep)
    return duckdb.sql(f"SELECT {expression.refuse(options)}, {expression.detail(options)} FROM ({rows})").fetchall()


def test_false_drops_true_and_unknown_stay() -> None:
    rows = """SELECT * FROM (VALUES (1, 0.1), (2, 0.5), (3, NULL)) t(width, "laion.similarity")"""
    found = _refused("laion.similarity > 0.3 AND width < 9", rows)
    assert found == [
        (True, "laion.similarity 0.1, width 1"),
        (False, "laion.similarity 0.5, width 2"),
        (None, "laion.similarity unknown, width 3"),
    ]


@pytest.mark.parametrize("keep", ["width >", "read_text('x') = ''", "(SELECT TRUE)", "random() < 0.5", "1; SELECT 2"])
def test_what_is_no_condition_is_refused_with_the_recipe(keep: str) -> None:
    with pytest.raises(UsageError):
        expression.Options(keep=keep)


def test_a_build_by_expression(build, captioned, tmp_path) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"a picture of {'dogs' if i % 3 else 'cats'} number {i}") for i in range(12)]
    flags = ["--source", "folder", "--input", captioned(rows), "--samples", "all", "--no-near"]
    code, out, said = build(*flags, "--expression-keep", "contains(caption, 'cats') AND width > 10", "--holdout", "0")
    assert code == 0, said
    ledger = pq.read_table(out / "ledger").to_pylist()
    assert {r["source_id"] for r in ledger if r["decision"] == "kept"} == {f"{i}.jpg" for i in range(0, 12, 3)}
    assert {r["reason"] for r in ledger if r["decision"] == "dropped"} == {"expression"}
    assert all(r["detail"].startswith("caption a picture of dogs") for r in ledger if r["decision"] == "dropped")
    code, _, said = build(*flags, "--expression-keep", "caption_length.wrods > 3", output="other")
    assert code == 2
    assert "no column 'caption_length.wrods'" in said
    assert "did you mean" in said
