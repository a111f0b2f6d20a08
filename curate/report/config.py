"""The flags of `curate report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.core import fs
from shards.core.config import MOST_WORKERS, option
from shards.core.errors import UsageError
from shards.manifest import NAME


@dataclass(frozen=True)
class ReportConfig:
    """What is in these samples: a page, a terminal view, tables, or the captions that say a word."""

    sets: tuple[str, ...] = option((), "builds, subsets, or folders of WebDataset tars", positional=True, metavar="BUILD")
    source: str = option("", "report on native metadata instead: its reader (`curate list sources`)", metavar="NAME")
    input: tuple[str, ...] = option((), "with --source: native files: paths, folders, or quoted globs of either", metavar="PATH")
    config: str = option("", "report on the native metadata of all sources of a recipe (YAML), or of one that comes along", metavar="FILE")
    plugin: tuple[str, ...] = option((), "files of Python, one of which is the source: docs/plugins.md", metavar="FILE.py")
    output: str = option(
        "", "HTML file to write; its .json goes beside it (default: BUILD/report.html of one build, else report.html here)", metavar="FILE"
    )
    csv: str = option("", "write the tables as CSV into this folder", metavar="DIR")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print the report as JSON")
    terminal: bool = option(False, "print the whole report as text")
    word: str | None = option(None, "print captions that say a word, or a phrase; exit code 1 where none does", metavar="WORD")
    most: int = option(10, "captions of each source, with --word", least=1)
    concepts: tuple[str, ...] = option((), "more lists of concepts: files, a class on each line, synonyms behind commas", metavar="FILE")
    sample: int = option(5_000, "captions of each source in the random sample, for what is estimated or shown", least=1)
    work: str = option("", "keep statistics of folders that are not ours here, for the next time", metavar="DIR")
    limit: int | None = option(None, "of native metadata: read only the first N records of each source", least=1)
    workers: int = option(0, "worker processes (default: one per core)", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")
    extra: dict[str, Any] = option({})

    @property
    def folder(self) -> str:
        """The build or other set whose folder gets the page; "" where the page goes elsewhere, or none is written."""
        if self.word is not None:
            return ""
        if self.output:
            place = self.output.rpartition("/")[0]
        elif len(self.sets) == 1 and not (self.json or self.terminal or self.csv):
            place = self.sets[0].removesuffix(NAME).rstrip("/")
        else:
            return ""
        is_set = any(fs.exists(fs.join(place, name)) for name in (NAME, "recipe.yaml"))
        return place if place and is_set else ""


def check_page(path: str) -> None:
    """Refuse a name that no page can be written to, before anything is counted.

    Raises:
        UsageError: it does not end in .html, its folder is not there, or a folder has this name.
    """
    if not path.endswith(".html"):
        raise UsageError(f"--output {path}", "a name ending in .html")
    folder = path.rpartition("/")[0]
    if folder and not fs.is_remote(path) and not fs.is_dir(folder):
        raise UsageError(f"--output {path}: no folder {folder!r}", "a file in a folder that is there", f"mkdir -p {folder}")
    if fs.is_dir(path):
        raise UsageError(f"--output {path}: a folder", "a file's name")
