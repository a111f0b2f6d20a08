"""Every number of a report, as one plain dictionary: what report.json holds and the page prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from curate.report import captions
from curate.report.examples import DUPLICATE, GROUPS, read_examples
from curate.report.tables import open_tables
from shards.core import fs, registry
from shards.core.errors import RunError
from shards.manifest import Manifest
from shards.schema import DECISIONS, REASONS, RELATIVE_REASONS

if TYPE_CHECKING:
    import duckdb

FORMAT, FORMAT_VERSION = "provender-report", 1


def collect(manifest: Manifest) -> dict[str, Any]:
    """Count a finished build anew, from its ledger and sidecars, and check that against its manifest.

    Raises:
        RunError: the counts disagree with the manifest, or do not add up.
    """
    recipe = read_recipe(manifest.folder)
    with open_tables(manifest) as con:
        sources = _ledger(con, manifest, [f["name"] for f in recipe.get("filters", [])])
        rows = con.execute("SELECT count(*) FROM kept").fetchone()
        if rows is None or rows[0] != manifest.samples:
            raise RunError(
                f"{manifest.folder}: the sidecars have {rows} rows", f"{manifest.samples}, as the manifest says", "shards verify"
            )
        names = [source["name"] for source in sources]
        report: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "build": _build(manifest),
            "recipe": recipe,
            "sources": sources,
            "total": _total(sources),
            "lengths": captions.lengths(con, names),
            "words": captions.top_words(con, names),
            "duplicates": _duplicates(con),
            "excluded": manifest.notes.get("excluded"),
        }
    report["examples"] = [{k: v for k, v in row.items() if k != "thumbnail"} for row in read_examples(manifest.folder)]
    return report


def _build(manifest: Manifest) -> dict[str, Any]:
    return {
        "samples": manifest.samples,
        "bytes": manifest.bytes,
        "shards": len(manifest.shards),
        "seed": manifest.seed,
        "members": list(manifest.members),
        "builder": manifest.builder,
        "manifest": manifest.digest,
        "recipe": manifest.recipe,
        "table": manifest.table,
    }


def read_recipe(folder: str) -> dict[str, Any]:
    """Return the resolved recipe without paths, which belong to one machine; empty where the folder has none."""
    import yaml

    path = fs.join(folder, "recipe.yaml")
    recipe = yaml.safe_load(fs.read_text(path)) if fs.exists(path) else {}
    return _without_paths(recipe or {})


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_paths(v) for k, v in value.items() if k not in ("input", "images")}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value):
        return value.rstrip("/").rpartition("/")[2]
    return value


def _ledger(con: duckdb.DuckDBPyConnection, manifest: Manifest, filters: list[str]) -> list[dict[str, Any]]:
    query = "SELECT source, decision, coalesce(reason, ''), count(*) FROM ledger GROUP BY ALL"
    counts: dict[str, dict[tuple[str, str], int]] = {name: {} for name in manifest.sources}
    for source, decision, reason, n in con.execute(query).fetchall():
        key = (decision, reason if decision == "dropped" else "")
        per_source = counts.setdefault(source, {})
        per_source[key] = per_source.get(key, 0) + n
    entries = [_entry(name, per_source, filters) for name, per_source in counts.items()]
    for entry in entries:
        _check(entry, manifest.sources.get(entry["name"], {}))
    return entries


def _entry(name: str, counts: dict[tuple[str, str], int], filters: list[str]) -> dict[str, Any]:
    inputs = sum(counts.values())
    left, dropped = inputs, []
    for reason in in_order({reason for decision, reason in counts if decision == "dropped"}, filters):
        n = counts["dropped", reason]
        left -= n
        dropped.append({"reason": reason, "why": why(reason), "count": n, "share": _share(n, inputs), "left": left})
    entry: dict[str, Any] = {"name": name, "inputs": inputs, "dropped": dropped}
    for decision in DECISIONS[:3]:
        n = counts.get((decision, ""), 0)
        entry[decision] = {"count": n, "share": _share(n, inputs)}
    return entry


def _check(entry: dict[str, Any], said: dict[str, Any]) -> None:
    """Check that a source's counts add up and are the manifest's."""
    found = {"inputs": entry["inputs"], **{d: entry[d]["count"] for d in DECISIONS[:3]}}
    dropped = {d["reason"]: d["count"] for d in entry["dropped"]}
    if found["inputs"] != sum(found[d] for d in DECISIONS[:3]) + sum(dropped.values()):
        raise RunError(f"source {entry['name']}: the ledger has decisions beyond {', '.join(DECISIONS)}", advice="shards verify")
    expected = {k: said.get(k, 0) for k in found}
    expected_dropped = {k: v for k, v in said.get("dropped", {}).items() if v}
    if found != expected or dropped != expected_dropped:
        raise RunError(
            f"source {entry['name']}: the ledger counts {found}, dropped {dropped}",
            f"{expected}, dropped {expected_dropped}, as the manifest says",
            "shards verify",
        )


def _share(n: int, of: int) -> float:
    return round(n / of, 6) if of else 0.0


def in_order(reasons: Iterable[str], filters: list[str]) -> list[str]:
    """Return reasons in the order in which a build decides: what reading found, the filters of the recipe, duplicates."""
    first = [r for r in REASONS if r not in RELATIVE_REASONS]
    present = set(reasons)
    known = [*first, *filters, *RELATIVE_REASONS]
    others = sorted(present - set(known))
    return [r for r in dict.fromkeys([*first, *filters, *others, *RELATIVE_REASONS]) if r in present]


def why(reason: str) -> str:
    """Return what a reason means, in words: the closed list's, or the first line of the filter's docstring."""
    if reason in REASONS:
        return REASONS[reason]
    if reason in registry.names("curate.filters"):
        return registry.summary("curate.filters", reason)
    return ""


def _total(sources: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = sum(s["inputs"] for s in sources)
    total: dict[str, Any] = {"inputs": inputs}
    for decision in DECISIONS[:3]:
        n = sum(s[decision]["count"] for s in sources)
        total[decision] = {"count": n, "share": _share(n, inputs)}
    n = sum(d["count"] for s in sources for d in s["dropped"])
    return {**total, "dropped": {"count": n, "share": _share(n, inputs)}}


def _duplicates(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    groups = f"(SELECT duplicate_of AS survivor, count(*) + 1 AS size FROM ledger WHERE {DUPLICATE} GROUP BY survivor)"
    rows = con.execute(f"SELECT survivor, size FROM {groups} ORDER BY size DESC, survivor LIMIT {GROUPS}").fetchall()
    n, copies = con.execute(f"SELECT count(*), coalesce(sum(size - 1), 0)::BIGINT FROM {groups}").fetchall()[0]
    return {"groups": n, "copies": copies, "largest": [{"survivor": survivor, "size": size} for survivor, size in rows]}
