"""Accuracy against pre-training size: one line per source on a logarithmic axis, one panel per target."""

from __future__ import annotations

from eval.plots import _view
from eval.plots._draw import tick
from eval.plots._view import Panel, View
from eval.plots.base import Chart, Section

TITLE = "Accuracy against pre-training size"
NEEDS = "label size (or manifests that count samples), two sizes of one source"
_MOST_TICKS = 6  # sizes that are written below the axis; with more, powers of ten are
_APART = ("data", "protocol", "k", "objective", "model")


def build(view: View) -> Section:
    """Return a chart per target, protocol and shots."""
    sized = [row for row in view.main() if _view.size_of(row) is not None]
    _view.need(sized, "no row says how many samples its model was trained on")
    rows, said = _view.at_ends(sized)
    charts = []
    for place, panel in enumerate(_view.panels(rows, _APART, ("source", "size"), lambda panel: _most_sizes(view, panel) > 1)):
        series = _view.lines(view, panel.rows, _view.size_of)
        y = _view.unit(panel.rows)
        levels = _view.chance_of(panel.rows)
        sizes = sorted({point.x for line in series for point in line.points})
        ticks = tuple((size, tick(size)) for size in sizes) if len(sizes) <= _MOST_TICKS else ()
        charts.append(Chart(f"size-{place}", panel.title, "samples of pre-training", y, series, "log", ticks=ticks, levels=levels))
    _view.need(charts, "no source has two sizes on one data set")
    lead = "How each source's accuracy grows with the samples of pre-training. Bands are 95% intervals."
    return Section(lead, tuple(charts), view.legend(rows), (*said, *_view.said_intervals(rows)))


def _most_sizes(view: View, panel: Panel) -> int:
    return max(len(line.points) for line in _view.lines(view, panel.rows, _view.size_of))
