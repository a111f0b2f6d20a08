"""What a plot is: a file that turns gathered results into charts; a chart holds every number that is drawn of it.

A module has

    its docstring's first line       what the plot shows; `evaluate list` prints it
    TITLE                            its heading
    NEEDS                            labels, settings or protocols of the rows without which it is left out
    build(view) -> Section           its charts; raises `MissingError` where the results cannot fill them

Accuracies are shares, 0 to 1. Means and intervals are those of `eval.gather` and `eval.statistics`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FITTED, BASELINE = -1, -2  # places of series that are no source's: curves, and models to compare with
Scale = Literal["linear", "log", "logit"]


class MissingError(Exception):
    """The results cannot fill a plot; the text says what they lack."""


@dataclass(frozen=True)
class Point:
    """One number at x, with its 95% interval. `interval` says what that is over, `n` counts the test images, `label` names the point."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    interval: str = ""
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        colour: its place among colours and markers; FITTED or BASELINE are ink.
        kind: `line` joins points and draws intervals as a band, `points` draws intervals as bars, `curve` is a line without points.
        named: the labels of points that are written into the chart.
    """

    name: str
    points: tuple[Point, ...]
    colour: int = FITTED
    kind: Literal["line", "points", "curve"] = "line"
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Values against numbers.

    Attributes:
        name: unique on the page.
        x, y: what the axes count, with their unit.
        ticks: (place, text) of the x axis, where it is not numbers.
        percent: whether x, and y, are shares that are shown in percent.
        levels: (text, y) of horizontal lines, such as chance.
        said: what stands under the chart.
        same: whether both axes have one range, with the line of equal values.
    """

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    ticks: tuple[tuple[float, str], ...] = ()
    percent: tuple[bool, bool] = (False, True)
    levels: tuple[tuple[str, float], ...] = ()
    said: tuple[str, ...] = ()
    same: bool = False


@dataclass(frozen=True)
class Rows:
    """Values along x, a row for each category: a point's x is its row's place, its y the value.

    `missing`: (row, text) where there is no value; `line` is a value to compare with, such as 1 of a rate.
    """

    name: str
    title: str
    x: str
    rows: tuple[str, ...]
    series: tuple[Series, ...]
    scale: Scale = "linear"
    percent: bool = True
    line: tuple[str, float] | None = None
    missing: tuple[tuple[int, str], ...] = ()
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A number of a matrix. `best`: it is its column's highest; `like_best`: the difference to that is not significant."""

    value: float
    low: float | None
    high: float | None
    n: int
    interval: str
    best: bool = False
    like_best: bool = False


@dataclass(frozen=True)
class Matrix:
    """Values by row and column; None where there is no result."""

    name: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table beneath the charts: numbers and texts, as they are; `percent` names the columns that are shares."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    percent: tuple[str, ...] = ()


Figure = Chart | Rows | Matrix


@dataclass(frozen=True)
class Section:
    """A plot with its charts: what it shows in a sentence, its legend by series, what else has to be said, and tables."""

    lead: str
    figures: tuple[Figure, ...]
    legend: tuple[tuple[str, int], ...] = ()
    said: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A section that the results fill, under the plot's name and title."""

    name: str
    title: str
    section: Section


@dataclass(frozen=True)
class LeftOut:
    """A plot that the results cannot fill: why, and what it needs."""

    name: str
    title: str
    why: str
    needs: str


@dataclass(frozen=True)
class Page:
    """All that a page shows."""

    facts: dict[str, Any]
    drawn: tuple[Drawn, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = field(default=())

    def values(self) -> dict[str, Any]:
        """Return every number and word of the page, in plain values."""
        kinds = {Chart: "chart", Rows: "rows", Matrix: "matrix"}
        plots = []
        for drawn in self.drawn:
            content = asdict(drawn.section)
            for figure, values in zip(drawn.section.figures, content["figures"], strict=True):
                values["kind"] = kinds[type(figure)]
            plots.append({"name": drawn.name, "title": drawn.title, **content})
        return {**self.facts, "plots": plots, "left_out": [asdict(entry) for entry in self.left_out], "notes": list(self.notes)}
