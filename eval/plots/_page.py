"""The page: one HTML file without script and without a request, with the charts as SVG and their numbers as tables."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.plots import _draw
from eval.plots.base import Chart, Figure, Matrix, Page, Rows, Table


def render(page: Page) -> str:
    """Return the page as HTML; equal pages give equal bytes."""
    import jinja2

    here = Path(__file__).parent
    loader = jinja2.FileSystemLoader(here)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    environment.filters["compact"] = compact
    environment.globals.update(cell=cell, number=lambda value: f"{value:,}", numbers=numbers, swatch=_swatch)
    environment.finalize = lambda value: _draw.visible(value) if type(value) is str else value  # Markup is left as it is
    svgs = {figure.name: _draw.svg(figure) for drawn in page.drawn for figure in drawn.section.figures}
    text = environment.get_template("page.html").render(page=page, svgs=svgs, style=(here / "style.css").read_text(encoding="utf-8"))
    return text.lstrip()


def _swatch(place: int) -> Any:
    import markupsafe

    return markupsafe.Markup(_draw.swatch(place))  # noqa: S704  made of numbers and our own words alone


def cell(value: Any, percent: bool = False) -> str:
    """Return a value of a table: shares in percent with one digit, other numbers with up to four digits."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if percent:
        return f"{round(100 * value, 1) + 0.0:.1f} %"  # + 0: no -0.0
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 0.01 else f"{value:,.4g}"


def numbers(figure: Figure) -> Table:
    """Return the numbers of a figure as a table; of curves, which are fitted, the JSON has the points."""
    if isinstance(figure, Matrix):
        return _of_matrix(figure)
    value = "value, %" if isinstance(figure, Rows) and figure.percent else figure.x
    names = ("series", "row" if isinstance(figure, Rows) else figure.x, value if isinstance(figure, Rows) else figure.y)
    header = (*names, "low", "high", "n", "interval over", "name")
    percent = figure.percent if isinstance(figure, Chart) else (False, figure.percent)
    places = [(series.name, point) for series in figure.series if series.kind != "curve" for point in series.points]
    rows = [(series, _x_text(figure, p.x), p.y, p.low, p.high, p.n or "", p.interval, p.label) for series, p in places]
    shares = [name for at, name in enumerate(header) if (at == 1 and percent[0]) or (at in (2, 3, 4) and percent[1])]
    return compact(Table("", header, tuple(rows), tuple(shares)))


def compact(table: Table) -> Table:
    """Return a table without the columns that are empty throughout."""
    kept = [at for at in range(len(table.header)) if any(row[at] not in (None, "") for row in table.rows)]
    rows = tuple(tuple(row[at] for at in kept) for row in table.rows)
    return replace(table, header=tuple(table.header[at] for at in kept), rows=rows)


def _x_text(figure: Chart | Rows, x: float) -> Any:
    if isinstance(figure, Rows):
        return figure.rows[int(x)]
    return dict(figure.ticks).get(x, x)


def _of_matrix(matrix: Matrix) -> Table:
    rows = []
    for name, cells in zip(matrix.rows, matrix.cells, strict=True):
        for column, found in zip(matrix.columns, cells, strict=True):
            if found is not None:
                sign = "best" if found.best else "like the best" if found.like_best else ""
                rows.append((name, column, found.value, found.low, found.high, found.n or "", found.interval, sign))
    header = ("source", "target", "value", "low", "high", "n", "interval over", "in its column")
    return Table("", header, tuple(rows), header[2:5])
