"""Upstream against downstream accuracy: rank correlation and the saturating fit, best of the grid and its mean side by side.

The fit is that of Abnar et al. 2021 (arXiv 2110.02095), error down = k · (error up)^α + least error: the power law of
`eval.statistics.curves` in x = 1 / (1 - accuracy up).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.fields import text
from eval.gather import Entry, over
from eval.plots import _view
from eval.plots._view import View
from eval.plots.base import Chart, MissingError, Section, Series, Table

TITLE = "Upstream against downstream accuracy"
NEEDS = "an upstream accuracy of the same models: --upstream DATA or DATA:PROTOCOL, and three models"
_APART = ("data", "protocol", "k")
_POWERS = (0.021, 3.99)  # just inside what `eval.statistics.curves` searches: at its edge a power is no estimate
_STEPS = 61  # points of a curve
_HEADER = ("panel", "models", "Spearman's ρ", "low", "high", "least error", "k", "α")


@dataclass(frozen=True)
class _Pairs:
    """Models with both accuracies, in one order."""

    rows: list[Entry]
    upstream: list[Entry]


def build(view: View) -> Section:
    """Return two charts per target: the best of each model's grid, and the mean of the grid where there is one."""
    upstream, named = _upstream(view)
    rows = [row for row in view.main() if _place(row) != _place(next(iter(upstream.values())))]
    rows, said = _view.at_ends([row for row in rows if _model(row) in upstream])
    _view.need(rows, f"no model has both {named} and another result")
    means = _means(view, rows)
    charts: list[Chart] = []
    facts: list[tuple[Any, ...]] = []
    lacking = 0
    for place, panel in enumerate(
        _view.panels(rows, _APART, ("source", "objective", "model", "size", "name"), lambda panel: len(panel.rows) > 2)
    ):
        of_means = [means[id(row)] for row in panel.rows if id(row) in means]
        lacking += not of_means
        for kind, entries in (("best", list(panel.rows)), ("mean", of_means)):
            if len(entries) >= 3:
                title = f"{panel.title}: {'best of the grid' if kind == 'best' else 'mean of the grid'}" if of_means else panel.title
                chart, fact = _chart(
                    view, f"upstream-{place}-{kind}", title, named, _Pairs(entries, [upstream[_model(e)] for e in entries])
                )
                charts.append(chart)
                facts.append(fact)
    _view.need(charts, "fewer than three models have both accuracies")
    more = [f"{lacking} panels have no grid in their rows: what is drawn is the one value that they hold."] if lacking else []
    lead = f"Each point is a model: its {named} and its accuracy on a target. The curve is the saturating fit with its 95% band."
    table = Table("Correlation and fit, with 95% intervals of ρ", _HEADER, tuple(facts))
    return Section(lead, tuple(charts), view.legend(rows), (*said, *more, *_view.said_intervals(rows)), (table,))


def _place(row: Entry) -> tuple[str, str]:
    return text(row["data"]), text(row["protocol"])


def _model(row: Entry) -> str:
    """Return what names a gathered row's model: its labels, or its name where it has none."""
    gathered = row.get("over") or {}
    labels = {
        name: value for name, value in (row.get("labels") or {}).items() if name not in gathered and name not in ("draw", "train_seed")
    }
    return json.dumps(labels, sort_keys=True, default=str) if _view.said_of(row, "source") is not None else text(row["name"])


def _upstream(view: View) -> tuple[dict[str, Entry], str]:
    """Return the upstream row of each model, and what it is called."""
    data, _, protocol = view.config.upstream.partition(":")
    candidates = [row for row in view.main() if not data or text(row["data"]) == data]
    if not data:
        usual = [row for row in candidates if text(row["data"]).lower().startswith("imagenet")]
        if not usual:
            raise MissingError("no --upstream, and no data set is called imagenet")
        candidates = usual
    zero_shot = [row for row in candidates if row["protocol"] == (protocol or "zeroshot")]
    chosen = zero_shot if zero_shot or protocol else candidates
    if not chosen:
        raise MissingError(f"no row is of --upstream {view.config.upstream}")
    first = _place(chosen[0])
    found = {_model(row): row for row in chosen if _place(row) == first}
    return found, f"{first[0]} ({first[1]}) accuracy"


