"""Duplicates of every kind: which samples go on account of others, and of whom.

`drop` is the one way out. After it every dropped sample names a survivor or nobody: a copy of a sample that now goes
follows it, to the same survivor or, where there is none, under the same reason.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ITSELF = ", itself "  # between the sample that another one is a copy of, and why that one went, too
ORDER = "preference, rank_key, uid"


def drop(con: duckdb.DuckDBPyConnection, losers: pa.Table, reason: str) -> None:
    """Drop whole images, all samples of them that are still alive.

    Args:
        losers: `image_id`, `winner` (the uid of the sample that stays; null or "" where none does), `detail`, and,
            where an id may stand in several scopes, `scope` (a source's name, "" across all).
        reason: a word of `curate list reasons`.
    """
    con.register("given", losers)
    scoped = "AND a.scope = g.scope::source_name" if "scope" in losers.column_names else ""
    con.execute(f"""
        CREATE TEMP TABLE losers AS SELECT a.place, g.detail, w.place AS winner
        FROM given g JOIN alive a ON a.image = g.image_id::UUID {scoped} LEFT JOIN alive w ON w.uid = nullif(g.winner, '')::UUID
    """)
    con.unregister("given")
    drop_places(con, reason)


def drop_places(con: duckdb.DuckDBPyConnection, reason: str) -> None:
    """Drop the samples of the table `losers` (place, detail, winner: a place or NULL), and the table.

    An earlier loser whose winner goes now gets that one's winner; its detail then names the sample that it is a copy of, since
    the one that stays is none: `same bytes as UID, itself near_duplicate: 3 of 64 bits differ`.
    """
    con.execute("INSERT INTO drops SELECT place, $1, detail, winner FROM losers", [reason])
    con.execute(f"""
        UPDATE drops SET winner = w.winner, reason = CASE WHEN w.winner IS NULL THEN w.reason ELSE drops.reason END,
               detail = CASE WHEN w.winner IS NULL THEN w.detail ELSE
                   drops.detail || CASE WHEN drops.detail LIKE '% differ' THEN ' from ' ELSE ' as ' END || w.uid || '{ITSELF}'
                   || w.reason || ': ' || w.detail END
        FROM (SELECT d.*, replace(s.uid::VARCHAR, '-', '') AS uid FROM drops d JOIN samples s USING (place)) w
        WHERE w.place = drops.winner
    """)
    con.execute("DROP TABLE losers")


def find_copies(con: duckdb.DuckDBPyConnection) -> None:
    """Make the table `copied` (place, source, content): samples, not refused, whose original bytes another one has, in any source."""
    con.execute("""
        CREATE TABLE copied AS
        SELECT place, source, content FROM samples SEMI JOIN (
            SELECT content FROM samples WHERE refusal = '' AND content IS NOT NULL GROUP BY content HAVING count(*) > 1) USING (content)
        WHERE refusal = ''
    """)


def exact(con: duckdb.DuckDBPyConnection) -> None:
    """Drop all but the preferred one of images with equal original bytes; captions of one image are no duplicates."""
    _equal(con, "alive SEMI JOIN copied USING (place)", "content", "same bytes")
    drop_places(con, "exact_duplicate")


def _equal(con: duckdb.DuckDBPyConnection, rows: str, key: str, detail: str) -> None:
    """Make `losers` of all rows with an equal key in their scope, save the preferred one and those of its image."""
    con.execute(f"""
        CREATE TEMP TABLE losers AS
        SELECT place, '{detail}' AS detail, first_value(place) OVER same AS winner, first_value(image) OVER same AS winning
        FROM {rows} WINDOW same AS (PARTITION BY scope, {key} ORDER BY {ORDER}) QUALIFY image <> winning
    """)


def placeholders(con: duckdb.DuckDBPyConnection, least: int) -> None:
    """Drop every copy of a low-information picture that stands under many ids and many unlike captions.

    Exact copies count too and go as placeholders themselves: a duplicate must name a survivor, and here is none. The
    table `popular` keeps the hashes that stand under so many, low or not.
    """
    con.execute(f"""
        CREATE TEMP TABLE shown AS
        SELECT place, scope, phash, low, image, text FROM samples LEFT JOIN drops USING (place)
        WHERE refusal = '' AND (reason IS NULL OR reason = 'exact_duplicate')
        AND (scope, phash) IN (SELECT (scope, phash) FROM samples WHERE refusal = '' GROUP BY scope, phash HAVING count(*) >= {least})
    """)
    con.execute(f"""
        CREATE TABLE popular AS
        SELECT scope, phash, bool_or(low) AS low, count(DISTINCT image) AS ids FROM shown
        GROUP BY scope, phash HAVING ids >= {least} AND count(DISTINCT text) >= {least}
    """)
    con.execute("""
        CREATE TEMP TABLE losers AS SELECT place, ids || ' ids under one picture' AS detail, NULL::BIGINT AS winner
        FROM shown JOIN (FROM popular WHERE low) USING (scope, phash)
    """)
    con.execute("DROP TABLE shown")
    con.execute("DELETE FROM drops WHERE place IN (SELECT place FROM losers)")
    drop_places(con, "placeholder")


def merge_captions(con: duckdb.DuckDBPyConnection) -> None:
    """Let the kept copy of a picture that stands under many captions, and is no placeholder, carry them all: `merged`."""
    con.execute("""
        CREATE TEMP TABLE members AS
        SELECT place, coalesce(d.winner, place) AS survivor
        FROM (samples SEMI JOIN (FROM popular WHERE NOT low) USING (scope, phash)) LEFT JOIN drops d USING (place)
        WHERE refusal = '' AND (d.reason IS NULL OR d.winner IS NOT NULL)
    """)
    con.execute("INSERT INTO members SELECT DISTINCT survivor, survivor FROM members WHERE survivor NOT IN (SELECT place FROM members)")
    con.execute("""
        INSERT INTO merged
        SELECT survivor AS place, list_sort(list_distinct(flatten(list(captions)))) AS captions
        FROM members JOIN (SELECT place, captions FROM measured SEMI JOIN members USING (place)) USING (place) GROUP BY survivor
    """)
    con.execute("DROP TABLE members")


def captions(con: duckdb.DuckDBPyConnection) -> None:
    """Drop all but the preferred one of samples with equal captions, letter case and punctuation aside (NFKC)."""
    con.create_function("fold_caption", fold, ["VARCHAR"], "VARCHAR")
    con.execute(r"""
        CREATE TEMP TABLE spoken AS
        SELECT alive.*, md5_number(CASE WHEN strlen(caption) > length(caption) THEN fold_caption(caption)
                 ELSE coalesce(nullif(trim(regexp_replace(lower(caption), '[^0-9a-z]+', ' ', 'g')), ''), caption) END) AS said
        FROM alive JOIN (SELECT place, caption FROM measured) USING (place)
    """)
    several = "(SELECT scope, said FROM spoken GROUP BY ALL HAVING count(*) > 1)"
    _equal(con, f"spoken SEMI JOIN {several} USING (scope, said)", "said", "same caption")
    drop_places(con, "duplicate_caption")
    con.execute("DROP TABLE spoken")


def fold(caption: str) -> str:
    """Return what two equal captions share: NFKC, case folded, words apart by one space; of signs alone, the signs."""
    text = unicodedata.normalize("NFKC", caption).casefold()
    words = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text).split()
    return " ".join(words) or caption
