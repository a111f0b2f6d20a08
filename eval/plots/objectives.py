"""Objectives compared: the accuracy of CLIP, SimCLR, supervised and further training per target, source by source."""

from __future__ import annotations

from eval.fields import text
from eval.plots import _view
from eval.plots._view import Panel, View
from eval.plots.base import Rows, Section, Series

TITLE = "Objectives compared"
NEEDS = "label objective with two values on one data set"
_APART = ("data", "protocol", "k", "model")


def build(view: View) -> Section:
    """Return a chart per target, a row per objective, a point per source."""
    labelled = [row for row in view.main() if _view.said_of(row, "objective") is not None]
    _view.need(labelled, "no row has the label objective")
    rows, of_size = _view.at_largest(labelled)
    rows, of_shots = _view.at_ends(rows)
    figures = []
    for place, panel in enumerate(_view.panels(rows, _APART, ("source", "objective"), lambda panel: len(_names(panel)) > 1)):
        names = _names(panel)
        series = _points(view, panel, names)
        levels = _view.chance_of(panel.rows)
        line = levels[0] if levels else None
        figures.append(Rows(f"objectives-{place}", panel.title, _view.unit(panel.rows), tuple(names), series, line=line))
    _view.need(figures, "no data set has two objectives")
    lead = "The same sources under different training objectives. Bars are 95% intervals."
    return Section(lead, tuple(figures), view.legend(rows), (*of_size, *of_shots, *_view.said_intervals(rows)))


def _names(panel: Panel) -> list[str]:
    return sorted({text(_view.said_of(row, "objective")) for row in panel.rows}, key=_view.in_order)


def _points(view: View, panel: Panel, names: list[str]) -> tuple[Series, ...]:
    series = []
    for source, group in _view.by_source(view, panel.rows).items():
        points = [_view.point(row, float(names.index(text(_view.said_of(row, "objective"))))) for row in group]
        series.append(Series(source, tuple(sorted(points, key=lambda found: found.x)), view.colour(source), "points"))
    return tuple(series)
