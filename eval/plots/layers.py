"""Layer curves: the accuracy of a probe on every layer of the image tower, and where it saturates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eval.fields import text
from eval.gather import Entry
from eval.plots import _view
from eval.plots._view import View
from eval.plots.base import Chart, Section, Table

TITLE = "Accuracy by layer"
NEEDS = "rows of `evaluate layers`"
_APART = ("data", "k", "objective", "model")


def build(view: View) -> Section:
    """Return a chart per target and pooling, depth along x from the first layer to the model's own features."""
    every = [row for row in view.rows if row["protocol"] == "layers"]
    _view.need(every, "no row is of the protocol layers")
    rows, of_size = _view.at_largest(every)
    rows, of_shots = _view.at_ends(rows)
    split = [
        {**row, "pooled": pooled, "settings": {**row["settings"], "pooled": pooled}} for row in rows for pooled in _poolings(row, rows)
    ]
    charts = []
    for place, panel in enumerate(_view.panels(split, (*_APART, "settings.pooled"), ("source", "metric"))):
        layers = [text(name) for name in panel.rows[0]["settings"].get("layers") or []]
        series = _view.lines(view, panel.rows, _deep(layers))
        if not series or max(len(line.points) for line in series) < 2:
            continue
        levels = _view.chance_of([row for row in panel.rows if row["metric"] == "acc1"])
        charts.append(
            Chart(f"layers-{place}", panel.title, "depth, % of layers", "accuracy, %", series, percent=(True, True), levels=levels)
        )
    _view.need(charts, "no model has two layers")
    lead = "How well a linear probe tells the classes apart in each layer, up to the model's own features. Bands are 95% intervals."
    said = ("“pooled 1” is the mean over all places, “pooled 4” over each quarter of the image, “pooled cls” the class token.",)
    tables = _saturation(rows)
    return Section(lead, tuple(charts), view.legend(rows), (*of_size, *of_shots, *said, *_view.said_intervals(split)), tables)


def _poolings(row: Entry, rows: Sequence[Entry]) -> list[str]:
    """Return the poolings that a row is drawn under: its own, or all where it is of the model's own features."""
    name, _, place = text(row["metric"]).partition("@")
    if name != "acc1":
        return []
    if place:
        return [place.rpartition(":")[2]]
    return sorted({text(other["metric"]).rpartition(":")[2] for other in rows if "@" in text(other["metric"])})


def _deep(layers: Sequence[str]) -> Callable[[Entry], float | None]:
    return lambda row: depth_of(row, layers)


def depth_of(row: Entry, layers: Sequence[str]) -> float | None:
    """Return a layer's depth as a share of all layers; None where the row is of none of them."""
    place = text(row["metric"]).partition("@")[2]
    layer = place.rpartition(":")[0] if place else (layers[-1] if layers else "")
    return (layers.index(layer) + 1) / len(layers) if layer in layers else None


def _saturation(rows: Sequence[Entry]) -> tuple[Table, ...]:
    """Return where each model saturates: the depth of the first layer within one point of the best."""
    header = ("source", "data", "shots", "saturates at", "low", "high")
    saturations = [row for row in rows if row["metric"] == "saturation"]
    found: list[tuple[Any, ...]] = [
        (_view.source_of(row), row["data"], text(row.get("k")), row["value"], row.get("low"), row.get("high")) for row in saturations
    ]
    heading = "Depth at which a layer is first within one point of the best one"
    return (Table(heading, header, tuple(found), header[3:]),) if found else ()
