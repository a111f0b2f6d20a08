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
from shards.core.config import option
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
    radius: int = option(4, "bits of 64 in which the pHashes of near duplicates may differ")
    look: bool = option(True, "open the images of sets without sidecars, for bytes and near duplicates")
    output: str = option("", "HTML file to write; its .json goes beside it", metavar="FILE")
    json: bool = option(False, "print JSON")
    workers: int = option(0, "worker processes that make thumbnails (default: one per core)")
    engine: str = option("local", "local | inline (this process alone)")


def compare(config: CompareConfig) -> int:
    """Print what sets share and how they differ; write it as a page where --output says so."""
    from curate.compare.load import load
    from curate.compare.text import text

    if not 0 <= config.radius <= MAX_RADIUS:
        raise UsageError(f"--radius {config.radius}", f"0 to {MAX_RADIUS} bits")
    if len(config.sets) < 2:
        raise UsageError(f"{len(config.sets)} set", "two or more to compare")
    if config.output:
        check_page(config.output)
    con, sets, sources = load(config.sets, config.look)
    with contextlib.closing(con):
        found = collect(con, sets, sources, config.radius)
    if config.output:
        from curate.compare.page import write_page

        write_page(config.output, found, sets, config.workers or default_workers(), config.engine)
    emit(found if config.json else text(found, config.sets))
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
    named = {one.label: one for one in sets if one.manifest}
    found: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sets": [_said(one) for one in sets],
        "overlap": [{"a": a.label, "b": b.label, **overlap(con, a, b, radius)} for a, b in pairs],
        "moved": [{"a": a.label, "b": b.label, **moved(con, a, b, sources)} for a, b in pairs if a.manifest and b.manifest],
    }
    if len(named) < 2:
        return found
    spread = {measure: _described(named, measure) for measure in MEASURES}
    found["spread"] = {label: {measure: spread[measure][label] for measure in MEASURES} for label in named}
    found["recipes"] = recipes(sets)
    found["vocabulary"] = vocabulary({label: one.drawn for label, one in named.items() if one.drawn is not None})
    return found


def _described(sets: dict[str, Loaded], measure: str) -> dict[str, Any]:
    from curate.report.histograms import described

    known = {label: one.histograms[measure] for label, one in sets.items() if one.histograms and measure in one.histograms}
    return described(known, list(sets))


def _said(one: Loaded) -> dict[str, Any]:
    """Return what a set says of itself."""
    from curate.report.ledgers import has_ledger

    if one.manifest is None:
        return {"name": one.label, "kind": "list", "samples": one.samples}
    m = one.manifest
    kind = "build" if has_ledger(m) else "set"
    facts = {"shards": len(m.shards), "bytes": m.bytes, "seed": m.seed, "builder": m.builder, "manifest": m.digest}
    return {"name": one.label, "kind": kind, "samples": one.samples, **facts}
