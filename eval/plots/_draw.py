"""Figures drawn by matplotlib: as SVG that is part of the page, with its fonts and colours, and as PDF. Equal figures give equal bytes.

No style sheet and no style attribute is left in the SVG, since the page's content security policy allows its own style sheet alone. A
series is an element with `data-series` and its place in the figure, so that what is drawn can be read back.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.plots.base import BASELINE, Chart, Figure, Matrix, Rows, Section, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; the page's variables --c0 … --c7 have a shade for each theme.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a100", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES = ("solid", "dashed", "dotted", "dashdot")  # tell the ninth line from the first; the ninth colour comes with another marker
INK, SOFT, LINE = "#010101", "#020202", "#030303"  # stand-ins, replaced by the page's variables
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"} | {c: f"var(--c{i})" for i, c in enumerate(PALETTE)}
WIDTH, HEIGHT = 4.6, 2.9  # inches of 72 points: narrow enough to be read on a phone without shrinking
CELL, LABEL = (0.98, 0.4), 22  # inches of a matrix's cell; letters of a line of a label
_TITLE, _ENTRY = 0.42, 1.7  # inches of a PDF: for a figure's title of two lines, and for a legend's entry
_LOGIT_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "path.simplify": False,  # a line goes through all its numbers
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Ink:
    """The colours of text, of small text and of lines."""

    ink: str
    soft: str
    line: str


ON_PAGE, ON_PAPER = Ink(INK, SOFT, LINE), Ink("#1c1c1a", "#5d5d58", "#dcdcd6")


@contextmanager
def _settings(ink: Ink, salt: str) -> Iterator[None]:
    import matplotlib as mpl

    colours = {"text.color": ink.ink, "axes.titlecolor": ink.ink, "legend.labelcolor": ink.ink, "grid.color": ink.line}
    colours |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink.soft)
    settings: dict[Any, Any] = {**_RC, **colours, "svg.hashsalt": salt}
    with mpl.rc_context(settings):
        yield


def style_of(place: int, ink: Ink) -> dict[str, Any]:
    """Return the colour, marker and dashes of a series by its place; those of `base` below 0 are ink."""
    if place == BASELINE:
        return {"color": ink.soft, "marker": "o", "linestyle": "solid"}
    if place < 0:
        return {"color": ink.ink, "marker": "", "linestyle": "dashed"}
    return {
        "color": PALETTE[place % len(PALETTE)],
        "marker": MARKERS[(place + place // len(PALETTE)) % len(MARKERS)],
        "linestyle": DASHES[place // len(PALETTE) % len(DASHES)],
    }


def size_of(figure: Figure) -> tuple[float, float, float, float]:
    """Return a figure's width and height, and its room at the left and the bottom, in inches."""
    if isinstance(figure, Matrix):
        left = _room(figure.rows)
        return left + CELL[0] * len(figure.columns) + 0.1, 0.1 + _top(figure) + CELL[1] * len(figure.rows), left, 0.08
    if isinstance(figure, Rows):
        lines = max(_wrapped(label).count("\n") + 1 for label in figure.rows)
        each = max(0.32, 0.16 * lines + 0.05, 0.13 * len(figure.series))
        return WIDTH, 0.75 + each * len(figure.rows), min(_room(figure.rows), 0.45 * WIDTH), 0.52
    return WIDTH, HEIGHT, 0.62, 0.52


def _top(figure: Figure) -> float:
    """Return the inches above a figure's axes: for a matrix's columns, or for what a row chart compares with."""
    if isinstance(figure, Matrix):
        return 0.16 + 0.16 * max(_column(name).count("\n") + 1 for name in figure.columns)
    return 0.24 if isinstance(figure, Rows) else 0.12


def _column(name: str) -> str:
    return textwrap.fill(name, 14)


def _room(labels: Sequence[str]) -> float:
    """Return the inches that labels of the y axis need: a letter has 0.6 em in the mean, at 9.5 points."""
    lines = [line for label in labels for line in _wrapped(label).split("\n")]
    return 0.25 + max(map(len, lines), default=0) * 0.6 * 9.5 / 72


def _wrapped(label: str) -> str:
    return textwrap.fill(label, LABEL)


