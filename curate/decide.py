"""Pass 2, decide: who is kept, held out, spare or dropped, and why. Columns only; no image is opened.

The order of decisions is the contract's: the first refusal owns the reason (a repeated id, a missing image, a caption,
then the recipe's filters in order), then exact duplicates, placeholders, near duplicates, the hold-out, rank, N.
All of it is a pure function of the measured table and the recipe.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from curate.config import FILTERS, filter_options
from curate.dedup import near_duplicates
from curate.listing import connect, scalar, sql_list, sql_text
from curate.measure import Part, low_information
from curate.recipe import Recipe
from shards.core import registry
from shards.core.console import table, warn
from shards.core.errors import RunError, UsageError
from shards.schema import REASONS

if TYPE_CHECKING:
    import duckdb

HOLDOUT_SALT = "holdout"
ALARM_SHARE = 0.5


@dataclasses.dataclass
class Decided:
    """The outcome: a DuckDB connection with the table `decided`, and the counts per source."""

    con: duckdb.DuckDBPyConnection
    sources: dict[str, dict[str, Any]]
    kept: int


def decide(recipe: Recipe, parts: list[Part], work: str, threads: int = 0) -> Decided:
    """Fill the table `decided`: one row per input sample, with decision, reason, detail, duplicate_of and position.

    Raises:
        UsageError: fewer samples survive than were asked for; the message says what dropped the rest.
        RunError: the ledger does not balance (a bug of ours, never of the data).
    """
    con = connect(work, threads)
    _load(con, recipe, parts)
    _refuse(con, recipe)
    if recipe.dedup.exact:
        _exact(con)
    if recipe.dedup.near:
        _placeholders(con, recipe.dedup.placeholder_min)
        _near(con, recipe.dedup.near.radius)
        _settle_winners(con)
        _merge_captions(con)
    _holdout(con, recipe.holdout)
    _order(con, recipe)
    sources = _counts(con, recipe)
    _check_balance(con, sum(part.rows for part in parts), sources)
    _check_size(recipe, sources)
    return Decided(con, sources, sum(s["kept"] for s in sources.values()))


def _load(con: duckdb.DuckDBPyConnection, recipe: Recipe, parts: list[Part]) -> None:
    """Bring the measured parts into one table, with rank keys and the refusals that need the whole table."""
    files = sql_list([part.path for part in parts])
    con.execute(f"""
        CREATE TABLE measured AS
        SELECT *, list_position({files}, filename) AS part, file_row_number AS place,
               {"''" if recipe.dedup.scope == "all" else "source"} AS scope,
               ('0x' || left(sha256('{recipe.seed}:' || uid), 16))::UBIGINT AS rank_key
        FROM read_parquet({files}, filename = true, file_row_number = true, union_by_name = true)
    """)


def _refuse(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> None:
    """Give each sample that is refused by itself its reason: the first that applies, in order."""
    whens = [("nth > 1", "'duplicate_id'", "'id already seen at ' || first_at"), ("status <> ''", "status", "detail")]
    whens.append(("caption = ''", "'caption_missing'", "CASE WHEN len(caption_raw) > 0 THEN 'empty after cleaning' ELSE 'no caption' END"))
    for spec in recipe.filters:
        module, options = registry.get(FILTERS, spec["name"]), filter_options(spec)
        whens.append((f"({module.refuse(options)})", sql_text(spec["name"]), module.detail(options)))
    reason = " ".join(f"WHEN {condition} THEN {name}" for condition, name, _ in whens)
    detail = " ".join(f"WHEN {condition} THEN {text}" for condition, _, text in whens)
    con.execute(f"""
        CREATE TABLE decided AS
        SELECT * EXCLUDE (nth, first_at, status, detail), CASE {reason} ELSE '' END AS reason, CASE {detail} ELSE '' END AS detail,
               '' AS duplicate_of, '' AS decision, -1::BIGINT AS rank, ''::VARCHAR AS shard
        FROM (SELECT *, row_number() OVER same_id AS nth, first_value(input || ':' || row) OVER same_id AS first_at
              FROM measured WINDOW same_id AS (PARTITION BY uid ORDER BY part, place))
    """)
    con.execute("DROP TABLE measured")


def _exact(con: duckdb.DuckDBPyConnection) -> None:
    """Drop all but the preferred one of images with equal original bytes; captions of one image are no duplicates."""
    con.execute("""
        UPDATE decided SET reason = 'exact_duplicate', detail = 'same bytes', duplicate_of = w.winner
        FROM (SELECT part, place, first_value(image_id) OVER same AS winning_image, first_value(uid) OVER same AS winner
              FROM decided WHERE reason = '' AND original_sha256 <> ''
              WINDOW same AS (PARTITION BY scope, original_sha256 ORDER BY rank_key, uid)) w
        WHERE decided.part = w.part AND decided.place = w.place AND decided.image_id <> w.winning_image
    """)


def _placeholders(con: duckdb.DuckDBPyConnection, least: int) -> None:
    """Drop every copy of a low-information picture that stands under many ids and many unlike captions.

    Exact copies count too and go as placeholders themselves: a duplicate must name a survivor, and here is none.
    """
    con.execute(f"""
        CREATE TABLE popular AS
        SELECT scope, phash, bool_or({low_information()}) AS low, count(DISTINCT image_id) AS ids, count(DISTINCT caption) AS texts
        FROM decided WHERE reason IN ('', 'exact_duplicate') GROUP BY ALL HAVING ids >= {least} AND texts >= {least}
    """)
    con.execute("""
        UPDATE decided SET reason = 'placeholder', detail = p.ids || ' ids under one picture', duplicate_of = ''
        FROM popular p
        WHERE decided.reason IN ('', 'exact_duplicate') AND p.low AND p.phash = decided.phash AND p.scope = decided.scope
    """)


def _near(con: duckdb.DuckDBPyConnection, radius: int) -> None:
    """Drop images within the pHash radius of a kept, preferred one; low-information images stay out of it."""
    import numpy as np
    import pyarrow as pa

    images = con.sql(f"""
        SELECT scope, image_id, any_value(phash) AS phash, min(uid) AS uid, min(rank_key) AS rank_key
        FROM decided WHERE reason = '' AND NOT {low_information()} GROUP BY scope, image_id
        ORDER BY scope, rank_key, uid
    """).to_arrow_table()
    scopes = np.asarray(images["scope"].to_pylist(), dtype=object)
    hashes = images["phash"].to_numpy()
    winner = np.full(len(hashes), -1, np.int64)
    for scope in sorted(set(scopes)):
        places = np.flatnonzero(scopes == scope)
        found = near_duplicates(hashes[places], radius)
        winner[places] = np.where(found >= 0, places[found], -1)
    dropped = np.flatnonzero(winner >= 0)
    lost, kept = images.take(pa.array(dropped)), images.take(pa.array(winner[dropped]))
    losers = pa.table({
        "image_id": lost["image_id"], "scope": lost["scope"], "winner": kept["uid"],
        "distance": np.bitwise_count(hashes[dropped] ^ hashes[winner[dropped]]).astype(np.int32),
    })  # fmt: skip
    con.register("losers", losers)
    con.execute("""
        UPDATE decided SET reason = 'near_duplicate', detail = l.distance || ' of 64 bits differ', duplicate_of = l.winner
        FROM losers l WHERE decided.reason = '' AND decided.image_id = l.image_id AND decided.scope = l.scope
    """)
    con.unregister("losers")
    if len(dropped) > ALARM_SHARE * max(1, len(hashes)) and len(hashes) > 100:
        warn(
            f"near duplicates drop {len(dropped):,} of {len(hashes):,} images: is the radius {radius} too wide, or is the pool all copies?"
        )


def _settle_winners(con: duckdb.DuckDBPyConnection) -> None:
    """Let `duplicate_of` name a survivor: an exact copy of an image that then went as a near duplicate follows it."""
    con.execute("""
        UPDATE decided SET duplicate_of = w.duplicate_of FROM decided w
        WHERE decided.reason = 'exact_duplicate' AND w.uid = decided.duplicate_of AND w.reason = 'near_duplicate'
    """)


def _merge_captions(con: duckdb.DuckDBPyConnection) -> None:
    """Let the kept copy of a picture that stands under many captions, and is no placeholder, carry them all."""
    con.execute("""
        UPDATE decided SET captions = m.captions
        FROM (SELECT w.uid, list_distinct(flatten(list(d.captions ORDER BY d.uid <> w.uid, d.rank_key, d.uid))) AS all_of_them,
                     list_sort(all_of_them) AS captions
              FROM decided d JOIN popular p ON p.phash = d.phash AND p.scope = d.scope AND NOT p.low
              JOIN decided w ON w.reason = '' AND w.scope = d.scope AND (w.uid = d.uid OR w.uid = d.duplicate_of)
              GROUP BY w.uid) m
        WHERE decided.uid = m.uid AND decided.reason = ''
    """)


def _holdout(con: duckdb.DuckDBPyConnection, share: float) -> None:
    """Set aside a share of the survivors by a hash of the image's id, so that an image never changes sides."""
    if share > 0:
        con.execute(f"""
            UPDATE decided SET decision = 'holdout'
            WHERE reason = '' AND ('0x' || left(sha256('{HOLDOUT_SALT}:' || image_id), 16))::UBIGINT / 18446744073709551616.0 < {share}
        """)


