"""The images of each source: sizes, aspect, bytes, formats, how many show next to nothing, and a contact sheet drawn by rank.

Widths and heights are exact. Aspect and bytes are counted by three digits: their quantiles are within 0.5%. How much an image
shows (its `information`, see the filter near_constant) is counted by tenths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.report.histograms import Histogram, described, draw, read, share, texts
from curate.report.sampled import sample_of, shown
from curate.report.stats import totals

if TYPE_CHECKING:
    from curate.report.subject import Subject

SHEET = 24  # pictures of a contact sheet
SIDE = 224  # pixels that a network of today sees of the shorter side
NEAR_CONSTANT, FLAT = 3, 1  # gray levels; see curate/filters/near_constant.py
# The kinds of histogram, by the decimals of their values; bytes and aspect spread over powers of ten.
MEASURES = {"width": (0, False), "height": (0, False), "shorter_side": (0, False), "aspect": (2, True), "bytes": (0, True)}


def collect(subject: Subject) -> dict[str, Any]:
    """Return what is known of every source's images; None stands for what nobody measured, and nothing where there are none.

    Per source: `samples` (a count), MEASURES (see `histograms.described`), `formats`, `information`, `sheet`.
    """
    con, sources = subject.con, subject.sources
    histograms = {kind: read(con, kind) for kind in MEASURES}
    if not (any(histograms.values()) or subject.sample["at"].null_count < subject.sample.num_rows):
        return {}
    measured = {kind: described(histograms[kind], sources, digits, log=log) for kind, (digits, log) in MEASURES.items()}
    for source, one in histograms["shorter_side"].items():
        below = one.below(SIDE)
        measured["shorter_side"][source] |= {"below": below, "below_share": share(below, one.n)}
    counts = totals(con, "samples")
    formats, information = texts(con, "format"), read(con, "information")
    found = {}
    for source in sources:
        drawn = sample_of(subject.sample, source)
        found[source] = {
            "samples": counts.get(source, 0),
            **{kind: measured[kind][source] for kind in MEASURES},
            "formats": _formats(formats.get(source)),
            "information": _information(information.get(source)),
            "sheet": [shown(row) for row in drawn[:SHEET]],
        }
    return {"drawn": subject.drawn["order"], "side": SIDE, "near_constant": NEAR_CONSTANT, "flat": FLAT, "sources": found}


def _formats(counts: dict[str, int] | None) -> list[dict[str, Any]] | None:
    if not counts:
        return None
    n = sum(counts.values())
    return [{"format": name, "count": count, "share": share(count, n)} for name, count in counts.items()]


def _information(histogram: Histogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    n, found = histogram.n, {"near_constant": histogram.below(NEAR_CONSTANT), "flat": histogram.below(FLAT)}
    return {"n": n, "median": round(histogram.quantile(50), 1), **{k: {"count": v, "share": share(v, n)} for k, v in found.items()}}


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Return the charts, each of the sources that have the measure."""
    charts = {
        "width": ("Width", "pixels", False),
        "height": ("Height", "pixels", False),
        "shorter_side": ("Shorter side", "pixels", False),
        "aspect": ("Aspect", "width / height", True),
        "bytes": ("Size of the image files", "bytes", True),
    }
    found = {}
    for kind, (title, x, log_x) in charts.items():
        known = {source: one[kind] for source, one in values["sources"].items() if one[kind]}
        if known:
            found[kind] = draw(f"images-{kind}", title, known, colours, x=x, what="images", log_x=log_x)
    return found