def svg(figure: Figure) -> str:
    """Return a figure as SVG for the page; its title is read aloud, and stands above it on the page."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Drawing

    width, height, left, bottom = size_of(figure)
    with _settings(ON_PAGE, figure.name):
        drawing = Drawing(figsize=(width, height))
        FigureCanvasSVG(drawing)
        top = _top(figure)
        drawing.subplots_adjust(left=left / width, right=1 - 0.12 / width, bottom=bottom / height, top=1 - top / height)
        draw(drawing.add_subplot(), figure, ON_PAGE)
        out = io.StringIO()
        drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return page_svg(out.getvalue(), figure.name, figure.title, fixed=isinstance(figure, Matrix))


def pdf(section: Section, title: str) -> bytes:
    """Return a plot as PDF: its charts side by side, three in a row, with its legend; of matrices, which have sizes of their own, a page
    each.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    alone = any(isinstance(figure, Matrix) for figure in section.figures)
    sheets = [[figure] for figure in section.figures] if alone else [list(section.figures)]
    out = io.BytesIO()
    no_date: dict[str, Any] = {"CreationDate": None, "Creator": None, "Producer": None}
    with _settings(ON_PAPER, title), PdfPages(out, metadata=no_date) as pages:
        for figures in sheets:
            pages.savefig(_sheet(figures, section.legend, title))
    return out.getvalue()


def _sheet(figures: Sequence[Figure], legend: Sequence[tuple[str, int]], title: str) -> Any:
    """Return a page of figures, three in a row. Places are given in inches: to have matplotlib find them takes ten times as long."""
    from matplotlib.figure import Figure as Drawing

    across = min(3, len(figures))
    sizes = [size_of(figure) for figure in figures]
    wide = max(size[0] for size in sizes)
    heights = [max(size[1] for size in sizes[at : at + across]) + _TITLE for at in range(0, len(figures), across)]
    entries = max(1, int(wide * across / _ENTRY))
    beneath = 0.25 * -(-len(legend) // entries) + 0.1
    width, height = wide * across, sum(heights) + 0.4 + beneath
    drawing = Drawing(figsize=(width, height))
    for place, (figure, size) in enumerate(zip(figures, sizes, strict=True)):
        row, column = divmod(place, across)
        top = height - 0.4 - sum(heights[:row]) - _TITLE - _top(figure)
        tall = size[1] - size[3] - _top(figure)
        box = (column * wide + size[2], top - tall, size[0] - size[2] - 0.12, tall)
        axes = drawing.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        draw(axes, figure, ON_PAPER)
        heading = textwrap.fill(figure.title, 52)
        drawing.text((column * wide + 0.1) / width, (top + _top(figure) + 0.02) / height, heading, va="bottom", fontsize=9.5)
    drawing.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontweight="bold", fontsize=11)
    if legend:
        handles = [_handle(name, place) for name, place in legend]
        drawing.legend(handles=handles, loc="lower left", ncols=min(len(handles), entries), bbox_to_anchor=(0, 0), borderpad=0.2)
    return drawing


def _handle(name: str, place: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, markersize=5, **style_of(place, ON_PAPER))


def draw(axes: Axes, figure: Figure, ink: Ink) -> None:
    """Draw a figure on axes."""
    if isinstance(figure, Matrix):
        _draw_matrix(axes, figure, ink)
    elif isinstance(figure, Rows):
        _draw_rows(axes, figure, ink)
    else:
        _draw_chart(axes, figure, ink)


def _draw_chart(axes: Axes, chart: Chart, ink: Ink) -> None:
    axes.set_xscale(chart.x_scale)
    axes.set_yscale(chart.y_scale)
    for text, level in chart.levels:
        axes.axhline(level, color=ink.soft, linewidth=1, linestyle=(0, (1, 2)), gid=f"level-{text}")
        axes.text(1, level, text, transform=axes.get_yaxis_transform(), ha="right", va="bottom", color=ink.soft, fontsize=8.5)
    for place, series in enumerate(chart.series):
        _draw_series(axes, place, series, ink)
    if chart.same:
        _same_range(axes, ink)
    if chart.percent[1] and chart.y_scale == "linear":  # bands of fits leave what a share can be
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.03), min(high, 1.03))
    _format(axes.xaxis, chart.x_scale, chart.percent[0])
    _format(axes.yaxis, chart.y_scale, chart.percent[1])
    if chart.ticks:
        _named_ticks(axes, chart)
    axes.set(xlabel=chart.x, ylabel=chart.y)


