"""Concept frequency in the build against class accuracy, with the log-linear fit and the classes that fall below it.

A class's accuracy comes from the answers by image that are kept beside the table, its frequency is the captions of the build that mention
it. The fit is accuracy = a + b ln(captions), over the classes that are mentioned at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.fields import text
from eval.gather import Entry, unit_answers, units_of
from eval.plots import _counts, _view
from eval.plots._counts import Counts
from eval.plots._draw import tick
from eval.plots._view import View
from eval.plots.base import Chart, MissingError, Point, Section, Series, Table
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

TITLE = "Concept frequency against class accuracy"
NEEDS = "--concepts BUILD or CSV, answers by image beside the table, and the class names of a set (--classnames, --data-root)"
NEVER = 0.4  # where classes that no caption mentions stand on the logarithmic axis, left of 1
_STEPS = 41
_NAMED = 6  # classes whose names are written into a chart; the table has them all
_HEADER = ("panel", "class", "captions", "accuracy", "low", "high", "fit", "fit low", "fit high")
_FITS = ("panel", "classes", "never mentioned", "Spearman's ρ", "low", "high", "points per tenfold", "from", "to")


@dataclass(frozen=True)
class _Class:
    """A class with its captions, accuracy and interval, and test images."""

    name: str
    captions: int
    accuracy: float
    low: float
    high: float
    n: int


def build(view: View) -> Section:
    """Return a chart per target, protocol, shots and source."""
    config = view.config
    if not config.concepts:
        raise MissingError("no --concepts says how often captions mention a class")
    every = [_counts.read_counts(stated) for stated in config.concepts]
    rows = [row for row in view.main() if row.get("predictions") or any(m.get("predictions") for m in row.get("members") or ())]
    _view.need(rows, "no row has its answers by image kept")
    rows, of_size = _view.at_largest(rows)
    rows, of_shots = _view.at_ends(rows)
    names = _counts.class_names({text(row["classes"]) for row in rows}, config.classnames, config.data_root)
    named = [row for row in rows if text(row["classes"]) in names]
    unnamed = sorted({text(row["data"]) for row in rows if text(row["classes"]) not in names})
    _view.need(named, f"the class names of {', '.join(unnamed)} are not known")
    charts: list[Chart] = []
    below: list[tuple[Any, ...]] = []
    fits: list[tuple[Any, ...]] = []
    for place, panel in enumerate(_view.panels(named, ("data", "protocol", "k", "objective", "model", "source"), ())):
        row = panel.rows[0]
        counts = _for(every, row)
        classes, why = _classes(view, row, counts, names[text(row["classes"])]) if counts else ([], "no --concepts is for this source")
        if len(classes) < 3:
            note(1, "[panel|panels] of concept frequency [is|are] left out", f"{panel.title}: {why or 'fewer than three classes'}")
            continue
        chart, lines, fit = _chart(view, f"frequency-{place}", panel.title, row, classes, _said(row, counts, why))
        charts.append(chart)
        below += lines
        fits.append(fit)
    _view.need(charts, "no list of --concepts has the classes of a set whose answers are kept")
    lead = "Each point is a class: the captions that mention it, and its accuracy. The line is the log-linear fit with its 95% band."
    more = (
        "A class falls below where its whole 95% interval lies below the fit's. Of classes that follow the fit, fewer than one in "
        "40 do by chance.",
        *((f"Class names not known, not drawn: {', '.join(unnamed)}.",) if unnamed else ()),
    )
    tables = (
        Table("Fits: accuracy points for ten times the captions", _FITS, tuple(fits), _FITS[6:]),
        Table("Classes that fall below the fit", _HEADER, tuple(below), _HEADER[3:]),
    )
    return Section(lead, tuple(charts), view.legend(named), (*of_size, *of_shots, *more, *_view.said_intervals(named)), tables)


def _for(every: list[Counts], row: Entry) -> Counts | None:
    """Return the counts for a row: those of its source, of its own build, or those for all."""
    source = _view.source_of(row)
    own = [counts for counts in every if counts.source == source]
    builds = [counts for counts in every if set(counts.manifests) & _manifests(row)]
    general = [counts for counts in every if not counts.source]
    return next(iter([*own, *builds, *general]), None)


def _manifests(row: Entry) -> set[str]:
    return {text(manifest.get("digest")) for manifest in row.get("manifests") or () if isinstance(manifest, dict)}


def _said(row: Entry, counts: Counts | None, left_out: str) -> tuple[str, ...]:
    said = [left_out] if left_out else []
    if counts is not None and counts.manifests and not set(counts.manifests) & _manifests(row):
        said.append("The captions are those of another build than the model's.")
    return tuple(said)


def _classes(view: View, row: Entry, counts: Counts, names: tuple[str, ...]) -> tuple[list[_Class], str]:
    """Return the classes with captions and test images, and what was left out, in words."""
    import numpy as np

    known, missing, _ = _counts.counts_of(counts, names)
    levels = [*view.levels] if "shots" in view.levels else [*view.levels, "shots"]
    answers = unit_answers(units_of(row.get("members") or [row], levels), "mean_per_class", view.config.results)
    values, labels = answers or (None, None)
    if values is None or labels is None:
        return [], "answers by image are not kept"
    classes = []
    for label in np.unique(labels).tolist():
        if label < len(names) and names[label] in known:
            accuracy, low, high = _accuracy(values[:, labels == label])
            classes.append(_Class(names[label], known[names[label]], accuracy, low, high, int((labels == label).sum())))
    shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    return classes, f"{len(missing)} classes are in no list of concepts and are not drawn: {shown}." if missing else ""


def _accuracy(values: np.ndarray) -> tuple[float, float, float]:
    """Return a class's accuracy and its interval: over runs and images where there are several of both, else Wilson's."""
    from eval.statistics.levels import crossed_interval
    from eval.statistics.proportions import wilson

    units, images = values.shape
    if units > 1 and images > 1:
        found = crossed_interval(values)
        return found.value, found.low, found.high
    mean = float(values.mean())
    return mean, *wilson(round(mean * images), images)


def _chart(
    view: View, name: str, title: str, row: Entry, classes: list[_Class], said: tuple[str, ...]
) -> tuple[Chart, list[tuple[Any, ...]], tuple[Any, ...]]:
    import numpy as np

    from eval.statistics.curves import fit, spearman

    mentioned = [entry for entry in classes if entry.captions > 0]
    never = [entry for entry in classes if entry.captions == 0]
    x = np.array([entry.captions for entry in mentioned], dtype=np.float64)
    y = np.array([entry.accuracy for entry in mentioned])
    curve: tuple[Series, ...] = ()
    below: list[tuple[Any, ...]] = []
    slope: tuple[Any, ...] = ("", "", "")
    rank: tuple[Any, ...] = ("", "", "")
    more = list(said)
    try:
        fitted = fit(x, y, "log-linear")
        grid = np.geomspace(x.min(), x.max(), _STEPS)
        curve = (Series("log-linear fit", _points_of(fitted, grid), -1, "curve"),)
        low, high = fitted.interval(x)
        triples = zip(mentioned, fitted.predict(x).tolist(), low.tolist(), high.tolist(), strict=True)
        below = [
            (title, e.name, e.captions, e.accuracy, e.low, e.high, p, at_low, at_high)
            for e, p, at_low, at_high in triples
            if e.high < at_low
        ]
        tenfold = float(np.log(10))
        slope = (fitted.parameters[1] * tenfold, *(bound * tenfold for bound in fitted.bounds()[1]))
    except ValueError as error:
        more.append(f"No fit: {error}.")
    try:
        found = spearman(x, y)
        rank = (found.value, found.low, found.high)
    except ValueError as error:
        more.append(f"No rank correlation: {error}.")
    below.sort(key=lambda line: line[3] - line[6])
    more.append(f"Below the fit: {', '.join(line[1] for line in below)}." if below else "No class falls below the fit.")
    if never:
        plural = len(never) > 1
        more.append(f"{len(never)} {'classes' if plural else 'class'} that no caption mentions: at 0, and not fitted.")
    points = tuple(Point(float(e.captions) or NEVER, e.accuracy, e.low, e.high, e.n, label=e.name) for e in classes)
    series = Series(_view.source_of(row), points, view.colour(_view.source_of(row)), "points", tuple(line[1] for line in below[:_NAMED]))
    powers = [10.0**power for power in range(13) if x.min() / 10 < 10**power < x.max() * 10]
    ticks = ((NEVER, "0"), *((power, tick(power)) for power in powers)) if never else ()
    chart = Chart(
        name, title, "captions that mention the class", "class accuracy, %", (*curve, series), "log", ticks=ticks, said=tuple(more)
    )
    return chart, below, (title, len(classes), len(never), *rank, *slope)


def _points_of(fitted: Any, grid: np.ndarray) -> tuple[Point, ...]:
    low, high = fitted.interval(grid)
    return _view.band(grid, fitted.predict(grid), low, high)
