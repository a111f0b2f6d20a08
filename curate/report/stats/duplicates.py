"""Captions that say the same: how many there are, and the most repeated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.report.stats.table import HASHES

if TYPE_CHECKING:
    import duckdb


def duplicates(con: duckdb.DuckDBPyConnection, source: str) -> dict[str, Any]:
    """Return how many captions of a source say what another one has said: `captions`, `distinct`, `duplicates`, `standard_error`.

    Exact for up to MOST_CAPTIONS captions: the standard error is 0 then. Beyond, what is counted are the captions whose hash is
    below a share f of all hashes; if d of these are distinct, d / f of all are: each is below with probability f, so that the
    standard error of this (and of the duplicates, the rest) is sqrt(d (1 - f)) / f (Horvitz and Thompson 1952, J. Am. Stat.
    Assoc. 47, 663).
    """
    found = con.execute("SELECT share, captions FROM caption_shares WHERE source = $source", {"source": source}).fetchall()
    share, captions = found[0] if found else (1.0, 0)
    query = "SELECT count(*) FROM captions WHERE source = $source AND hash < $below"
    below = con.execute(query, {"source": source, "below": share * HASHES}).fetchall()[0][0]
    distinct = min(captions, round(below / share))
    error = (below * (1 - share)) ** 0.5 / share
    return {"captions": captions, "distinct": distinct, "duplicates": captions - distinct, "standard_error": round(error, 1)}


def most_repeated(con: duckdb.DuckDBPyConnection, source: str, most: int) -> list[tuple[int, int, str | None]]:
    """Return (hash, count, text) of the captions that a source repeats most, all of them twice or more.

    The counts are exact. `text` is one of the spellings, None where no shard has the caption twice:
    `curate.report.subject.most_repeated` looks it up. Beyond MOST_CAPTIONS captions the list may lack some that no shard has twice.
    """
    query = (
        "SELECT hash, count, text FROM captions WHERE source = $source AND count > 1 ORDER BY count DESC, text NULLS LAST, hash LIMIT $most"
    )
    return con.execute(query, {"source": source, "most": most}).fetchall()