def _draw_series(axes: Axes, place: int, series: Series, ink: Ink) -> None:
    style = style_of(series.colour, ink)
    x = [point.x for point in series.points]
    y = [point.y for point in series.points]
    bounded = [point for point in series.points if point.low is not None and point.high is not None]
    if bounded and series.kind == "points":
        lows, highs = [point.low or 0.0 for point in bounded], [point.high or 0.0 for point in bounded]
        axes.vlines([point.x for point in bounded], lows, highs, color=style["color"], linewidth=1, alpha=0.6, gid=f"bars-{place}")
    elif bounded:
        lows, highs = [point.low or 0.0 for point in bounded], [point.high or 0.0 for point in bounded]
        alpha = 0.16 if series.colour >= 0 else 0.1
        axes.fill_between([point.x for point in bounded], lows, highs, color=style["color"], alpha=alpha, linewidth=0, gid=f"band-{place}")
        if len(bounded) < len(series.points):  # a band alone would hide which points have an interval
            axes.vlines([point.x for point in bounded], lows, highs, color=style["color"], linewidth=1, gid=f"bars-{place}")
    marker = "" if series.kind == "curve" else style["marker"]
    line = "none" if series.kind == "points" else style["linestyle"]
    axes.plot(x, y, color=style["color"], linestyle=line, marker=marker, markersize=4.5, gid=f"series-{place}", clip_on=False, zorder=3)
    for point in series.points:
        if point.label in series.named:
            axes.annotate(point.label, (point.x, point.y), (4, -9), textcoords="offset points", fontsize=8, color=ink.ink)


def _same_range(axes: Axes, ink: Ink) -> None:
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color=ink.soft, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(xlim=(low, high), ylim=(low, high))


def _named_ticks(axes: Axes, chart: Chart) -> None:
    places = [place for place, _ in chart.ticks]
    texts = [text for _, text in chart.ticks]
    axes.set_xticks(places, texts)


def _format(axis: Any, scale: str, percent: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    if scale == "logit":
        low, high = axis.get_view_interval()
        axis.set_major_locator(FixedLocator([place for place in _LOGIT_TICKS if low <= place <= high]))
    if scale == "log":
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=_subdivisions(high / low)))
    if scale != "linear":
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}" if percent else tick(value)))


def _subdivisions(span: float) -> tuple[float, ...]:
    """Return which multiples of powers of ten are ticks: few enough for their numbers to stand apart."""
    if span > 300:
        return (1.0,)
    return (1.0, 2.0, 5.0) if span > 6 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def tick(value: float) -> str:
    """Return a tick's number: 0.01, 25, 1,000, 20 k, 3 M."""
    for unit, least in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= least:
            return f"{value / (1e3 if unit == 'k' else least):.4g} {unit}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _draw_rows(axes: Axes, figure: Rows, ink: Ink) -> None:
    axes.set_xscale(figure.scale)
    if figure.line:
        axes.axvline(figure.line[1], color=ink.soft, linewidth=1, linestyle=(0, (1, 2)))
    for place, series in enumerate(figure.series):
        style = style_of(series.colour, ink)
        offset = 0.66 * ((place + 0.5) / len(figure.series) - 0.5)
        rows = [point.x + offset for point in series.points]
        for row, point in zip(rows, series.points, strict=True):
            if point.low is not None and point.high is not None:
                axes.hlines(row, point.low, point.high, color=style["color"], linewidth=1.3, gid=f"bars-{place}")
        values = [point.y for point in series.points]
        axes.plot(values, rows, color=style["color"], linestyle="none", marker=style["marker"], markersize=5, gid=f"series-{place}")
    if not any(series.points for series in figure.series):
        axes.set_xlim(*((0.5, 2.0) if figure.scale == "log" else (0.0, 1.0)))
    _format(axes.xaxis, figure.scale, figure.percent)
    for row, _ in figure.missing:
        axes.text(0.02, row, "not estimable", transform=axes.get_yaxis_transform(), va="center", color=ink.soft, fontsize=8.5)
    axes.set_yticks(range(len(figure.rows)), [_wrapped(label) for label in figure.rows])
    axes.set(ylim=(len(figure.rows) - 0.4, -0.6), xlabel=figure.x)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if figure.line:
        text, level = figure.line
        axes.text(level, 1, text, transform=axes.get_xaxis_transform(), va="bottom", ha="center", color=ink.soft, fontsize=8.5)


