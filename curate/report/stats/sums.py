"""Files of statistics added up, in DuckDB: what a report asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from curate.report.database import connected, reach
from curate.report.stats.files import SHARES
from curate.report.stats.table import HASHES

if TYPE_CHECKING:
    import duckdb

MOST_CAPTIONS = 4_000_000  # of a source, that are told apart
CANDIDATES = 10_000  # captions of a source that shards have twice, and that are looked for beyond that

_TABLES = """
CREATE TABLE words (source VARCHAR, word VARCHAR, count BIGINT, captions BIGINT);
CREATE TABLE bigrams (source VARCHAR, bigram VARCHAR, count BIGINT);
CREATE TABLE captions (source VARCHAR, hash BIGINT, count BIGINT, text VARCHAR);
CREATE TABLE caption_shares (source VARCHAR, share DOUBLE, captions BIGINT);
CREATE TABLE others (source VARCHAR, kind VARCHAR, text VARCHAR, value DOUBLE, count BIGINT, captions BIGINT);
"""
_REST = "'word', 'bigram', 'caption'"


@contextlib.contextmanager
def add_up(paths: Sequence[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Add up files of statistics, and open a connection with the sums; see `open_sums` for its tables."""
    with open_sums() as con:
        add(con, paths)
        yield con


@contextlib.contextmanager
def open_sums() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection for sums; what exceeds the memory of `connected` goes to disk.

    Its tables: `words` (source, word, count, captions), `bigrams` (source, bigram, count), `others`
    (source, kind, text, value, count, captions): all other kinds. All are exact, as the files are. `captions`
    (source, hash, count, text), exact too, holds what the captions of a source say whose hash is below a share of all hashes,
    and beyond it the CANDIDATES; `caption_shares` (source, share, captions) says which share, and of how many captions.
    `duplicates` and `most_repeated` read these.
    """
    with connected() as con:
        con.execute("SET preserve_insertion_order = false; SET parquet_metadata_cache = true")
        con.execute(_TABLES)
        yield con


def add(
    con: duckdb.DuckDBPyConnection, paths: Sequence[str], labels: Mapping[str, str] | None = None, bigrams: Sequence[str] | None = None
) -> None:
    """Add up the files of a set.

    Args:
        con: from `open_sums`.
        labels: what the set's sources are called in the tables: no two sets may share a label.
        bigrams: those that are wanted; the others, and repeated captions, are left out then, which takes most of the time.
    """
    if not paths:
        return
    reach(con, paths)
    given: dict[str, object] = {"paths": list(paths)}
    rest = f"SELECT source, kind, text, value, sum(count), sum(captions) FROM read_parquet($paths) WHERE kind NOT IN ({_REST}) GROUP BY ALL"
    con.execute(f"CREATE TEMP TABLE rest AS {rest}", given)
    # A source at a time, since a key of one text is half the work and memory.
    for (source,) in con.execute("SELECT source FROM rest WHERE kind = 'samples' ORDER BY source").fetchall():
        one = {"source": source, "label": (labels or {}).get(source, source)}
        con.execute("INSERT INTO others SELECT $label, * EXCLUDE (source) FROM rest WHERE source = $source", one)
        _add_texts(con, "words", "word", "sum(count), sum(captions)", "", given | one)
        if bigrams is None:
            _add_texts(con, "bigrams", "bigram", "sum(count)", "", given | one)
            _add_captions(con, given | one)
        elif bigrams:
            _add_texts(
                con, "bigrams", "bigram", "sum(count)", "AND list_contains($bigrams, text)", given | one | {"bigrams": list(bigrams)}
            )
    con.execute("DROP TABLE rest")


def _add_texts(con: duckdb.DuckDBPyConnection, table: str, kind: str, sums: str, condition: str, given: dict[str, object]) -> None:
    rows = f"FROM read_parquet($paths) WHERE kind = '{kind}' AND source = $source {condition}"
    con.execute(f"INSERT INTO {table} SELECT $label, text, {sums} {rows} GROUP BY text", given)


def totals(con: duckdb.DuckDBPyConnection, kind: str) -> dict[str, int]:
    """Return {label: how many} of a kind of `others`: its samples (`samples`), its captions (`words`), its images (`width`)."""
    query = "SELECT source, sum(count)::BIGINT FROM others WHERE kind = $kind GROUP BY source"
    return dict(con.execute(query, {"kind": kind}).fetchall())


def token_counts(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return {label: how many words its captions have in all}."""
    return dict(con.execute("SELECT source, sum(count)::BIGINT FROM words GROUP BY source").fetchall())


def sources_of(con: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> set[str]:
    """Return the names of the sources in some files."""
    if not paths:
        return set()
    reach(con, paths)
    query = "SELECT DISTINCT source FROM read_parquet($paths) WHERE kind = 'samples'"
    return {source for (source,) in con.execute(query, {"paths": list(paths)}).fetchall()}


def _add_captions(con: duckdb.DuckDBPyConnection, given: dict[str, object]) -> None:
    """Fill the tables of captions with those of one source."""
    one = {"label": given["label"]}
    total = totals(con, "words").get(str(given["label"]), 0)
    share = next((share for share in reversed(SHARES) if share * total <= MOST_CAPTIONS), SHARES[0])
    con.execute("INSERT INTO caption_shares VALUES ($label, $share, $total)", one | {"share": share, "total": total})
    rows = "FROM read_parquet($paths) WHERE kind = 'caption' AND source = $source AND value"
    sums = f"INSERT INTO captions SELECT $label, value::BIGINT, sum(count), min(text) {rows}"
    con.execute(f"{sums} < $below GROUP BY value", given | {"below": share * HASHES})
    if share < 1:
        several = f"SELECT value {rows} >= $below AND count > 1 GROUP BY value ORDER BY sum(count) DESC, value LIMIT {CANDIDATES}"
        con.execute(f"{sums} IN ({several}) GROUP BY value", given | {"below": share * HASHES})
