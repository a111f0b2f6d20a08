"""The ledger in numbers: what each source gave, what dropped it, and whether it adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.listing import scalar
from curate.recipe import Recipe
from shards.core.console import counted, table
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
        of_source = [r for r in rows if r[0] == spec.name]
        dropped = {reason: n for _, decision, reason, n in of_source if decision == "dropped"}
        result[spec.name] = {
            "reader": spec.reader,
            "unit": "caption" if spec.captions == "each" else "record",
            "inputs": sum(r[3] for r in of_source),
            **{d: sum(r[3] for r in of_source if r[1] == d) for d in ("kept", "holdout", "spare")},
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


def warnings(con: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """Return how many pictures were measured with something passed over and are not dropped, and one of them in words."""
    rows = con.execute("""
        SELECT count(*), coalesce(min(source_id || ': ' || detail), '')
        FROM (SELECT place FROM decided WHERE decision <> 'dropped')
        JOIN (SELECT place, source_id, detail FROM measured WHERE status = '' AND detail <> '') USING (place)
    """).fetchall()
    return int(rows[0][0]), str(rows[0][1])


def check_balance(con: duckdb.DuckDBPyConnection, inputs: int, sources: dict[str, dict[str, Any]]) -> None:
    """Inputs = kept + held out + spare + dropped, for every source and against what was measured.

    Raises:
        RunError: they are not (a bug of ours, never of the data).
    """
    for name, s in sources.items():
        accounted = s["kept"] + s["holdout"] + s["spare"] + sum(s["dropped"].values())
        if accounted != s["inputs"] or "" in s["dropped"]:
            raise RunError(f"{name}: the ledger does not balance: {s['inputs']:,} inputs, {accounted:,} accounted for")
    total = sum(s["inputs"] for s in sources.values())
    if total != inputs:
        raise RunError(f"the ledger does not balance: {inputs:,} rows measured, {total:,} decided")
    stray = scalar(con, "SELECT count(*) FROM drops ANTI JOIN alive ON alive.place = drops.winner WHERE winner IS NOT NULL")
    if stray:
        raise RunError(f"{stray:,} duplicates name a sample that did not survive")


def check_size(recipe: Recipe, sources: dict[str, dict[str, Any]]) -> None:
    """Refuse a size that the survivors do not reach, saying what dropped the rest."""
    _check_quotas({s.name: s.samples for s in recipe.sources if s.samples}, sources)
    survivors = sum(s["kept"] + s["spare"] for s in sources.values())
    if isinstance(recipe.samples, int) and survivors < recipe.samples:
        allowed = f"at most {survivors:,}" if survivors else "at least one survivor"
        raise _too_few(counted(recipe.samples, "sample"), allowed, sources, "--samples all takes what there is")
    if survivors == 0:
        raise _too_few(
            "all samples", "at least one survivor", sources, "a reason that takes all is an option of the recipe, or another kind of input"
        )


def _check_quotas(wanted: dict[str, int], sources: dict[str, dict[str, Any]]) -> None:
    """Refuse quotas that their sources do not reach, all of them in one message, and say which total keeps the shares."""
    there = {name: sources[name]["kept"] + sources[name]["spare"] for name in wanted}
    short = [name for name, quota in wanted.items() if there[name] < quota]
    if not short:
        return
    total = sum(wanted.values())
    most = min(there[name] * total // quota for name, quota in wanted.items())
    asked = " and ".join(f"{counted(wanted[name], 'sample')} of {name}" for name in short)
    allowed = " and ".join(f"at most {there[name]:,} of {name}" for name in short)
    listed = f"{len(wanted)} sources" if len(wanted) > 1 else "source"
    advice = f"{counted(most, 'sample')} in all, in these shares of the {listed}" if most else "another source, or one less"
    raise _too_few(asked, allowed, {name: sources[name] for name in short}, advice, f" of {' and '.join(short)}")


def _too_few(asked: str, allowed: str, sources: dict[str, dict[str, Any]], advice: str, whose: str = "") -> UsageError:
    survivors = sum(s["kept"] + s["spare"] for s in sources.values())
    reasons: dict[str, int] = {}
    for s in sources.values():
        for reason, n in s["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    held = sum(s["holdout"] for s in sources.values())
    inputs = sum(s["inputs"] for s in sources.values())
    parts = [f"{reason} {n:,}" for reason, n in sorted(reasons.items(), key=lambda r: -r[1])] + ([f"held out {held:,}"] if held else [])
    return UsageError(
        f"asked for {asked}; {survivors:,} of {counted(inputs, 'input')}{whose} survive ({', '.join(parts) or 'nothing was dropped'})",
        allowed,
        f"{advice}; the work folder has kept what was measured, so a new try is quick",
    )


def by_row(sources: dict[str, dict[str, Any]], order: list[str]) -> dict[str, dict[str, int]]:
    """Return the ledger as counts by row, then by source: inputs, a row for each reason that took any, what became of the rest."""
    used = [r for r in order if any(r in s["dropped"] for s in sources.values())]
    rows = {"inputs": {name: s["inputs"] for name, s in sources.items()}}
    rows |= {f"- {reason}": {name: s["dropped"].get(reason, 0) for name, s in sources.items()} for reason in used}
    for decision in ("holdout", "spare", "kept"):
        if decision == "kept" or any(s[decision] for s in sources.values()):
            rows[decision] = {name: s[decision] for name, s in sources.items()}
    return rows


def waterfall(sources: dict[str, dict[str, Any]], order: list[str]) -> str:
    """Return the ledger as a text table: a column per source, a line per decision."""
    return table(["", *sources], [[name, *row.values()] for name, row in by_row(sources, order).items()])
