"""The measured table as decisions see it: a view of the parts, and one narrow row per sample with its own refusal.

Wide columns (captions, addresses, paths) stay in the parts. What is decided about a sample finds them again by its
`place`: the number of its part, and of its row in that part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate import plugins
from curate.config import FILTERS, filter_options
from curate.decide.counts import stages
from curate.decide.parts import show_measured
from curate.hidden import hide, sensitive
from curate.listing import connect, sql_text
from curate.measure import Part, is_gray, low_information
from curate.recipe import Recipe
from curate.removed import hide_removed
from shards.core import registry

if TYPE_CHECKING:
    import duckdb

# Which copy stays comes first. Ties go by rank key, then by uid.
PREFERENCES = {"rank": "0", "resolution": "-original_width::BIGINT * original_height", "caption": "-length(caption)"}

_SAMPLES = """
CREATE TABLE samples AS
SELECT place, source::source_name AS source, {scope} AS scope, uid::UUID AS uid, {image}::UUID AS image,
       ('0x' || left(sha256('{seed}:' || uid), 16))::UBIGINT AS rank_key, {preference} AS preference,
       left(nullif(original_sha256, ''), 32)::UUID AS content, phash, {low} AS low, {gray} AS gray, hash(caption) AS text, class_index,
       (CASE {reason} ELSE '' END)::reason AS refusal, coalesce(CASE {detail} END, '') AS detail
FROM measured
"""


def load_samples(con: duckdb.DuckDBPyConnection, recipe: Recipe, parts: list[Part], work: str = "") -> None:
    """Make the view `measured`, the tables `samples` and `drops`, and the view `alive`.

    `samples` has a row per input; `refusal` is '' or the first reason that a sample gives by itself. `drops` has a row
    for each one that goes on account of others; `winner` is the place of the survivor, NULL where there is none. Small parts
    are merged in the folder `work`, if one is given.
    """
    show_measured(con, recipe, parts, work)
    hide_removed(con, work)
    con.execute(f"CREATE TYPE source_name AS ENUM {_enum(['', *(s.name for s in recipe.sources)])}")
    con.execute(f"CREATE TYPE reason AS ENUM {_enum(['', *stages(recipe)])}")
    con.execute("CREATE TABLE drops (place BIGINT, reason reason, detail VARCHAR, winner BIGINT)")
    con.execute("CREATE TABLE merged (place BIGINT, captions VARCHAR[])")
    reason, detail = _refusals(con, recipe)
    several = any(spec.captions == "each" for spec in recipe.sources)
    con.execute(_SAMPLES.format(
        image="image_id" if several else "uid",
        scope="''::source_name" if recipe.dedup.scope == "all" else "source::source_name", seed=recipe.seed,
        preference=PREFERENCES[recipe.dedup.prefer], low=low_information(), gray=is_gray(), reason=reason, detail=detail,
    ))  # fmt: skip
    con.execute("CREATE VIEW alive AS SELECT * EXCLUDE (refusal, detail) FROM samples ANTI JOIN drops USING (place) WHERE refusal = ''")
    hide(con, recipe)
    _repeated(con)


def rehearse(recipe: Recipe) -> None:
    """Put the recipe's filters to an empty table, so that what is wrong with their lists, columns or SQL shows before any work.

    Raises:
        UsageError: a filter's list is not there, or a condition names a column that this recipe does not measure.
    """
    con = connect("")
    try:
        load_samples(con, recipe, [])
    finally:
        con.close()


def _enum(names: list[str]) -> str:
    return f"({', '.join(map(sql_text, names))})"


def _refusals(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> tuple[str, str]:
    """Return the SQL cases of reason and detail: sensitive filters, what was found while measuring, the caption, other filters.

    Sensitive ones come first: a sample on a block list must not be seen, whatever else could be said against it.
    """
    first: list[tuple[str, str, str]] = []
    hiding = sensitive(recipe.filters)
    whens = [("status <> ''", "status", "detail")]
    whens.append(("caption = ''", "'caption_missing'", "CASE WHEN len(caption_raw) > 0 THEN 'empty after cleaning' ELSE 'no caption' END"))
    for spec in recipe.filters:
        module, options = registry.get(FILTERS, spec["name"]), filter_options(spec)
        if prepare := getattr(module, "prepare", None):
            prepare(options, con)
        when = (f"({module.refuse(options)})", sql_text(spec["name"]), module.detail(options))
        plugins.try_sql(con, spec["name"], when[0], when[2])
        if spec in hiding:
            first.append(when)
        else:
            whens.append(when)
    whens = first + whens
    reason = " ".join(f"WHEN {condition} THEN {name}" for condition, name, _ in whens)
    detail = " ".join(f"WHEN {condition} THEN {text}" for condition, _, text in whens)
    return reason, detail


def _repeated(con: duckdb.DuckDBPyConnection) -> None:
    """Drop every sample whose id an earlier one has, whatever else could be said against it."""
    con.execute("""
        CREATE TEMP TABLE repeated AS
        SELECT place, first_value(place) OVER (PARTITION BY uid ORDER BY place) AS first
        FROM samples SEMI JOIN (SELECT uid FROM samples GROUP BY uid HAVING count(*) > 1) USING (uid)
        QUALIFY place <> first
    """)
    con.execute("""
        INSERT INTO drops SELECT r.place, 'duplicate_id', 'id already seen at ' || m.input || ':' || m.row, NULL
        FROM repeated r JOIN (SELECT place, input, row FROM measured SEMI JOIN (SELECT first AS place FROM repeated) USING (place)) m
        ON m.place = r.first
    """)
    con.execute("DROP TABLE repeated")
