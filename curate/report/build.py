"""Write a report: report.html to read, report.json with every number on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from curate import plugins
from curate.report.config import ReportConfig, check_page
from curate.sources.base import several
from shards.core import console, fs
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.manifest import NAME, Manifest, read_manifest

if TYPE_CHECKING:
    from curate.recipe import SourceSpec
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
    """Run `curate report`: write the page or the tables, or print the report or the captions that say a word.

    Exit code 1 where nobody says the word of --word.
    """
    from curate.report.sayings import bigrams_of, print_word
    from curate.report.subject import open_subject
    from curate.report.wordcount import tokens

    workers, sources = config.workers or default_workers(), _sources(config)
    if not (config.sets or sources):
        raise UsageError(
            "nothing to report on", "builds, subsets or folders of tars; or native metadata: --source and --input, or --config"
        )
    _check(config)
    options: dict[str, Any] = {
        "sources": sources,
        "limit": config.limit,
        "concepts": config.concepts,
        "work": config.work,
        "most": config.sample,
    }
    if config.word is not None:
        options["bigrams"] = bigrams_of(tokens(config.word))
    with open_subject(config.sets, workers, config.engine, **options) as subject:
        if config.word is not None:
            return print_word(subject, config.word, config.most, config.json)
        _print(config, _report(config, subject, workers))
    return 0


def _check(config: ReportConfig) -> None:
    """Refuse what could not be done, or would be ignored, before anything is counted.

    Raises:
        UsageError: of a flag.
    """
    if config.output:
        check_page(config.output)
    if config.csv and not fs.is_remote(config.csv) and fs.exists(config.csv) and not fs.is_dir(config.csv):
        raise UsageError(f"--csv {config.csv}: a file", "a folder, made where it is not there")
    if config.limit is not None and not (config.source or config.config):
        raise UsageError(
            f"--limit {config.limit} without native metadata", "with --source or --config", "counts of builds cost no reading of shards"
        )


def _sources(config: ReportConfig) -> tuple[SourceSpec, ...]:
    """Return the native metadata to report on: all sources of a recipe, or the one of --source."""
    from curate.report.native import source_of, sources_of

    plugins.use_all(config.plugin)
    if config.config:
        return sources_of(config.config)
    pattern = several(config.input) if config.input else ""
    return (source_of(config.source, pattern, config.extra),) if config.source else ()


def _report(config: ReportConfig, subject: Subject, workers: int) -> dict[str, Any]:
    """Count, and write what is asked for: a page is the default where nothing is printed or tabled instead."""
    from curate.report.csv_files import write_csv
    from curate.report.numbers import collect

    page = config.output or ("" if config.json or config.terminal or config.csv else _default_page(config))
    values = _write(subject, page, workers, config.engine) if page else collect(subject)
    if page:
        console.say(f"report: {page}")
    if config.csv:
        console.say(f"tables: {config.csv}: {', '.join(write_csv(values, config.csv))}")
    return values


def _default_page(config: ReportConfig) -> str:
    """Return report.html in the folder of a set with a manifest, if the report is of it alone, else in the working directory."""
    alone = len(config.sets) == 1 and not (config.source or config.config)
    folder = config.sets[0].removesuffix(NAME).rstrip("/") if alone else ""
    return fs.join(folder, "report.html") if folder and fs.exists(fs.join(folder, NAME)) else "report.html"


def _print(config: ReportConfig, values: dict[str, Any]) -> None:
    if config.json:
        console.emit(values)
    elif config.terminal:
        from curate.report.terminal import terminal

        console.emit(terminal(values, console.terminal_width(), console.coloured()))
    elif values["ledger"]:
        console.emit(waterfall(values))
    else:
        console.emit(console.table(("source", "samples"), [(source["name"], source["samples"]) for source in values["sources"]]))


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
    for source in [source for ledger in values["ledger"].get("sets", []) for source in ledger["sources"]]:
        share = f"{1 if source['inputs'] else 0:.1%}"
        rows.append((source["name"], "inputs", source["inputs"], share))
        rows += [("", f"dropped: {d['reason']}", d["count"], f"{d['share']:.1%}") for d in source["dropped"]]
        rows += [("", name, source[name]["count"], f"{source[name]['share']:.1%}") for name in ("holdout", "spare", "kept")]
    return console.table(("source", "step", "samples", "share"), rows)
