"""Accuracy against shots: one line per source, one panel per target."""

from __future__ import annotations

from collections.abc import Callable

from eval.fields import text
from eval.gather import Entry
from eval.plots import _view
from eval.plots._view import Panel, View
from eval.plots.base import Chart, Section

TITLE = "Accuracy against shots"
NEEDS = "two numbers of shots (k) of one model on one data set"
_APART = ("data", "protocol", "objective", "model")


def build(view: View) -> Section:
    """Return a chart per target, k along x in its order: distances between numbers of shots have no meaning."""
    rows, said = _view.at_largest([row for row in view.main() if row.get("k") is not None])
    charts = []
    for place, panel in enumerate(_view.panels(rows, _APART, ("source", "k"), lambda panel: len(_shots(panel)) > 1)):
        shots = _shots(panel)
        places = {k: float(at) for at, k in enumerate(shots)}
        charts.append(
            Chart(
                f"shots-{place}",
                panel.title,
                "training images per class, not to scale",
                _view.unit(panel.rows),
                _view.lines(view, panel.rows, _placed(places)),
                ticks=tuple((at, k) for k, at in places.items()),
                levels=_view.chance_of(panel.rows),
            )
        )
    _view.need(charts, "no model has two numbers of shots on one data set")
    lead = "How each source's accuracy grows with the training images per class of the target. Bands are 95% intervals."
    return Section(lead, tuple(charts), view.legend(rows), (*said, *_view.said_intervals(rows)))


def _shots(panel: Panel) -> list[str]:
    return sorted({text(row["k"]) for row in panel.rows}, key=_view.in_order)


def _placed(places: dict[str, float]) -> Callable[[Entry], float | None]:
    return lambda row: places[text(row["k"])]
