"""A comparison as a page: one HTML file, and the JSON with all its numbers beside it."""

from __future__ import annotations

import json
from typing import Any

from curate.compare.load import Loaded
from curate.compare.overlap import KINDS
from shards.core import fs

# The page's sections, each with its heading; `templates/compare_NAME.html` shows one.
SECTIONS = {
    "overlap": "What they share",
    "moved": "What moved",
    "recipes": "How the recipes differ",
    "vocabulary": "Words",
    "spread": "Lengths and sizes",
    "method": "Method",
}
ROW, MARGIN = 0.32, 0.9  # inches of a chart


def write_page(path: str, found: dict[str, Any], sets: list[Loaded], workers: int = 1, engine: str = "local") -> None:
    """Write a comparison as HTML, and as JSON beside it; equal sets give equal bytes."""
    from curate.report.page import named, render_page
    from curate.report.pictures import of_samples
    from curate.report.plots import colours_of

    labels = [one["name"] for one in found["sets"]]
    present = [(name, heading) for name, heading in SECTIONS.items() if name == "method" or found.get(name)]
    pictures = of_samples([one.manifest for one in sets], dict.fromkeys(name for _, name in named(found)), workers, engine)
    drawn = figures(found, colours_of(labels))
    page = render_page("compare.html", found, pictures, labels, present, report=found, figures=drawn, cells=cells(found["overlap"]))
    fs.write_text(path.removesuffix(".html") + ".json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    fs.write_text(path, page)


def cells(pairs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Return what sets share as matrices: kind, set, other set → `count` of the set's samples, and their `share`."""
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for pair in pairs:
        a, b = pair["a"], pair["b"]
        kinds: dict[str, Any] = {kind: pair[kind] for kind in KINDS if kind in pair}
        kinds |= {"beyond": pair["near"]["beyond"]} if "near" in pair else {}
        for kind, one in kinds.items():
            for side, (mine, theirs, count) in enumerate(((a, b, one["a_in_b"]), (b, a, one["b_in_a"]))):
                share = one["shares"][side] if one["known"][side] else None
                found.setdefault(kind, {}).setdefault(mine, {})[theirs] = {"count": count, "share": share}
    return found


def figures(found: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Return the page's charts as SVG by name; `colours` are those of the sets."""
    from curate.report import plots
    from curate.report.histograms import draw

    if "vocabulary" not in found:
        return {}
    words = found["vocabulary"]
    drawn = {}
    pairs = [pair for pair in words["pairs"] if pair["divergence"] is not None]
    if pairs:
        drawn["divergence"] = _divergences(pairs, words["captions"], colours)
    grown = {one["name"]: (one["growth"]["captions"], one["growth"]["distinct"]) for one in words["sets"] if one["words"]}
    if grown:
        n = sum(series[0][-1] for series in grown.values())
        drawn["growth"] = plots.lines("growth", f"Distinct words (n = {n:,} captions)", grown, colours, x="captions", y="distinct words")
    titles = {
        "words": ("Length of captions", "words", "captions"),
        "characters": ("Length of captions", "characters", "captions"),
        "side": ("Size of images", "shorter side, pixels", "images"),
    }
    for measure, (title, x, what) in titles.items():
        known = {name: one[measure] for name, one in found["spread"].items() if one[measure]}
        if known:
            drawn[measure] = draw(measure, title, known, colours, x=x, what=what)
    return drawn


def _divergences(pairs: list[dict[str, Any]], n: int, colours: dict[str, str]) -> str:
    """Draw each pair's divergence with its interval, over what chance gives; two squares in the sets' colours name the pair."""
    from curate.report import plots

    title = f"Divergence of the words (n = {n:,} captions each)"
    with plots.chart("divergence", title, "Jensen–Shannon divergence, bits", "", height=MARGIN + ROW * len(pairs)) as drawn:
        axes = drawn.axes
        for y, pair in enumerate(pairs):
            axes.barh(y, pair["by_chance_high"], 0.62, color=plots.LINE)
            axes.vlines(pair["by_chance"], y - 0.31, y + 0.31, color=plots.SOFT, linewidth=1)
            axes.hlines(y, *pair["interval"], color=plots.INK, linewidth=1.4)
            axes.plot(pair["divergence"], y, "o", color=plots.INK, markersize=4.5)
            for x, name in ((-0.075, pair["a"]), (-0.03, pair["b"])):
                square: dict[str, Any] = {"marker": "s", "markersize": 6, "clip_on": False, "transform": axes.get_yaxis_transform()}
                axes.plot(x, y, color=colours[name], **square)
        axes.set(ylim=(len(pairs) - 0.4, -0.6), xlim=(0, None), yticks=[])
        axes.grid(axis="y", visible=False)
        plots.grouped(axes)
        axes.set_yticks([])
    return drawn.svg
