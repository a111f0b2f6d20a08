"""Source by target: every value with its interval, and which differences between sources are significant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from eval.compare import difference
from eval.fields import text
from eval.gather import Entry
from eval.plots import _view
from eval.plots._view import Panel, View
from eval.plots.base import Cell, Matrix, Section, Table

TITLE = "Sources by targets"
NEEDS = "two sources on one data set"
SIGNIFICANT = 0.05
_APART = ("protocol", "k", "objective", "model")
_HEADER = ("table", "target", "source", "less", "difference", "low", "high", "p", "p (Holm)", "sees", "how")


def build(view: View) -> Section:
    """Return a matrix per protocol, shots, objective and model; each pair of sources is compared on each target."""
    rows, of_size = _view.at_largest(view.main())
    rows, of_shots = _view.at_ends(rows)
    matrices = []
    compared: list[tuple[Any, ...]] = []
    for place, panel in enumerate(
        _view.panels(rows, _APART, ("source", "data"), lambda panel: len({_view.source_of(row) for row in panel.rows}) > 1)
    ):
        sources = [source for source in view.places if source in {_view.source_of(row) for row in panel.rows}]
        pairs = [pair for target in _targets(panel) for pair in _pairs(view, panel, target)]
        title = panel.title or "all results"
        compared += [(title, *pair) for pair in pairs]
        matrices.append(_matrix(f"matrix-{place}", title, panel, sources, pairs))
    _view.need(matrices, "no data set has two sources")
    lead = "Each source's value on each target, in percent, with its 95% interval. The best of a column is framed."
    tests = (
        "≈: the difference to the best of its column is not significant (p ≥ 0.05, Holm's correction over all pairs of sources on that "
        "target). Pairs are compared by the paired bootstrap over test images, or over draws and seeds where both have the same; where "
        "answers by image are not kept, from both intervals as if independent. “Sees” is the smallest true difference found in 4 of 5 "
        "such studies.",
    )
    table = Table("Differences between sources, pair by pair", _HEADER, tuple(compared), ("difference", "low", "high", "sees"))
    return Section(lead, tuple(matrices), (), (*of_size, *of_shots, *tests, *_view.said_intervals(rows)), (table,))


def _targets(panel: Panel) -> list[str]:
    return sorted({text(row["data"]) for row in panel.rows}, key=_view.in_order)


def _pairs(view: View, panel: Panel, target: str) -> list[tuple[Any, ...]]:
    """Return the differences of all pairs of sources on a target, as the table has them."""
    present = {_view.source_of(row): row for row in panel.rows if text(row["data"]) == target}
    entries = [present[source] for source in view.places if source in present]
    facts = [(first, second, difference(first, second, view.levels, view.config.results)) for first, second in combinations(entries, 2)]
    corrected = iter(holm([fact["p"] for _, _, fact in facts if fact["p"] is not None]))
    pairs = []
    for first, second, fact in facts:
        p = next(corrected) if fact["p"] is not None else None
        bounds = (fact["difference"], fact["low"], fact["high"])
        pairs.append(
            (target, _view.source_of(first), _view.source_of(second), *bounds, fact["p"], p, fact["detectable"], text(fact["how"]))
        )
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979, Scand. J. Stat. 6, 65)."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def _matrix(name: str, title: str, panel: Panel, sources: Sequence[str], pairs: Sequence[tuple[Any, ...]]) -> Matrix:
    targets = _targets(panel)
    values = {(_view.source_of(row), text(row["data"])): row for row in panel.rows}
    p_of = {(pair[0], frozenset(pair[1:3])): pair[7] for pair in pairs}
    best = {target: max((row["value"], source) for (source, t), row in values.items() if t == target)[1] for target in targets}

    def cell_of(source: str, target: str) -> Cell | None:
        return _cell(values.get((source, target)), source, best[target], p_of.get((target, frozenset((source, best[target])))))

    cells = tuple(tuple(cell_of(source, target) for target in targets) for source in sources)
    return Matrix(name, title, tuple(sources), tuple(targets), cells)


def _cell(row: Entry | None, source: str, best: str, p: float | None) -> Cell | None:
    if row is None:
        return None
    found = _view.point(row, 0.0)
    like = source != best and p is not None and p >= SIGNIFICANT
    return Cell(found.y, found.low, found.high, found.n, found.interval, source == best, like)
