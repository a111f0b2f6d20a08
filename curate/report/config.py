"""The flags of `curate report`."""

from __future__ import annotations

from dataclasses import dataclass

from shards.core.config import option


@dataclass(frozen=True)
class ReportConfig:
    """Write a build's report again, or print its numbers."""

    out: str = option(help="a finished build's folder", positional=True)
    output: str = option("", "HTML file to write; its .json goes beside it (default: OUT/report.html)", metavar="FILE")
    json: bool = option(False, "print the report as JSON")
