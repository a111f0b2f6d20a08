"""Pass 2, decide: who is kept, held out, spare or dropped, and why. Columns only; no image is opened.

The order of decisions is the contract's: the first refusal owns the reason (a repeated id, what was found while
measuring, a caption, then the recipe's filters in order), then exact duplicates, placeholders, images of test sets, near
duplicates, duplicate captions, duplicates by meaning, the hold-out, rank, N. All of it is a pure function of the
measured table and the recipe.

It works on one narrow row per sample, in a database that spills to disk, so its memory does not grow with the table:
`samples` (what a sample is), `drops` (who goes on account of others), `alive` (the rest), at last `decided` (the outcome).

Steps that need more than this are given as functions of the connection (`Steps`). Such a function finds in
    alive      place, source, scope, uid, image (UUIDs), rank_key, preference, phash, class_index …: the samples so far
    measured   place and all measured columns (caption, path, …)
and returns an Arrow table; `curate.decide.drop.drop` and `curate.decide.order.rank_survivors` say of which columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from curate.decide import drop
from curate.decide.counts import (
    by_row,
    check_balance,
    check_size,
    count_decisions,
    placeholders,
    removed_by_class,
    stages,
    warnings,
    waterfall,
)
from curate.decide.load import load_samples
from curate.decide.near import drop_near, overlap
from curate.decide.order import rank_survivors
from curate.listing import connect
from curate.measure import Part
from curate.recipe import Recipe

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    Step = Callable[["duckdb.DuckDBPyConnection"], pa.Table]

__all__ = ["Decided", "Steps", "by_row", "decide", "placeholders", "removed_by_class", "stages", "warnings", "waterfall"]


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps that look at more than the measured columns.

    `test_images` and `semantic` return losers for `drop`: images of test sets (no winner; `detail` names set and image),
    and duplicates by meaning. `order` returns balance keys for `rank_survivors`.
    """

    test_images: Step | None = None
    semantic: Step | None = None
    order: Step | None = None


@dataclasses.dataclass
class Decided:
    """The outcome: a DuckDB connection with the tables `decided` (one row per input) and `merged` (place and captions of
    pictures that carry those of their copies) and the view `measured`; the counts per source; what sources share."""

    con: duckdb.DuckDBPyConnection
    sources: dict[str, dict[str, Any]]
    kept: int
    overlap: dict[str, dict[str, int]]

    @property
    def held(self) -> int:
        """How many samples are held out."""
        return sum(source["holdout"] for source in self.sources.values())


def decide(recipe: Recipe, parts: list[Part], work: str, threads: int = 0, steps: Steps = Steps()) -> Decided:
    """Decide about every row of the measured parts.

    Raises:
        UsageError: fewer samples survive than were asked for; the message says what dropped the rest.
        RunError: the ledger does not balance (a bug of ours, never of the data).
    """
    con = connect(work, threads)
    con.execute("SET preserve_insertion_order = false")
    load_samples(con, recipe, parts, work)
    drop.find_copies(con)
    shared = overlap(con, recipe, threads)
    if recipe.dedup.exact:
        drop.exact(con)
    if recipe.dedup.near:
        drop.placeholders(con, recipe.dedup.placeholder_min)
    if steps.test_images:
        drop.drop(con, steps.test_images(con), "near_test_image")
    if recipe.dedup.near:
        drop_near(con, recipe, recipe.dedup.near, threads)
        drop.merge_captions(con)
    if recipe.dedup.captions:
        drop.captions(con)
    if steps.semantic:
        drop.drop(con, steps.semantic(con), "semantic_duplicate")
    rank_survivors(con, recipe, steps.order(con) if steps.order else None)
    sources = count_decisions(con, recipe)
    check_balance(con, sum(part.rows for part in parts), sources)
    check_size(recipe, sources)
    return Decided(con, sources, sum(s["kept"] for s in sources.values()), shared)
