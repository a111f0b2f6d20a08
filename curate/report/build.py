"""Write a report: report.html to read, report.json with every number on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from curate.report.config import ReportConfig
from shards.core import console, fs
from shards.core.engines.local import default_workers
from shards.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from curate.report.subject import Subject


def write_report(folder: str, manifest: Manifest | None = None, workers: int = 1, engine: str = "local") -> None:
    """Write report.html and report.json into a build's folder; equal builds give equal bytes.

    `manifest` is given by a build that has not saved it yet: the manifest goes last.

    Raises:
        UsageError: no manifest in the folder.
        RunError: ledger, sidecars and manifest disagree.
    """
    from curate.report.subject import open_subject

    with open_subject([manifest or read_manifest(folder)], workers, engine) as subject:
        _write(subject, fs.join(folder, "report.html"), workers, engine)


def report(config: ReportConfig) -> int:
    """Run `curate report`: write the page, and print the ledger, or all numbers with --json."""
    from curate.report.subject import open_subject

    workers = config.workers or default_workers()
    page = config.output or fs.join(config.sets[0], "report.html")
    with open_subject([read_manifest(path) for path in config.sets], workers, config.engine) as subject:
        values = _write(subject, page, workers, config.engine)
    console.emit(values if config.json else waterfall(values))
    console.say(f"report: {page}")
    return 0


def _write(subject: Subject, page: str, workers: int, engine: str) -> dict[str, Any]:
    from curate.report.numbers import collect
    from curate.report.page import render
    from curate.report.pictures import gather

    values = collect(subject)
    fs.write_text(page.removesuffix(".html") + ".json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    fs.write_text(page, render(values, gather(subject, values, workers, engine)))
    return values


def waterfall(values: dict[str, Any]) -> str:
    """Return the ledgers of a report as a text table: a row per source and step."""
    rows: list[tuple[str, str, int, str]] = []
    for source in [source for found in values["ledger"].get("sets", []) for source in found["sources"]]:
        share = f"{1 if source['inputs'] else 0:.1%}"
        rows.append((source["name"], "inputs", source["inputs"], share))
        rows += [("", f"dropped: {d['reason']}", d["count"], f"{d['share']:.1%}") for d in source["dropped"]]
        rows += [("", name, source[name]["count"], f"{source[name]['share']:.1%}") for name in ("holdout", "spare", "kept")]
    return console.table(("source", "step", "samples", "share"), rows)