def _order(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> None:
    """Rank the survivors and keep the first N; with quotas a source's k-th survivor stands at (k - 1/2) / quota."""
    quotas = {s.name: s.samples for s in recipe.sources if s.samples}
    if quotas:
        values = ", ".join(f"({sql_text(name)}, {quota})" for name, quota in quotas.items())
        con.execute(f"CREATE TEMP TABLE quotas AS SELECT * FROM (VALUES {values}) AS q(source, quota)")
        key = "(row_number() OVER (PARTITION BY source ORDER BY rank_key, uid) - 0.5)::DOUBLE / quota"
        ranked = f"SELECT part, place, uid, {key} AS key FROM decided JOIN quotas USING (source) WHERE reason = '' AND decision = ''"
    else:
        ranked = "SELECT part, place, uid, rank_key AS key FROM decided WHERE reason = '' AND decision = ''"
    limit = recipe.samples if isinstance(recipe.samples, int) else 2**62
    con.execute(f"""
        UPDATE decided SET rank = r.position, decision = CASE WHEN r.position < {limit} THEN 'kept' ELSE 'spare' END
        FROM (SELECT part, place, row_number() OVER (ORDER BY key, uid) - 1 AS position FROM ({ranked})) r
        WHERE decided.part = r.part AND decided.place = r.place
    """)
    con.execute("UPDATE decided SET decision = 'dropped' WHERE decision = ''")


def stages(recipe: Recipe) -> list[str]:
    """Return all reasons in the order in which decisions are made."""
    last = ["exact_duplicate", "placeholder", "near_duplicate"]
    first = [reason for reason in REASONS if reason not in last]
    return [*first, *(f["name"] for f in recipe.filters), *last]


def _counts(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> dict[str, dict[str, Any]]:
    rows = con.execute("SELECT source, decision, reason, count(*) FROM decided GROUP BY ALL").fetchall()
    order = {reason: i for i, reason in enumerate(stages(recipe))}
    result: dict[str, dict[str, Any]] = {}
    for spec in recipe.sources:
        own = [r for r in rows if r[0] == spec.name]
        dropped = {reason: n for _, decision, reason, n in own if decision == "dropped"}
        result[spec.name] = {
            "reader": spec.reader,
            "unit": "caption" if spec.captions == "each" else "record",
            "inputs": sum(r[3] for r in own),
            **{d: sum(r[3] for r in own if r[1] == d) for d in ("kept", "holdout", "spare")},
            "dropped": {reason: dropped[reason] for reason in sorted(dropped, key=order.__getitem__)},
        }
    return result


def _check_balance(con: duckdb.DuckDBPyConnection, inputs: int, sources: dict[str, dict[str, Any]]) -> None:
    """Inputs = kept + held out + spare + dropped, for every source and against what was measured."""
    for name, s in sources.items():
        accounted = s["kept"] + s["holdout"] + s["spare"] + sum(s["dropped"].values())
        if accounted != s["inputs"] or "" in s["dropped"]:
            raise RunError(f"{name}: the ledger does not balance: {s['inputs']:,} inputs, {accounted:,} accounted for")
    found = sum(s["inputs"] for s in sources.values())
    if found != inputs:
        raise RunError(f"the ledger does not balance: {inputs:,} rows measured, {found:,} decided")
    stray = scalar(
        con,
        """
        SELECT count(*) FROM decided d WHERE duplicate_of <> ''
        AND NOT EXISTS (SELECT 1 FROM decided w WHERE w.uid = d.duplicate_of AND w.reason = '')
    """,
    )
    if stray:
        raise RunError(f"{stray:,} duplicates name a sample that did not survive")


def _check_size(recipe: Recipe, sources: dict[str, dict[str, Any]]) -> None:
    """Refuse a size that the survivors do not reach, saying what dropped the rest."""
    wanted = {s.name: s.samples for s in recipe.sources if s.samples}
    for name, quota in wanted.items():
        survivors = sources[name]["kept"] + sources[name]["spare"]
        if survivors < quota:
            raise _too_few(f"{quota:,} samples of {name}", survivors, {name: sources[name]})
    survivors = sum(s["kept"] + s["spare"] for s in sources.values())
    if isinstance(recipe.samples, int) and survivors < recipe.samples:
        raise _too_few(f"{recipe.samples:,} samples", survivors, sources)
    if survivors == 0:
        raise _too_few("all samples", 0, sources)


def _too_few(asked: str, survivors: int, sources: dict[str, dict[str, Any]]) -> UsageError:
    reasons: dict[str, int] = {}
    for s in sources.values():
        for reason, n in s["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    held = sum(s["holdout"] for s in sources.values())
    inputs = sum(s["inputs"] for s in sources.values())
    parts = [f"{reason} {n:,}" for reason, n in sorted(reasons.items(), key=lambda r: -r[1])] + ([f"held out {held:,}"] if held else [])
    return UsageError(
        f"asked for {asked}; {survivors:,} of {inputs:,} inputs survive ({', '.join(parts) or 'nothing was dropped'})",
        f"at most {survivors:,}",
        "--samples all takes what there is; `curate measure` has kept the work, so a new try is quick",
    )


def waterfall(sources: dict[str, dict[str, Any]], order: list[str]) -> str:
    """Return the ledger as a text table: a column per source, a line per decision."""
    used = [r for r in order if any(r in s["dropped"] for s in sources.values())]
    rows: list[list[Any]] = [["inputs", *(s["inputs"] for s in sources.values())]]
    rows += [[f"- {reason}", *(s["dropped"].get(reason, 0) for s in sources.values())] for reason in used]
    rows += [
        [name, *(s[name] for s in sources.values())]
        for name in ("holdout", "spare", "kept")
        if name == "kept" or any(s[name] for s in sources.values())
    ]
    return table(["", *sources], rows)