def _draw_matrix(axes: Axes, matrix: Matrix, ink: Ink) -> None:
    from matplotlib.patches import Rectangle

    axes.grid(visible=False)
    for column in range(len(matrix.columns)):
        values = [row[column].value for row in matrix.cells if row[column] is not None]  # type: ignore[union-attr]
        low, high = min(values), max(values)
        for at, row in enumerate(matrix.cells):
            cell = row[column]
            if cell is None:
                axes.text(column, at, "–", ha="center", va="center", color=ink.soft)
                continue
            share = (cell.value - low) / (high - low) if high > low else 1.0
            box = Rectangle(
                (column - 0.47, at - 0.46), 0.94, 0.92, facecolor=PALETTE[0], alpha=0.05 + 0.33 * share, gid=f"cell-{at}-{column}"
            )
            axes.add_patch(box)
            sign = " ≈" if cell.like_best else ""
            weight = "bold" if cell.best else "normal"
            bounded = cell.low is not None and cell.high is not None
            axes.text(column, at - (0.17 if bounded else 0), f"{100 * cell.value:.1f}{sign}", ha="center", va="center", fontweight=weight)
            if cell.low is not None and cell.high is not None:
                interval = f"{100 * cell.low:.1f} – {100 * cell.high:.1f}"
                axes.text(column, at + 0.24, interval, ha="center", va="center", fontsize=7.5, color=ink.soft)
            if cell.best:
                axes.add_patch(Rectangle((column - 0.47, at - 0.46), 0.94, 0.92, fill=False, edgecolor=ink.ink, linewidth=1.1))
    axes.set(xlim=(-0.5, len(matrix.columns) - 0.5), ylim=(len(matrix.rows) - 0.5, -0.5))
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(matrix.columns)), [_column(name) for name in matrix.columns])
    axes.set_yticks(range(len(matrix.rows)), [_wrapped(name) for name in matrix.rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def page_svg(text: str, name: str, title: str, *, fixed: bool = False) -> str:
    """Return matplotlib's SVG as the page holds it: no prolog, no styles, the page's variables as colours, a label."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' style="([^"]*)"', _attributes, text)
    text = re.sub(r' id="(series|band|bars|cell)-([\d-]+)"', r' data-\1="\2"', text)
    # Ids are counted afresh in each file: on one page they must differ, and only clip paths and markers are referred to.
    text = re.sub(r' id="(?!m[0-9a-f]{10}|p[0-9a-f]{10})[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None
    measures = f' width="{float(size[1]) * 1.2:.0f}" height="{float(size[2]) * 1.2:.0f}"' if fixed else ""
    head = f'<svg class="chart{" fixed" if fixed else ""}" data-chart="{name}" role="img" aria-label="{html.escape(title)}"{measures}'
    text = re.sub(r"<svg[^>]*", f'{head} viewBox="0 0 {size[1]} {size[2]}"', text, count=1)
    return visible(re.sub(r"\s*\n\s*", "\n", text).strip())


def visible(text: str) -> str:
    """Return a text with characters that nobody sees, or that turn the order of writing, as escapes."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _attributes(style: re.Match[str]) -> str:
    """Return a style attribute's properties as attributes of their own: `font` is the only short form that is used."""
    parts = dict(part.strip().split(": ", 1) for part in style[1].split(";") if ": " in part)
    if "font" in parts:
        short = parts.pop("font")
        size = re.search(r"([\d.]+)px", short)
        parts["font-size"] = size[1] if size else "9"
        if re.search(r"\b(bold|700)\b", short):
            parts["font-weight"] = "700"
    for dead in ("font-family", "-inkscape-stroke", "text-align"):
        parts.pop(dead, None)
    return "".join(f' {key}="{value}"' for key, value in parts.items())


def swatch(place: int) -> str:
    """Return the sign of a series for a legend: its line with its marker, as SVG."""
    from matplotlib.markers import MarkerStyle

    style = style_of(place, ON_PAGE)
    dashes = {"dashed": "5 2", "dotted": "1.5 2", "dashdot": "5 2 1.5 2"}.get(style["linestyle"], "")
    colour = _VARIABLES[style["color"]]
    line = f'<path d="M1 6H25" stroke="{colour}" stroke-width="2"{f" stroke-dasharray={chr(34)}{dashes}{chr(34)}" if dashes else ""}/>'
    shape = ""
    if style["marker"]:
        marker = MarkerStyle(style["marker"])
        outline: Any = marker.get_path().transformed(marker.get_transform()).to_polygons()[0]
        shape = "M" + "L".join(f"{13 + 8 * x:.1f} {6 - 8 * y:.1f}" for x, y in outline) + "Z"
        shape = f'<path d="{shape}" fill="{colour}"/>'
    return f'<svg class="swatch" aria-hidden="true" viewBox="0 0 26 12">{line}{shape}</svg>'
