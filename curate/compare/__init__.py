"""`curate compare`: what sets share, and how they differ.

Sets are builds, subsets, foreign WebDataset folders with a manifest, or lists of ids. Shared are ids, image bytes, and
pictures within a pHash radius; different are sources, recipes, sizes, caption lengths and words.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from curate.recipe import MAX_RADIUS
from curate.report.config import check_page
from shards.core.config import MOST_WORKERS, option
from shards.core.console import emit, say
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from curate.compare.load import Loaded

FORMAT, FORMAT_VERSION = "provender-compare", 1
MEASURES = ("words", "characters", "side")  # of captions, and the images' shorter side in pixels


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare two sets or more."""

    sets: tuple[str, ...] = option(
        help="two or more: builds, subsets, indexed folders; lists of ids (.txt, one on each line; DataComp's .npy)",
        positional=True,
        metavar="SET",
    )
    radius: int = option(4, "bits of 64 in which the pHashes of near duplicates may differ", least=0, most=MAX_RADIUS)
    look: bool = option(True, "open the images of sets without sidecars, for bytes and near duplicates")
    output: str = option("", "HTML file to write; its .json goes beside it", metavar="FILE")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print JSON")
    workers: int = option(0, "worker processes that make thumbnails (default: one per core)", least=0, most=MOST_WORKERS)
    engine: str = option("local", "local | inline (this process alone)")


def compare(config: CompareConfig) -> int:
    """Print what sets share and how they differ; write it as a page where --output says so."""
    from curate.compare.load import load
    from curate.compare.text import text

    if len(config.sets) < 2:
        raise UsageError(f"{len(config.sets)} set", "two or more to compare")
    if config.output:
        check_page(config.output)
    con, sets, sources = load(config.sets, config.look)
    with contextlib.closing(con):
        comparison = collect(con, sets, sources, config.radius)
    if config.output:
        from curate.compare.page import write_page

        write_page(config.output, comparison, sets, config.workers or default_workers(), config.engine)
    emit(comparison if config.json else text(comparison, config.sets))
    if config.output:
        say(f"report: {config.output}")
    return 0


def collect(con: Any, sets: list[Loaded], sources: list[str], radius: int) -> dict[str, Any]:
    """Return everything that a comparison says, in plain values: what the JSON holds and the page prints."""
    from curate.compare.moved import moved
    from curate.compare.overlap import overlap
    from curate.compare.recipes import recipes
    from curate.compare.vocabulary import vocabulary

    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    named = {loaded.label: loaded for loaded in sets if loaded.manifest}
    comparison: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sets": [_said(loaded) for loaded in sets],
        "overlap": [{"a": a.label, "b": b.label, **overlap(con, a, b, radius)} for a, b in pairs],
        "moved": [{"a": a.label, "b": b.label, **moved(con, a, b, sources)} for a, b in pairs if a.manifest and b.manifest],
    }
    if len(named) < 2:
        return comparison
    spread = {measure: _described(named, measure) for measure in MEASURES}
    comparison["spread"] = {label: {measure: spread[measure][label] for measure in MEASURES} for label in named}
    comparison["recipes"] = recipes(sets)
    comparison["vocabulary"] = vocabulary({label: loaded.drawn for label, loaded in named.items() if loaded.drawn is not None})
    return comparison


def _described(sets: dict[str, Loaded], measure: str) -> dict[str, Any]:
    from curate.report.histograms import described

    known = {label: loaded.histograms[measure] for label, loaded in sets.items() if loaded.histograms and measure in loaded.histograms}
    return described(known, list(sets))


def _said(loaded: Loaded) -> dict[str, Any]:
    """Return what a set says of itself."""
    from curate.report.ledgers import has_ledger

    if loaded.manifest is None:
        return {"name": loaded.label, "kind": "list", "samples": loaded.samples}
    m = loaded.manifest
    kind = "build" if has_ledger(m) else "set"
    facts = {"shards": len(m.shards), "bytes": m.bytes, "seed": m.seed, "builder": m.builder, "manifest": m.digest}
    return {"name": loaded.label, "kind": kind, "samples": loaded.samples, **facts}
