"""Charts as SVG text, drawn by matplotlib and made part of the page: its fonts, its colours, light or dark.

The same input gives the same bytes. No style sheet and no style attribute is left in the SVG, since the page's content
security policy allows only its own style sheet; colours are the page's variables, so that a theme changes them.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; the page's variables --c0 … --c7 have a shade for each theme.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a100", "#999999")
# With more sources than colours, dashes tell the second round from the first.
DASHES = ("solid", "dashed", "dotted", "dashdot")
INK, SOFT, LINE = "#010101", "#020202", "#030303"  # stand-ins, replaced by the page's variables
WIDTH, HEIGHT = 4.6, 2.9  # inches at 72 points: narrow enough to be read on a phone without shrinking
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"} | {c: f"var(--c{i})" for i, c in enumerate(PALETTE)}
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": "cycler('color', [" + ", ".join(map(repr, PALETTE)) + "])",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def colours_of(sources: Sequence[str]) -> dict[str, str]:
    """Return each source's colour, by its place; the ninth has the first one's again, with other dashes."""
    return {source: PALETTE[i % len(PALETTE)] for i, source in enumerate(sources)}


@dataclass
class Chart:
    """One chart while it is drawn: matplotlib's axes, and at the end the SVG text."""

    axes: Axes
    svg: str = field(default="")


@contextlib.contextmanager
def chart(name: str, title: str, x: str, y: str, *, width: float = WIDTH, height: float = HEIGHT, left: float = 0.72) -> Iterator[Chart]:
    """Draw one chart on `chart.axes`; afterwards `chart.svg` is its text.

    Args:
        name: unique on the page; ids inside the SVG come from it.
        title: what is shown, read aloud to those who do not see it.
        x, y: what the axes count, with their unit.
        width, height: inches of 72 points.
        left: of these, room for the labels of the y axis.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {**_RC, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        # Room for tick labels and axis titles, in inches: measuring them would double the time.
        figure.subplots_adjust(left=left / width, right=1 - 0.12 / width, bottom=0.5 / height, top=1 - 0.28 / height)
        drawn = Chart(figure.add_subplot())
        drawn.axes.set(title=title, xlabel=x, ylabel=y)
        yield drawn
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn.svg = page_svg(out.getvalue(), name, title)


def lines(
    name: str,
    title: str,
    series: dict[str, tuple[Sequence[float], Sequence[float]]],
    colours: dict[str, str],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Return a chart with a line per source: series[source] = (x values, y values), equally long."""
    with chart(name, title, x, y) as drawn:
        for source, (xs, ys) in series.items():
            drawn.axes.plot(xs, ys, color=colours[source], linestyle=dashes(source, colours))
        if log_x:
            drawn.axes.set_xscale("log")
        if log_y:
            drawn.axes.set_yscale("log")
        grouped(drawn.axes)
    return drawn.svg


def dashes(source: str, colours: dict[str, str]) -> str:
    """Return a source's line style: with it and its colour, 32 sources are told apart."""
    return DASHES[list(colours).index(source) // len(PALETTE) % len(DASHES)]


def grouped(axes: Axes) -> None:
    """Write the ticks of both axes as the page writes numbers: 10,000; log axes as powers of ten in figures."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        if scale == "log":
            axis.set_minor_locator(NullLocator())


def tick(value: float) -> str:
    """Return a tick's number: 0.01, 25, 1,000, 20 k, 3 M, 1e+12."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-4:
        return f"{value:.0e}"
    for unit, least in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if size >= least:
            return f"{value / (1e3 if unit == 'k' else least):.4g} {unit}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"


def page_svg(svg: str, name: str, title: str) -> str:
    """Return matplotlib's SVG as the page holds it: no prolog, no styles, the page's variables as colours, a label."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' style="([^"]*)"', _attributes, svg)
    # Ids are counted afresh in each file (figure_1, patch_2): on one page they must differ, and only clip paths are referred to.
    svg = re.sub(r' id="(?!m|p[0-9a-f]{10})[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    head = f'<svg class="chart" data-chart="{name}" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {size[1]} {size[2]}"'
    svg = re.sub(r"<svg[^>]*", head, svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _attributes(found: re.Match[str]) -> str:
    """Return a style attribute's properties as attributes of their own: `font` is the only short form that is used."""
    parts = dict(part.strip().split(": ", 1) for part in found[1].split(";") if ": " in part)
    if "font" in parts:
        size = re.search(r"([\d.]+)px", parts.pop("font"))
        parts["font-size"] = size[1] if size else "9"
    for dead in ("font-family", "-inkscape-stroke", "text-align"):
        parts.pop(dead, None)
    return "".join(f' {key}="{value}"' for key, value in parts.items())
