"""Ensemble curves: accuracy, NLL and calibration error by the number of members, one line per kind of ensemble."""

from __future__ import annotations

from collections.abc import Sequence

from eval.fields import text
from eval.gather import Entry, over
from eval.plots import _view
from eval.plots._view import View
from eval.plots.base import Chart, Section, Series

TITLE = "Ensembles by number of members"
NEEDS = "rows of an ensemble: settings.members with two numbers"
_MOST_TICKS = 12
_METRICS = ("acc1", "mean_per_class", "nll", "ece")
_WORDS = {"acc1": "accuracy, %", "mean_per_class": "mean per class, %", "nll": "NLL, nats per image", "ece": "ECE, %"}


def build(view: View) -> Section:
    """Return a chart per target and metric; a line is a kind of ensemble, of each source where there are several."""
    every = [row for row in view.every if members_of(row) is not None and row["metric"] in _METRICS]
    _view.need(every, "no row has settings.members")
    rows, said = _view.at_ends(over(every, (*view.levels, "group"), view.config.results))
    names = {_kind(rows, row): None for row in rows}
    places = {name: place for place, name in enumerate(sorted(names, key=_view.in_order))}
    charts = []
    within = ("source", "protocol", "settings.kind", "objective", "size", "settings.members")
    panels = _view.panels(rows, ("data", "k", "metric"), within)
    ordered = sorted(panels, key=lambda panel: (text(panel.rows[0]["data"]), _METRICS.index(panel.rows[0]["metric"])))
    for place, panel in enumerate(ordered):
        metric = panel.rows[0]["metric"]
        series = tuple(_lines(rows, panel.rows, places))
        if max(len(line.points) for line in series) < 2:
            continue
        percent = (False, metric != "nll")
        members = sorted({point.x for line in series for point in line.points})
        ticks = tuple((count, f"{count:.0f}") for count in members) if len(members) <= _MOST_TICKS else ()
        charts.append(Chart(f"ensemble-{place}", panel.title, "members", _WORDS[metric], series, ticks=ticks, percent=percent))
    _view.need(charts, "no ensemble has two numbers of members")
    lead = "What each further member of an ensemble adds. Bands are 95% intervals."
    return Section(lead, tuple(charts), tuple(places.items()), (*said, *_view.said_intervals(rows)))


def members_of(row: Entry) -> int | None:
    """Return how many members a row's ensemble has."""
    members = (row.get("settings") or {}).get("members")
    if isinstance(members, list | tuple):
        return len(members)
    return members if isinstance(members, int) and not isinstance(members, bool) else None


def _kind(rows: Sequence[Entry], row: Entry) -> str:
    """Return the kind of an ensemble, with its source, objective and size where they differ."""
    kind = text((row.get("settings") or {}).get("kind")) or text(row["protocol"])
    differing = [name for name in ("source", "objective", "size") if len({_view.word_of(other, name) for other in rows}) > 1]
    return ", ".join([kind, *(_view.word_of(row, name) for name in differing)])


def _lines(rows: Sequence[Entry], panel: Sequence[Entry], places: dict[str, int]) -> list[Series]:
    series = []
    for name, place in places.items():
        own = [row for row in panel if _kind(rows, row) == name]
        points = sorted((_view.point(row, float(members_of(row) or 0)) for row in own), key=lambda found: found.x)
        if points:
            series.append(Series(name, tuple(points), place))
    return series
