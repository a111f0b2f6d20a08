"""Charts: that they are the page's (its colours, no styles, nothing loaded), the same every time, and show the numbers given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from curate.report import plots

STYLE = (Path(plots.__file__).parent / "style.css").read_text()
SERIES = {"one": ([1, 10, 100], [5, 20_000, 7]), "$x^2$ <b>": ([1, 5, 200], [1, 2_000, 90_000])}


def drawn(**options: bool) -> str:
    return plots.lines("a", "Words (n = 1,000)", SERIES, plots.colours_of(list(SERIES)), x="words", y="captions", **options)


def paths(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """Return the points of the lines in one colour."""
    found = [e.get("d", "") for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("path") and e.get("stroke") == colour]
    return [[(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", d)] for d in found]


def test_a_chart_takes_the_pages_colours_and_no_styles() -> None:
    svg = drawn()
    assert "style" not in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= {"--ink", "--soft", "--line", "--c0", "--c1"}
    assert not re.search(r"(href|src)=\"(?!#)", svg)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "Words (n = 1,000)"
    assert len({e.get("id") for e in root.iter() if e.get("id")}) == len([e for e in root.iter() if e.get("id")])


def test_two_charts_on_a_page_share_no_id() -> None:
    def ids(svg: str) -> set[str]:
        return set(re.findall(r' id="(p[0-9a-f]+)"', svg))

    other = plots.lines("b", "Words", SERIES, plots.colours_of(list(SERIES)), x="words", y="captions")
    assert ids(drawn())
    assert not ids(drawn()) & ids(other)


@pytest.mark.parametrize("log", [False, True])
def test_lines_go_through_the_numbers(log: bool) -> None:
    """Points lie where a linear, or logarithmic, scale puts them: distances are proportional."""
    import math

    svg = drawn(log_x=log, log_y=log)
    scale = math.log if log else float
    for colour, (xs, ys) in zip(("var(--c0)", "var(--c1)"), SERIES.values(), strict=True):
        (points,) = paths(svg, colour)
        assert len(points) == len(xs)
        across = [(scale(x) - scale(xs[0])) / (scale(xs[-1]) - scale(xs[0])) for x in xs]
        assert [(x - points[0][0]) / (points[-1][0] - points[0][0]) for x, _ in points] == pytest.approx(across, abs=1e-4)
        up = [(scale(y) - scale(min(ys))) / (scale(max(ys)) - scale(min(ys))) for y in ys]
        low, high = max(y for _, y in points), min(y for _, y in points)
        assert [(low - y) / (low - high) for _, y in points] == pytest.approx(up, abs=1e-4)


def test_equal_input_gives_equal_bytes() -> None:
    assert drawn() == drawn()


def test_outside_text_stays_out_of_charts() -> None:
    assert "x^2" not in drawn()
    with plots.chart("c", "100 % of $5 & <b>", "x", "y") as one:
        one.axes.plot([0, 1], [0, 1])
    assert "100 % of $5 &amp; &lt;b&gt;" in one.svg
    ElementTree.fromstring(one.svg)


def test_the_palette_is_the_style_sheets() -> None:
    for i in range(len(plots.PALETTE)):
        assert f"--c{i}: light-dark(" in STYLE
        assert f".c{i} {{ --source: var(--c{i}); }}" in STYLE


def test_sources_beyond_the_palette_differ_by_their_dashes() -> None:
    colours = plots.colours_of([f"{i}" for i in range(20)])
    looks = {(colour, plots.dashes(source, colours)) for source, colour in colours.items()}
    assert len(looks) == 20
    assert (colours["0"], colours["8"]) == (plots.PALETTE[0],) * 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (25, "25"), (1500, "1,500"), (20_000, "20 k"), (3e6, "3 M"), (2.5e9, "2.5 G"), (1e13, "1e+13")],
)
def test_ticks_are_written_as_the_page_writes_numbers(value: float, text: str) -> None:
    assert plots.tick(value) == text