def _means(view: View, rows: Sequence[Entry]) -> dict[int, Entry]:
    """Return, by the row's identity, the row with the mean of its grid as its value, gathered over the same levels."""
    means = {}
    for row in rows:
        members = [_mean_of_grid(member) for member in row.get("members") or [row]]
        whole = [member for member in members if member is not None]
        if whole and len(whole) == len(members):
            gathered = over(whole, view.levels, view.config.results)
            if len(gathered) == 1:
                means[id(row)] = gathered[0]
    return means


def _mean_of_grid(row: Entry) -> Entry | None:
    """Return a row with its grid's mean as its value; None where it tells no grid's accuracies on test."""
    chosen = row.get("chosen") or {}
    rates = (row.get("curves") or {}).get("acc1_by_lr") or {}
    value = chosen.get("mean") if chosen.get("of", 1) > 1 else None
    if value is None and rates and (row.get("settings") or {}).get("selected_on") == "test":
        value = sum(rates.values()) / len(rates)
    if value is None:
        return None
    return {**row, "value": value, "low": None, "high": None, "interval": "", "runs": (), "predictions": (), "covers": []}


def _chart(view: View, name: str, title: str, named: str, pairs: _Pairs) -> tuple[Chart, tuple[Any, ...]]:
    import numpy as np

    from eval.statistics.curves import spearman

    series = []
    for source in view.places:
        places = [at for at, row in enumerate(pairs.rows) if _view.source_of(row) == source]
        points = [_view.point(pairs.rows[at], float(pairs.upstream[at]["value"]), text(pairs.rows[at]["name"])) for at in places]
        if points:
            series.append(Series(source, tuple(points), view.colour(source), "points"))
    x = np.array([row["value"] for row in pairs.upstream])
    y = np.array([row["value"] for row in pairs.rows])
    correlation: tuple[Any, ...] = ("", "", "")
    said = []
    try:
        found = spearman(x, y)
        correlation = (found.value, found.low, found.high)
        bounds = "no interval below five models" if found.low is None else f"[{found.low:.2f}, {found.high:.2f}]"
        said.append(f"Spearman's ρ = {found.value:.2f}, {bounds}, {found.n} models.")
    except ValueError as error:
        said.append(f"No rank correlation: {error}.")
    curve, parameters, why = _fitted(x, y)
    said += [why] if why else []
    chart = Chart(
        name, title, f"{named}, %", _view.unit(pairs.rows), (*series, *curve), percent=(True, True), said=tuple(said)
    )  # fmt: skip
    return chart, (title, len(x), *correlation, *parameters)


def _fitted(x: Any, y: Any) -> tuple[tuple[Series, ...], tuple[Any, ...], str]:
    """Return the curve with its band, (least error, k, α), and why there is none."""
    import numpy as np

    from eval.statistics.curves import fit

    if x.max() >= 1:
        return (), ("", "", ""), "No fit: an upstream accuracy of 1."
    try:
        fitted = fit(1 / (1 - x), y)
    except ValueError as error:
        return (), ("", "", ""), f"No fit: {error}."
    grid = np.linspace(x.min(), x.max(), _STEPS)
    values = fitted.predict(1 / (1 - grid))
    low, high = fitted.interval(1 / (1 - grid))
    points = _view.band(grid, values, low, high)
    top, slope, power = fitted.parameters
    curve = (Series("saturating fit", points, kind="curve"),)
    if top > 1 or not _POWERS[0] < power < _POWERS[1]:
        return curve, ("", "", ""), "The curve does not bend enough among these models for a least error."
    return curve, (1 - top, slope, power), ""
