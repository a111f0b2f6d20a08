"""The ledger in numbers: what each source gave, what dropped it, and whether it adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.listing import scalar
from curate.recipe import Recipe
from shards.core.console import table
from shards.core.errors import RunError, UsageError
from shards.schema import REASONS, RELATIVE_REASONS

if TYPE_CHECKING:
    import duckdb


def stages(recipe: Recipe) -> list[str]:
    """Return all reasons in the order in which decisions are made."""
    first = [reason for reason in REASONS if reason not in RELATIVE_REASONS]
    return [*first, *(f["name"] for f in recipe.filters), *RELATIVE_REASONS]


def count_decisions(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return inputs, kept, held out, spare, and dropped by reason, of each source."""
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


def removed_by_class(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return how many samples of each class of labelled sources each reason dropped: reason, source, class, count."""
    rows = con.execute("""
        SELECT reason::VARCHAR AS reason, source::VARCHAR AS source, class_name, count(*) AS n
        FROM (SELECT place, reason, source FROM decided WHERE decision = 'dropped')
        JOIN (SELECT place, class_name FROM measured WHERE class_name <> '') USING (place)
        GROUP BY ALL ORDER BY reason, source, n DESC, class_name
    """).fetchall()
    return [dict(zip(("reason", "source", "class", "count"), row, strict=True)) for row in rows]


def placeholders(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Return the pictures that went as placeholders, most samples first: source, phash (16 hex digits), samples."""
    rows = con.execute("""
        SELECT source::VARCHAR AS source, lower(lpad(to_hex(phash), 16, '0')) AS phash, count(*) AS n
        FROM (SELECT place, source FROM decided WHERE reason = 'placeholder')
        JOIN (SELECT place, phash FROM measured) USING (place)
        GROUP BY ALL ORDER BY n DESC, source, phash
    """).fetchall()
    return [dict(zip(("source", "phash", "samples"), row, strict=True)) for row in rows]


def check_balance(con: duckdb.DuckDBPyConnection, inputs: int, sources: dict[str, dict[str, Any]]) -> None:
    """Inputs = kept + held out + spare + dropped, for every source and against what was measured.

    Raises:
        RunError: they are not (a bug of ours, never of the data).
    """
    for name, s in sources.items():
        accounted = s["kept"] + s["holdout"] + s["spare"] + sum(s["dropped"].values())
        if accounted != s["inputs"] or "" in s["dropped"]:
            raise RunError(f"{name}: the ledger does not balance: {s['inputs']:,} inputs, {accounted:,} accounted for")
    found = sum(s["inputs"] for s in sources.values())
    if found != inputs:
        raise RunError(f"the ledger does not balance: {inputs:,} rows measured, {found:,} decided")
    stray = scalar(con, "SELECT count(*) FROM drops ANTI JOIN alive ON alive.place = drops.winner WHERE winner IS NOT NULL")
    if stray:
        raise RunError(f"{stray:,} duplicates name a sample that did not survive")


def check_size(recipe: Recipe, sources: dict[str, dict[str, Any]]) -> None:
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
