"""Exchange rates: how many samples of another source one sample of a source is worth on a target, from nested sizes of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from eval.gather import Entry
from eval.plots import _view
from eval.plots._view import Panel, View
from eval.plots.base import Point, Rows, Section, Series, Table

if TYPE_CHECKING:
    from eval.statistics.exchange import Rate

TITLE = "Exchange rates between sources"
NEEDS = "two sizes (label size) of two sources on one data set"
_APART = ("data", "protocol", "objective", "model")
_HEADER = ("panel", "one sample of", "in samples of", "shots", "worth", "low", "high", "read at accuracies from", "to", "why not")


def build(view: View) -> Section:
    """Return a chart per target, a row per pair of sources and number of shots; a pair without a rate says why."""
    sized = [row for row in view.main() if _view.size_of(row) is not None]
    _view.need(sized, "no row says how many samples its model was trained on")
    rows, said = _view.at_ends(sized)
    figures: list[Rows] = []
    facts: list[tuple[Any, ...]] = []
    for place, panel in enumerate(_view.panels(rows, _APART, ("source", "size", "k"))):
        found = _rates(view, panel)
        if found:
            title = panel.title
            figures.append(_figure(f"exchange-{place}", title, found))
            facts += [(title, *key, *_facts(rate)) for key, rate in found.items()]
    _view.need(figures, "no two sources have two sizes each on one data set")
    lead = (
        "One sample of the first source is worth so many of the second: the ratio of the sizes at which both reach the same accuracy, "
        "read in the middle of the accuracies that both reach. Nothing is extrapolated. Bars are 95% intervals, over the scatter of the "
        "points about both lines."
    )
    names = ("read at accuracies from", "to")
    return Section(lead, tuple(figures), (), (*said,), (Table("Rates", _HEADER, tuple(facts), names),))


def _rates(view: View, panel: Panel) -> dict[tuple[str, str, str], Rate]:
    """Return the rate of each pair of sources at each number of shots: (first, second, shots) → rate."""
    import numpy as np

    from eval.statistics.exchange import exchange_rate

    rates = {}
    for k in sorted({_view.shots_text(row.get("k")) for row in panel.rows}, key=_view.in_order):
        of_source = _view.by_source(view, [row for row in panel.rows if _view.shots_text(row.get("k")) == k])
        curves = {source: measured(group) for source, group in of_source.items()}
        several = [source for source, (sizes, _) in curves.items() if len(set(sizes)) > 1]
        for first, second in combinations(several, 2):
            sizes, accuracies = map(np.array, curves[first])
            other_sizes, other_accuracies = map(np.array, curves[second])
            rates[first, second, k] = exchange_rate(sizes, accuracies, other_sizes, other_accuracies)
    return rates


def measured(rows: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Return the sizes and accuracies of a source: one for each unit (draw, seed) that a row was gathered over."""
    sizes: list[float] = []
    accuracies: list[float] = []
    for row in rows:
        values = row["runs"] if row.get("over") else [row["value"]]
        accuracies += [float(value) for value in values]
        sizes += [_view.size_of(row) or 0.0] * len(values)
    return sizes, accuracies


def _figure(name: str, title: str, rates: dict[tuple[str, str, str], Rate]) -> Rows:
    several = len({key[2] for key in rates}) > 1
    labels, points, missing, said = [], [], [], []
    for at, ((first, second, k), rate) in enumerate(rates.items()):
        labels.append(f"{first} in {second}{f', {k}' if several and k else ''}")
        if rate.value is None:
            missing.append((at, f"not estimable: {_named(rate.why, first, second)}"))
            continue
        points.append(Point(float(at), rate.value, rate.low, rate.high, label=labels[-1]))
        if rate.low is None:
            said.append(f"{labels[-1]}: no interval: {_named(rate.why, first, second)}.")
    said += [f"{labels[at]}: {why}." for at, why in missing]
    series = (Series("rate", tuple(points), 0, "points"),) if points else ()
    x = "worth, in samples of the second"
    return Rows(
        name, title, x, tuple(labels), series, "log", percent=False, line=("equal worth", 1.0), missing=tuple(missing), said=tuple(said)
    )


def _named(why: str, first: str, second: str) -> str:
    """Return a reason with the sources' names in place of A and B."""
    words = why.split(" ")
    return " ".join({"A": first, "B": second}.get(word, word) for word in words)


def _facts(rate: Rate) -> tuple[Any, ...]:
    low, high = rate.overlap or (None, None)
    return rate.value, rate.low, rate.high, low, high, rate.why
