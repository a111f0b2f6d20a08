"""The WiSE-FT curve: accuracy along the line between the model before fine-tuning (α = 0) and after it (α = 1)."""

from __future__ import annotations

from collections.abc import Sequence

from eval.fields import text
from eval.gather import Entry
from eval.plots import _view, robustness
from eval.plots._view import View
from eval.plots.base import Chart, Section, Series

TITLE = "WiSE-FT: accuracy by α"
NEEDS = "rows of the strategy wise-ft, with settings.acc1_by_alpha"
_APART = ("data", "k", "objective", "model")


def build(view: View) -> Section:
    """Return a chart per target and shots, α along x."""
    kept = [row for row in view.every if (row.get("curves") or {}).get("acc1_by_alpha") and row["metric"] == "acc1"]
    _view.need(kept, "no row has settings.acc1_by_alpha")
    chosen, of_size = _view.at_largest(kept)
    chosen, of_shots = _view.at_ends(chosen)
    rows = view.gathered([part for row in chosen for part in at_each_alpha(row)])
    charts = []
    for place, panel in enumerate(_view.panels(rows, _APART, ("source", "settings.alpha"))):
        series = _view.lines(view, panel.rows, lambda row: float(row["settings"]["alpha"]))
        charts.append(Chart(f"wise-{place}", panel.title, "α", "accuracy, %", series, levels=_view.chance_of(panel.rows)))
    charts += _paths(view, rows)
    lead = "Weights are (1 - α) · start + α · end of a fine-tuning. α = 0.5 is fixed in advance; the best α of a curve is chosen on test."
    said = ("A curve's values are means over draws of the shots; it has a band where several trainings or data draws are gathered.",)
    return Section(lead, tuple(charts), view.legend(rows), (*of_size, *of_shots, *said, *_view.said_intervals(rows)))


def _paths(view: View, rows: Sequence[Entry]) -> list[Chart]:
    """Return a chart per shifted set whose unshifted twin has curves, too: accuracy on both, from α = 0 to 1."""
    twins = {(text(row["data"]), _identity(row)): row for row in rows}
    pairs = [(row, twins.get((robustness.standard_of(text(row["data"]), view.config.shift), _identity(row)))) for row in rows]
    both = [{**row, "standard": other["value"], "twin": text(other["data"])} for row, other in pairs if other is not None]
    charts = []
    for place, panel in enumerate(_view.panels(both, _APART, ("source", "settings.alpha"))):
        series = []
        for source, group in _view.by_source(view, panel.rows).items():
            ordered = sorted(group, key=lambda row: float(row["settings"]["alpha"]))
            points = tuple(_view.point(row, float(row["standard"]), f"α = {row['settings']['alpha']:g}") for row in ordered)
            series.append(Series(source, points, view.colour(source)))
        x, y = f"accuracy on {panel.rows[0]['twin']}, %", f"on {text(panel.rows[0]['data'])}, %"
        title = f"{panel.title}: from α = 0 to 1"
        charts.append(Chart(f"wise-path-{place}", title, x, y, tuple(series), percent=(True, True)))
    return charts


def _identity(row: Entry) -> tuple[str, ...]:
    return _view.key_of(row, ("source", "k", "objective", "model", "size", "settings.alpha"))


def at_each_alpha(row: Entry) -> Sequence[Entry]:
    """Return a row for each α of a row's curve, without an interval: the curve is given as means."""
    bare = {**row, "low": None, "high": None, "interval": "", "runs": (), "predictions": (), "covers": []}
    curve = row["curves"]["acc1_by_alpha"]
    return [{**bare, "value": float(value), "settings": {**row["settings"], "alpha": float(alpha)}} for alpha, value in curve.items()]
