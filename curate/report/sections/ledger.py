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
from shards.shared import duplicates_between

if TYPE_CHECKING:
    import duckdb

    from curate.report.subject import Subject

WORDS = 20  # profane words listed by name
_SHOWN = ("source", "uid", "caption", "caption_raw", "detail", "picture", "twin")


def collect(subject: Subject) -> dict[str, Any]:
    """Count each build's ledger anew and check it against its manifest; sets without a ledger are left out.

    Raises:
        RunError: the counts disagree with the manifest, or do not add up.
    """
    from curate.report.subject import path_labels

    pairs = zip(subject.manifests, subject.labels, strict=True)
    alone = len(subject.manifests) == 1  # the report of one build must not depend on where it lies
    names = [""] if alone else path_labels([manifest.folder for manifest in subject.manifests])
    sets = [_of_build(i, manifest, labels) | {"name": names[i]} for i, (manifest, labels) in enumerate(pairs) if has_ledger(manifest)]
    return {"sets": sets} if sets else {}


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """A waterfall is a table with bars: there is no chart."""
    return {}


def example_id(at: int, nr: int) -> str:
    """Return the name of the picture of row `nr` of a set's examples."""
    return f"example/{at}/{nr}"


def _of_build(at: int, manifest: Manifest, labels: dict[str, str]) -> dict[str, Any]:
    recipe = read_recipe(manifest.folder)
    examples = _shown(at, manifest, labels)
    with open_ledger(manifest) as con:
        sources = _sources(con, manifest, [f["name"] for f in recipe.get("filters", [])])
        entry = {
            "duplicates": _duplicates(con, examples),
            "placeholders": _placeholders(con, manifest, examples, labels),
            "profanity": _profanity(con, manifest, labels),
        }
    for source in sources:
        name, source["name"] = source["name"], labels.get(source["name"], source["name"])
        for drop in source["dropped"]:
            drop["examples"] = examples["dropped", name, drop["reason"]]
    pairs = [rows for key, rows in examples.items() if key[0] == "test" and len(rows) == 2]
    excluded = manifest.notes.get("excluded")
    return {
        "set": at + 1,
        "sources": sources,
        "total": _total(sources),
        "reasons": _reasons(sources),
        **entry,
        "excluded": excluded and {**excluded, "pairs": pairs},
        "overlap": manifest.notes.get("overlap"),
        "between": duplicates_between(manifest),
        "examples": bool(examples),
    }


def _shown(at: int, manifest: Manifest, labels: dict[str, str]) -> defaultdict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the rows of the build's examples by what they show: ("dropped", source, reason), ("group", survivor), ("test", pair)."""
    examples: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    leaders: dict[int, str] = {}
    dropped: dict[tuple[str, str, int], dict[str, Any]] = {}
    twins: dict[tuple[str, str, int], dict[str, Any]] = {}
    for nr, row in enumerate(read_examples(manifest.folder)):
        values = {**row, "picture": example_id(at, nr), "source": labels.get(row["source"], row["source"]), "twin": None}
        entry = {key: values[key] for key in _SHOWN}
        if row["kind"] == "dropped":
            examples["dropped", row["source"], row["reason"]].append(entry)
        elif row["kind"] == "group":
            examples["group", leaders.setdefault(row["group"], row["uid"])].append(entry)
        elif row["kind"] == "test":
            examples["test", row["group"]].append(entry)
        elif row["kind"] == "twin":
            twins[row["source"], row["reason"], row["position"]] = {key: entry[key] for key in ("uid", "caption_raw", "picture")}
        if row["kind"] == "dropped":
            dropped[row["source"], row["reason"], row["position"]] = entry
    for place, twin in twins.items():
        if place in dropped:
            dropped[place]["twin"] = twin
    return examples


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


def _check(entry: dict[str, Any], of_manifest: dict[str, Any]) -> None:
    """Check that a source's counts add up and are the manifest's."""
    of_ledger = {"inputs": entry["inputs"], **{d: entry[d]["count"] for d in DECISIONS[:3]}}
    dropped = {d["reason"]: d["count"] for d in entry["dropped"]}
    if of_ledger["inputs"] != sum(of_ledger[d] for d in DECISIONS[:3]) + sum(dropped.values()):
        raise RunError(f"source {entry['name']}: the ledger has decisions beyond {', '.join(DECISIONS)}", advice="shards verify")
    expected = {k: of_manifest.get(k, 0) for k in of_ledger}
    expected_dropped = {k: v for k, v in of_manifest.get("dropped", {}).items() if v}
    if of_ledger != expected or dropped != expected_dropped:
        raise RunError(
            f"source {entry['name']}: the ledger counts {of_ledger}, dropped {dropped}",
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


def _reasons(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many samples each reason dropped, in all and from each source, in the order of the sources; most first."""
    counts = [{drop["reason"]: drop["count"] for drop in source["dropped"]} for source in sources]
    names = dict.fromkeys(name for of_source in counts for name in of_source)
    rows = [{"reason": name, "count": sum(of_source.get(name, 0) for of_source in counts)} for name in names]
    for row in rows:
        row["sources"] = [of_source.get(row["reason"], 0) for of_source in counts]
    return sorted(rows, key=lambda row: -row["count"])


def _duplicates(con: duckdb.DuckDBPyConnection, examples: dict[tuple[Any, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    groups = f"(SELECT duplicate_of AS survivor, count(*) + 1 AS size FROM ledger WHERE {DUPLICATE} GROUP BY survivor)"
    rows = con.execute(f"SELECT survivor, size FROM {groups} ORDER BY size DESC, survivor LIMIT {GROUPS}").fetchall()
    n, copies = con.execute(f"SELECT count(*), coalesce(sum(size - 1), 0)::BIGINT FROM {groups}").fetchall()[0]
    largest = [{"survivor": survivor, "size": size, "examples": examples["group", survivor]} for survivor, size in rows]
    return {"groups": n, "copies": copies, "largest": largest}


def _placeholders(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, examples: dict[tuple[Any, ...], list[dict[str, Any]]], labels: dict[str, str]
) -> dict[str, Any]:
    """Return how many samples showed a placeholder, the pictures that the manifest names, and examples of each source."""
    rows = con.execute("SELECT source, count(*) FROM ledger WHERE reason = 'placeholder' GROUP BY ALL ORDER BY 1").fetchall()
    return {
        "samples": sum(n for _, n in rows),
        "sources": [{"source": labels.get(s, s), "count": n, "examples": examples["dropped", s, "placeholder"]} for s, n in rows],
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
