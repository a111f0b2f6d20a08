"""The tables of a report as CSV files, one row for one number or a few: for spreadsheets, pandas and R."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from shards.core import fs

Row = dict[str, Any]


def write_csv(values: dict[str, Any], folder: str) -> list[str]:
    """Write the tables of a report into a folder, `NAME.csv`; tables without rows are left out. Returns the names."""
    fs.make_dirs(folder)
    written = []
    for name, rows in tables(values).items():
        if rows:
            out = io.StringIO()
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            fs.write_text(fs.join(folder, f"{name}.csv"), out.getvalue())
            written.append(f"{name}.csv")
    return written


def tables(values: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of each table; all rows of a table have the same columns."""
    measured = [*_measured(values["captions"]), *_measured(values["images"])]
    return {
        "ledger": list(_ledger(values["ledger"])),
        "words": _listed(values["vocabulary"].get("table")),
        "commonest": list(_commonest(values["vocabulary"])),
        "apart": values["apart"].get("words", []),
        "quantiles": [{k: v for k, v in row.items() if k != "histogram"} for row in measured],
        "histograms": [bin for row in measured for bin in _bins(row)],
        "shares": [*_shares(values["captions"]), *_shares(values["images"])],
        "repeated": list(_repeated(values["captions"])),
        "concepts": list(_concepts(values["concepts"])),
    }


def _ledger(ledger: dict[str, Any]) -> Iterator[Row]:
    for build in ledger.get("sets", []):
        for source in build["sources"]:
            front = {"set": build["name"], "source": source["name"]}
            yield {**front, "decision": "inputs", "reason": "", "count": source["inputs"], "share": float(bool(source["inputs"]))}
            for drop in source["dropped"]:
                yield {**front, "decision": "dropped", "reason": drop["reason"], "count": drop["count"], "share": drop["share"]}
            for decision in ("holdout", "spare", "kept"):
                yield {**front, "decision": decision, "reason": "", **source[decision]}


def _listed(table: dict[str, Any] | None) -> list[Row]:
    """Return the rows of a table of the page: {"columns": [{"name"}, …], "rows": [[…], …]}."""
    if table is None:
        return []
    names: list[str] = []
    for column in table["columns"]:
        names.append(column["name"] if column["name"] not in names else f"source {column['name']}")
    return [dict(zip(names, row, strict=True)) for row in table["rows"]]


def _commonest(vocabulary: dict[str, Any]) -> Iterator[Row]:
    for source, found in vocabulary.get("sources", {}).items():
        for kind, key in (("words", "word"), ("bigrams", "bigram")):
            for stop_words, rows in (("with", found[kind]["all"]), ("without", found[kind]["content"])):
                for rank, row in enumerate(rows, 1):
                    front = {"source": source, "kind": key, "stop_words": stop_words, "rank": rank}
                    yield {**front, "text": row[key], "count": row["count"]}


def _measured(section: dict[str, Any]) -> Iterator[Row]:
    """Yield what is known of each measure (n, mean, quantiles and histogram) of each source."""
    names = ("n", "mean", "min", "p5", "p25", "median", "p75", "p95", "max", "histogram")
    for source, found in section.get("sources", {}).items():
        for measure, one in found.items():
            if isinstance(one, dict) and "histogram" in one:
                yield {"source": source, "measure": measure, **{name: one[name] for name in names}}


def _bins(row: Row) -> Iterator[Row]:
    edges, counts = row["histogram"]["edges"], row["histogram"]["counts"]
    for i, count in enumerate(counts):
        yield {"source": row["source"], "measure": row["measure"], "from": edges[i], "below": edges[i + 1], "count": count}


def _shares(section: dict[str, Any]) -> Iterator[Row]:
    """Yield what is counted by class: languages (estimated, with their interval), readability, formats."""
    exact = {"low": "", "high": ""}
    for source, found in section.get("sources", {}).items():
        front = {"source": source}
        for row in (found.get("language") or {}).get("shares", []):
            numbers = {name: row[name] for name in ("count", "share", "low", "high")}
            yield {**front, "kind": "language", "class": row["code"], **numbers}
        for row in (found.get("readability") or {}).get("classes", []):
            yield {**front, "kind": "readability", "class": row["class"], "count": row["count"], "share": row["share"], **exact}
        for row in found.get("formats") or []:
            yield {**front, "kind": "format", "class": row["format"], "count": row["count"], "share": row["share"], **exact}


def _repeated(captions: dict[str, Any]) -> Iterator[Row]:
    for source, found in captions.get("sources", {}).items():
        for row in (found["duplicates"] or {}).get("most", []):
            yield {"source": source, **row}


def _concepts(concepts: dict[str, Any]) -> Iterator[Row]:
    for found in concepts.get("sets", []):
        for row in _listed(found["table"]):
            yield {"set": found["name"], **row}
