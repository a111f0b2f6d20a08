"""Write a build's report: report.html to read, report.json with every number on it."""

from __future__ import annotations

import json
from typing import Any

from curate.report.config import ReportConfig
from shards.core import console, fs
from shards.manifest import Manifest, read_manifest


def write_report(folder: str, manifest: Manifest | None = None) -> None:
    """Write report.html and report.json into a build's folder; equal builds give equal bytes.

    `manifest` is given by a build that has not saved it yet: the manifest goes last.

    Raises:
        UsageError: no manifest or no ledger in the folder.
        RunError: ledger, sidecars and manifest disagree.
    """
    _write(folder, manifest or read_manifest(folder), fs.join(folder, "report.html"))


def report(config: ReportConfig) -> int:
    """Run `curate report`: write the report again, and print the waterfall, or all numbers with --json."""
    page = config.output or fs.join(config.out, "report.html")
    values = _write(config.out, read_manifest(config.out), page)
    console.emit(values if config.json else waterfall(values))
    console.say(f"report: {page}")
    return 0


def _write(folder: str, manifest: Manifest, page: str) -> dict[str, Any]:
    from curate.report.examples import read_examples
    from curate.report.numbers import collect
    from curate.report.page import render

    values = collect(manifest)
    fs.write_text(page.removesuffix(".html") + ".json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    fs.write_text(page, render(values, read_examples(manifest.folder)))
    return values


def waterfall(values: dict[str, Any]) -> str:
    """Return the ledger of a report as a text table: a row per source and step."""
    rows: list[tuple[str, str, int, str]] = []
    for source in values["sources"]:
        share = f"{1 if source['inputs'] else 0:.1%}"
        rows.append((source["name"], "inputs", source["inputs"], share))
        rows += [("", f"dropped: {d['reason']}", d["count"], f"{d['share']:.1%}") for d in source["dropped"]]
        rows += [("", name, source[name]["count"], f"{source[name]['share']:.1%}") for name in ("holdout", "spare", "kept")]
    return console.table(("source", "step", "samples", "share"), rows)
