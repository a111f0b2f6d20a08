"""Effective robustness: accuracy on a shifted set beyond what the baseline line predicts from the unshifted one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.fields import text, where
from eval.gather import Entry
from eval.plots import _view
from eval.plots._view import View
from eval.plots.base import BASELINE, FITTED, Chart, Point, Section, Series, Table

TITLE = "Effective robustness"
NEEDS = "results of the same models on a set and on its shifted twin (NAME and NAME/SHIFT, or --shift), and three baseline models"
# Objectives that see no captions: the baseline where --baseline names no other.
_BASELINE = ("supervised", "scratch")
_STEPS = 41
_HEADER = ("panel", "model", "source", "objective", "accuracy", "shifted", "beyond the line", "low", "high")


def build(view: View) -> Section:
    """Return a chart per shifted set, both axes logit-scaled as in Taori et al. 2020, with the baseline line and its band."""
    pairs = _pairs(view)
    _view.need(pairs, "no data set has a shifted twin among the results")
    rows, said = _view.at_ends([{**shifted, "standard": standard} for shifted, standard in pairs])
    charts: list[Chart] = []
    facts: list[tuple[Any, ...]] = []
    why: list[str] = []
    for place, panel in enumerate(_view.panels(rows, ("data", "protocol", "k"), ("source", "objective", "model", "size", "name"))):
        baseline = _baseline(view, panel.rows)
        within = [row for row in panel.rows if 0 < row["value"] < 1 and 0 < row["standard"]["value"] < 1]
        kept = [row for row in within if any(row is entry for entry in baseline)]
        if len({row["standard"]["value"] for row in kept}) < 3:
            why.append(f"{panel.title}: {len(kept)} baseline models, three with different accuracies are the least")
            continue
        chart, lines = _chart(view, f"robustness-{place}", panel.title, within, kept)
        charts.append(chart)
        facts += lines
    _view.need(charts, "; ".join(why) or "no panel")
    lead = (
        "Each point is a model: its accuracy on a set and on a shifted twin of it. The line is fitted to the baseline models' logits; the "
        "distance above it is effective robustness."
    )
    base = " ".join(f"{name}={value}" for name, value in view.config.baseline.items()) or f"objective {' or '.join(_BASELINE)}"
    more = (
        f"Baseline models: {base}.",
        *(f"Not drawn: {reason}." for reason in why),
        "Intervals of effective robustness are over baseline models and test images of both sets.",
    )
    table = Table("Beyond the baseline line", _HEADER, tuple(facts), _HEADER[4:])
    base_rows = _baseline(view, rows)
    others = [row for row in rows if not any(row is entry for entry in base_rows)]
    legend = (*view.legend(others), ("baseline models", BASELINE), ("baseline line", FITTED))
    return Section(lead, tuple(charts), legend, (*said, *more, *_view.said_intervals(rows)), (table,))


def _pairs(view: View) -> list[tuple[Entry, Entry]]:
    """Return (row on the shifted set, row of the same model and protocol on the unshifted one)."""
    rows = view.main()
    by_place = {(text(row["data"]), _identity(row)): row for row in rows}
    found = []
    for row in rows:
        standard = standard_of(text(row["data"]), view.config.shift)
        other = by_place.get((standard, _identity(row))) if standard else None
        if other is not None:
            found.append((row, other))
    return found


def standard_of(data: str, shifts: Mapping[str, Any]) -> str:
    """Return the unshifted set of a shifted one: as `--shift` says, else what stands before the stroke of NAME/SHIFT."""
    return text(shifts[data]) if data in shifts else data.rpartition("/")[0]


def _identity(row: Entry) -> str:
    gathered = {*(row.get("over") or {}), "draw", "train_seed"}
    labels = {name: value for name, value in (row.get("labels") or {}).items() if name not in gathered}
    return json.dumps(
        [row["protocol"], row.get("k"), row["metric"], labels or row["name"], row.get("checkpoint")], sort_keys=True, default=str
    )


def _baseline(view: View, rows: Sequence[Entry]) -> list[Entry]:
    if view.config.baseline:
        return where(list(rows), view.config.baseline)
    return [row for row in rows if {text(_view.said_of(row, "objective")), text(row["protocol"])} & set(_BASELINE)]


def _points(rows: Sequence[Entry]) -> tuple[Point, ...]:
    return tuple(_view.point(row, float(row["standard"]["value"]), text(row["name"])) for row in rows)


def _chart(view: View, name: str, title: str, rows: Sequence[Entry], baseline: Sequence[Entry]) -> tuple[Chart, list[tuple[Any, ...]]]:
    import numpy as np
    from scipy.special import expit, logit

    from eval.statistics.curves import effective_robustness

    def pairs(entries: Sequence[Entry]) -> np.ndarray:
        return np.array([[row["standard"]["value"], row["value"]] for row in entries])

    line = pairs(baseline)
    images = (int(rows[0]["standard"].get("n") or 0), int(rows[0].get("n") or 0))
    beyond = effective_robustness(line, pairs(rows), images if all(images) else None)
    accuracies = pairs(rows)[:, 0]
    grid = expit(np.linspace(float(logit(accuracies.min())), float(logit(accuracies.max())), _STEPS))
    predicted = effective_robustness(line, np.stack([grid, np.full(_STEPS, 0.5)], axis=1))
    curve = tuple(Point(float(x), 0.5 - at.value, 0.5 - at.high, 0.5 - at.low) for x, at in zip(grid, predicted, strict=True))
    series = [Series("baseline line", curve, FITTED, "curve"), Series("baseline models", _points(baseline), BASELINE, "points")]
    others = [row for row in rows if not any(row is entry for entry in baseline)]
    series += [Series(source, _points(group), view.colour(source), "points") for source, group in _view.by_source(view, others).items()]
    standard = text(rows[0]["standard"]["data"])
    x = f"accuracy on {standard}, %"
    chart = Chart(name, title, x, f"on {text(rows[0]['data'])}, %", tuple(series), "logit", "logit", percent=(True, True), same=True)
    facts = []
    for row, value in zip(rows, beyond, strict=True):
        named = (title, text(row["name"]), _view.source_of(row), text(_view.said_of(row, "objective")))
        facts.append((*named, row["standard"]["value"], row["value"], value.value, value.low, value.high))
    return chart, facts
