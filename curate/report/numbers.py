"""Every number of a report, as one plain dictionary: what report.json holds and the page prints."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from curate.report.stats import totals
from shards.core.errors import RunError

if TYPE_CHECKING:
    from curate.report.subject import Subject

FORMAT, FORMAT_VERSION = "provender-report", 2
# The page's sections in order, each with its heading; `sections/NAME.py` counts and draws, `templates/NAME.html` shows.
SECTIONS = {
    "ledger": "Where every input went",
    "vocabulary": "Vocabulary",
    "apart": "Words that set a source apart",
    "captions": "Captions",
    "images": "Images",
    "concepts": "Concepts of downstream sets",
    "method": "Method",
}


def section(name: str) -> ModuleType:
    """Return a section's module: `collect(subject)` and `figures(values, colours)`."""
    return import_module(f"curate.report.sections.{name}")


def collect(subject: Subject) -> dict[str, Any]:
    """Count all sections; one that has nothing to say is empty, and is left out of the page.

    Raises:
        RunError: statistics, ledger and manifest disagree.
    """
    sources = _sources(subject)
    found = sum(s["samples"] for s in sources)
    said = sum(manifest.samples for manifest in subject.manifests)
    if subject.manifests and found < said:
        raise RunError(f"the statistics count {found:,} samples", f"{said:,}, as the manifests say", "shards verify")
    report: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "sources": sources}
    return report | {name: section(name).collect(subject) for name in SECTIONS}


def _sources(subject: Subject) -> list[dict[str, Any]]:
    counts = totals(subject.con, "samples")
    return [{"name": name, "samples": counts.get(name, 0)} for name in subject.sources]
