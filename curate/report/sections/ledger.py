"""Where every input went: each set's ledger as a waterfall, with examples; duplicates, placeholders, profanity, test sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from curate.report.examples import DUPLICATE, GROUPS, read_examples
from curate.report.histograms import share
from curate.report.ledgers import has_ledger, open_ledger
from curate.report.recipe import read_recipe
from shards.core import registry
from shards.core.errors import RunError
from shards.manifest import Manifest
from shards.schema import DECISIONS, REASONS, RELATIVE_REASONS

if TYPE_CHECKING:
    import duckdb

    from curate.report.subject import Subject

WORDS = 20  # profane words listed by name
_SHOWN = ("source", "uid", "caption", "caption_raw", "detail", "picture")


def collect(subject: Subject) -> dict[str, Any]:
    """Count each build's ledger anew and check it against its manifest; sets without a ledger are left out.

    Raises:
        RunError: the counts disagree with the manifest, or do not add up.
    """
    pairs = zip(subject.manifests, subject.labels, strict=True)
    sets = [_of_build(i, manifest, labels) for i, (manifest, labels) in enumerate(pairs) if has_ledger(manifest)]
    return {"sets": sets} if sets else {}


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """A waterfall is a table with bars: there is no chart."""
    return {}


def example_id(at: int, nr: int) -> str:
    """Return the name of the picture of row `nr` of a set's examples."""
    return f"example/{at}/{nr}"


def _of_build(at: int, manifest: Manifest, labels: dict[str, str]) -> dict[str, Any]:
    recipe = read_recipe(manifest.folder)
    shown = _shown(at, manifest, labels)
    with open_ledger(manifest) as con:
        sources = _sources(con, manifest, [f["name"] for f in recipe.get("filters", [])])
        found = {
            "duplicates": _duplicates(con, shown),
            "placeholders": _placeholders(con, manifest, shown, labels),
            "profanity": _profanity(con, manifest, labels),
        }
    for source in sources:
        name, source["name"] = source["name"], labels.get(source["name"], source["name"])
        for drop in source["dropped"]:
            drop["examples"] = shown["dropped", name, drop["reason"]]
    pairs = [rows for key, rows in shown.items() if key[0] == "test" and len(rows) == 2]
    excluded = manifest.notes.get("excluded")
    return {
        "set": at + 1,
        "sources": sources,
        "total": _total(sources),
        **found,
        "excluded": excluded and {**excluded, "pairs": pairs},
        "overlap": manifest.notes.get("overlap"),
        "examples": bool(shown),
    }


def _shown(at: int, manifest: Manifest, labels: dict[str, str]) -> defaultdict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the rows of the build's examples by what they show: ("dropped", source, reason), ("group", survivor), ("test", pair)."""
    shown: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    leaders: dict[int, str] = {}
    for nr, row in enumerate(read_examples(manifest.folder)):
        values = {**row, "picture": example_id(at, nr), "source": labels.get(row["source"], row["source"])}
        entry = {key: values[key] for key in _SHOWN}
        if row["kind"] == "dropped":
            shown["dropped", row["source"], row["reason"]].append(entry)
        elif row["kind"] == "group":
            shown["group", leaders.setdefault(row["group"], row["uid"])].append(entry)
        elif row["kind"] == "test":
            shown["test", row["group"]].append(entry)
    return shown


def _sources(con: duckdb.DuckDBPyConnection, manifest: Manifest, filters: list[str]) -> list[dict[str, Any]]:
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
        dropped.append({"reason": reason, "why": why(reason), "count": n, "share": share(n, inputs), "left": left})
    entry: dict[str, Any] = {"name": name, "inputs": inputs, "dropped": dropped, "dropped_count": sum(d["count"] for d in dropped)}
    for decision in DECISIONS[:3]:
        n = counts.get((decision, ""), 0)
        entry[decision] = {"count": n, "share": share(n, inputs)}
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
        total[decision] = {"count": n, "share": share(n, inputs)}
    n = sum(s["dropped_count"] for s in sources)
    return {**total, "dropped": {"count": n, "share": share(n, inputs)}}


def _duplicates(con: duckdb.DuckDBPyConnection, shown: dict[tuple[Any, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    groups = f"(SELECT duplicate_of AS survivor, count(*) + 1 AS size FROM ledger WHERE {DUPLICATE} GROUP BY survivor)"
    rows = con.execute(f"SELECT survivor, size FROM {groups} ORDER BY size DESC, survivor LIMIT {GROUPS}").fetchall()
    n, copies = con.execute(f"SELECT count(*), coalesce(sum(size - 1), 0)::BIGINT FROM {groups}").fetchall()[0]
    largest = [{"survivor": survivor, "size": size, "examples": shown["group", survivor]} for survivor, size in rows]
    return {"groups": n, "copies": copies, "largest": largest}


def _placeholders(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, shown: dict[tuple[Any, ...], list[dict[str, Any]]], labels: dict[str, str]
) -> dict[str, Any]:
    """Return how many samples showed a placeholder, the pictures that the manifest names, and examples of each source."""
    rows = con.execute("SELECT source, count(*) FROM ledger WHERE reason = 'placeholder' GROUP BY ALL ORDER BY 1").fetchall()
    return {
        "samples": sum(n for _, n in rows),
        "sources": [{"source": labels.get(s, s), "count": n, "examples": shown["dropped", s, "placeholder"]} for s, n in rows],
        "pictures": [{**p, "source": labels.get(p["source"], p["source"])} for p in manifest.notes.get("placeholders", [])],
    }


def _profanity(con: duckdb.DuckDBPyConnection, manifest: Manifest, labels: dict[str, str]) -> dict[str, Any]:
    """Return what the profanity filter removed: by the words it found, and by the class of labelled samples."""
    query = f"""
        SELECT word, count(*) AS n FROM (SELECT unnest(string_split(detail, ', ')) AS word FROM ledger WHERE reason = 'profanity')
        GROUP BY word ORDER BY n DESC, word LIMIT {WORDS}
    """
    samples = con.execute("SELECT count(*) FROM ledger WHERE reason = 'profanity'").fetchall()[0][0]
    removed = [row for row in manifest.notes.get("removed_by_class", []) if row["reason"] == "profanity"]
    return {
        "samples": samples,
        "words": [{"word": word, "count": n} for word, n in con.execute(query).fetchall()],
        "classes": [{**row, "source": labels.get(row["source"], row["source"])} for row in removed],
    }
