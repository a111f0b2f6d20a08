"""The flags of `curate report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.core.config import option


@dataclass(frozen=True)
class ReportConfig:
    """What is in these samples: a page, a terminal view, tables, or the captions that say a word."""

    sets: tuple[str, ...] = option((), "builds, subsets, or folders of WebDataset tars", positional=True, metavar="BUILD")
    source: str = option("", "report on native metadata instead: its reader (`curate list sources`)", metavar="NAME")
    input: str = option("", "with --source: native files, a folder, or a quoted glob", metavar="PATH")
    config: str = option("", "report on the native metadata of all sources of a recipe (YAML), or of one that comes along", metavar="FILE")
    output: str = option("", "HTML file to write; its .json goes beside it (default: BUILD/report.html of a build)", metavar="FILE")
    csv: str = option("", "write the tables as CSV into this folder", metavar="DIR")
    json: bool = option(False, "print the report as JSON")
    terminal: bool = option(False, "print the whole report as text")
    word: str = option("", "print captions that say a word, or a phrase; exit code 1 where none does", metavar="WORD")
    most: int = option(10, "captions of each source, with --word")
    concepts: tuple[str, ...] = option((), "more lists of concepts: files, a class on each line, synonyms behind commas", metavar="FILE")
    sample: int = option(5_000, "captions of each source in the random sample, for what is estimated or shown")
    work: str = option("", "keep statistics of folders that are not ours here, for the next time", metavar="DIR")
    limit: int | None = option(None, "of native metadata: read only the first N records of each source")
    workers: int = option(0, "worker processes (default: one per core)")
    engine: str = option("local", "local | inline (this process alone)")
    extra: dict[str, Any] = option({})
