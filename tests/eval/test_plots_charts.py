"""Plots hold the numbers of the table: points, bands, fits and rates are those that gathering and statistics give, and are drawn there."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plots_world as planted
import pytest
from scipy.special import logit
from scipy.stats import spearmanr

from eval import results
from eval.config import SelectConfig
from eval.gather import best, over
from eval.plots import _draw, ensemble, exchange, layers, matrix, objectives, robustness, shots, size, upstream, wise
from eval.plots._config import PlotConfig
from eval.plots._view import View, view_of
from eval.plots.base import Chart, Matrix, MissingError, Rows, Section, Series, Table
from eval.results import Row
from eval.statistics.curves import effective_robustness, fit
from eval.statistics.exchange import exchange_rate
from eval.tables import selected
from shards.core import notices

LEVELS = ["draw", "train_seed", "shots"]


def view(folder: Path, rows: list[Row], **flags: Any) -> View:
    """Return the view of rows, written to a table and read again."""
    path = str(folder / "results.jsonl")
    results.append(path, rows)
    config = PlotConfig(results=path, **flags)
    return view_of(config, selected(SelectConfig(results=path)))


def chart(section: Section, title: str) -> Chart:
    """Return the chart of a title."""
    found = [figure for figure in section.figures if figure.title == title]
    assert len(found) == 1, [figure.title for figure in section.figures]
    assert isinstance(found[0], Chart)
    return found[0]


def series(figure: Chart | Rows, name: str) -> Series:
    """Return the series of a name."""
    return next(line for line in figure.series if line.name == name)


def table(section: Section, column: str) -> list[dict[str, Any]]:
    """Return the rows of the section's table that has a column."""
    found: Table = next(one for one in section.tables if column in one.header)
    return [dict(zip(found.header, row, strict=True)) for row in found.rows]


def outline(group: ElementTree.Element) -> list[tuple[float, float]]:
    """Return the vertices of a group's paths."""
    words = " ".join(e.get("d", "") for e in group.iter() if e.tag.endswith("path"))
    numbers = [float(word) for word in words.replace("M", " ").replace("L", " ").replace("z", " ").split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def places(svg: str, kind: str) -> dict[str, list[tuple[float, float]]]:
    """Return where the markers of each series, or the vertices of lines without markers, stand in an SVG."""
    found = {}
    for group in ElementTree.fromstring(svg).iter():
        if f"data-{kind}" not in group.attrib:
            continue
        marked = [(float(e.get("x", "")), float(e.get("y", ""))) for e in group.iter() if e.tag.endswith("use")]
        if not marked:
            marked = outline(group)
        elif kind == "band":  # an outline that is placed once
            ((left, down),) = marked
            marked = [(left + x, down + y) for x, y in outline(group)]
        found[group.attrib[f"data-{kind}"]] = marked
    return found


def assert_affine(values: list[float], pixels: list[float]) -> None:
    """Fail unless pixels are a linear function of values: one scale and one origin for all points of a chart."""
    design = np.stack([np.ones(len(values)), values], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, np.array(pixels), rcond=None)
    assert np.abs(design @ coefficients - pixels).max() < 0.01  # points of 72 to the inch


SCALES = {"linear": lambda values: values, "log": np.log, "logit": logit}


@pytest.mark.parametrize("module", [shots, size, objectives, exchange, upstream, robustness, wise, layers, ensemble])
def test_every_point_is_drawn_at_its_number(module: Any, tmp_path: Path) -> None:
    rows = [*planted.curves(), *planted.objectives(), *planted.upstream(), *planted.wise(), *planted.layers(), *planted.ensembles()]
    section = module.build(view(tmp_path, [*rows, *planted.shifted()]))
    for figure in section.figures:
        drawn = places(_draw.svg(figure), "series")
        across: list[float] = []
        up: list[float] = []
        points = []
        for place, line in enumerate(figure.series):
            assert len(drawn[str(place)]) == len(line.points)
            points += drawn[str(place)]
            across += [point.x for point in line.points]
            up += [point.y for point in line.points]
        if isinstance(figure, Rows):
            assert_affine(list(SCALES[figure.scale](np.array(up))), [x for x, _ in points])
            assert [round(y) for _, y in points] == sorted(round(y) for _, y in points) or len(figure.series) > 1
        else:
            assert_affine(list(SCALES[figure.x_scale](np.array(across))), [x for x, _ in points])
            assert_affine(list(SCALES[figure.y_scale](np.array(up))), [y for _, y in points])


def test_bands_reach_from_low_to_high(tmp_path: Path) -> None:
    figure = chart(shots.build(view(tmp_path, planted.curves())), "pets")
    svg = _draw.svg(figure)
    bands, lines = places(svg, "band"), places(svg, "series")
    line = figure.series[0]
    values = [point.y for point in line.points] + [bound for p in line.points for bound in (p.low, p.high) if bound is not None]
    pixels = [y for _, y in lines["0"]]
    for x, _ in lines["0"]:
        column = [y for at, y in bands["0"] if abs(at - x) < 0.01]
        pixels += [max(column), min(column)]  # low is further down
    assert_affine(values, pixels)


def test_points_are_the_gathered_rows(tmp_path: Path) -> None:
    rows = planted.grid()
    seen = view(tmp_path, rows)
    section = shots.build(seen)
    expected = over(best(planted.plain(rows), ["lr"]), LEVELS, seen.config.results)
    for target in ("pets", "eurosat"):
        for line in chart(section, target).series:
            own = [row for row in expected if (row["data"], row["labels"]["source"], row["labels"]["size"]) == (target, line.name, 4000)]
            assert [(p.y, p.low, p.high, p.n) for p in line.points] == [(row["value"], row["low"], row["high"], 400) for row in own]
            assert all("2 training seeds × 400 test images" in p.interval for p in line.points)
    assert any("4,000 samples, the largest size" in sentence for sentence in section.said)
    assert "Intervals are at 95% and cover: training seed, test images." in section.said


def test_the_planted_order_and_the_shrinking_gap_come_out(tmp_path: Path) -> None:
    figure = chart(shots.build(view(tmp_path, planted.curves())), "pets")
    assert figure.ticks == ((0.0, "1"), (1.0, "5"), (2.0, "all"))
    assert figure.levels == (("chance", 0.1),)
    gaps = [a.y - b.y for a, b in zip(series(figure, "redcaps").points, series(figure, "shutterstock").points, strict=True)]
    assert gaps == pytest.approx([0.09, 0.063, 0.027], abs=0.005)


def test_sizes_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
    rows = [*planted.curves()]
    unlabelled = [replace(row, labels={k: v for k, v in row.labels.items() if k != "size"}) for row in rows]
    for folder, some in (("a", rows), ("b", unlabelled)):  # without the label the manifests tell
        (tmp_path / folder).mkdir()
        seen = view(tmp_path / folder, some)
        if folder == "b":
            assert {point.x for figure in size.build(seen).figures for line in figure.series for point in line.points} == {1000, 2000, 4000}  # type: ignore[union-attr]
            continue
        figure = chart(size.build(seen), "pets, all images")
        assert figure.x_scale == "log"
        assert [point.x for point in series(figure, "laion").points] == [1000, 2000, 4000]
        assert np.diff([point.y for point in series(figure, "laion").points]) == pytest.approx([0.03, 0.03], abs=0.005)


def test_objectives_stand_in_rows(tmp_path: Path) -> None:
    section = objectives.build(view(tmp_path, [*planted.curves(), *planted.objectives()]))
    figure = next(one for one in section.figures if one.title == "pets, all images")
    assert isinstance(figure, Rows)
    assert figure.rows == ("clip", "simclr", "supervised")
    values = [point.y for point in series(figure, "redcaps").points]
    assert [values[0] - value for value in values] == pytest.approx([0, 0.1, 0.04])


def test_a_matrix_says_which_differences_are_significant(tmp_path: Path) -> None:
    section = matrix.build(view(tmp_path, planted.curves()))
    few = next(one for one in section.figures if one.title == "1 shot")
    assert isinstance(few, Matrix)
    column = few.columns.index("pets")
    by_source = {name: cells[column] for name, cells in zip(few.rows, few.cells, strict=True)}
    assert [name for name, cell in by_source.items() if cell and cell.best] == ["redcaps"]
    pairs = [row for row in table(section, "p (Holm)") if row["table"] == "1 shot" and row["target"] == "pets"]
    assert len(pairs) == 3
    for pair in pairs:
        if "redcaps" in (pair["source"], pair["less"]):
            other = pair["less"] if pair["source"] == "redcaps" else pair["source"]
            found = by_source[other]
            assert found is not None
            assert found.like_best == (pair["p (Holm)"] >= 0.05)
    texts = [element.text for element in ElementTree.fromstring(_draw.svg(few)).iter() if element.tag.endswith("text")]
    for cells in few.cells:
        for cell in cells:
            assert cell is not None
            assert f"{100 * cell.value:.1f}{' ≈' if cell.like_best else ''}" in texts
            assert cell.low is not None
            assert f"{100 * cell.low:.1f} – {100 * (cell.high or 0):.1f}" in texts


def test_a_paired_difference_is_found_where_answers_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "results.jsonl")
    section = matrix.build(view(tmp_path, planted.answered(path)))
    (pair,) = table(section, "p (Holm)")
    assert pair["how"].startswith("paired bootstrap over 400 images")
    assert pair["p"] < 0.01  # unpaired intervals would overlap: 59.0% against 54.5% of 400


def test_holm() -> None:
    assert matrix.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # worked by hand: 3, 1→2·0.03, 2, 4 times
    assert matrix.holm([0.9, 0.8]) == [1.0, 1.0]


def test_exchange_rates_are_those_of_the_sizes(tmp_path: Path) -> None:
    section = exchange.build(view(tmp_path, planted.curves()))
    rates = {(row["one sample of"], row["in samples of"], row["shots"]): row for row in table(section, "worth") if row["panel"] == "pets"}
    found = rates["redcaps", "shutterstock", "all images"]
    assert found["worth"] == pytest.approx(2 ** (0.027 / 0.03), rel=0.15)
    assert found["low"] < 2**0.9 < found["high"]
    points = {
        source: [(s, planted.accuracy(source, s, "all", seed=seed)) for s in planted.SIZES for seed in (0, 1)] for source in planted.SOURCES
    }
    sizes_a, accuracies_a = map(np.array, zip(*points["redcaps"], strict=True))
    sizes_b, accuracies_b = map(np.array, zip(*points["shutterstock"], strict=True))
    oracle = exchange_rate(sizes_a, accuracies_a, sizes_b, accuracies_b)
    assert (found["worth"], found["low"], found["high"]) == pytest.approx((oracle.value, oracle.low, oracle.high))
    few = rates["redcaps", "shutterstock", "1 shot"]
    assert few["worth"] is None
    assert "do not overlap" in few["why not"]
    figure = next(one for one in section.figures if one.title == "pets")
    assert isinstance(figure, Rows)
    assert any("redcaps in shutterstock, 1 shot: not estimable: the curves do not overlap" in sentence for sentence in figure.said)
    assert "not estimable" in _draw.svg(figure)


def test_upstream_has_the_correlation_and_the_fit(tmp_path: Path) -> None:
    xs = np.linspace(0.1, 0.75, 12)
    ys = 1 - (0.1 + 0.7 * (1 - xs) ** 1.5) + 0.002 * np.cos(7 * xs)
    rows = []
    for at, (x, y) in enumerate(zip(xs.tolist(), ys.tolist(), strict=True)):
        named = planted.labelled(f"s{at % 3}", 1000 * (at + 1))
        rows.append(planted.row(x, data="imagenet", protocol="zeroshot", k=None, classes="i" * 64, **named))
        rows.append(planted.row(y, k="all", **named))
    section = upstream.build(view(tmp_path, rows))
    (line,) = table(section, "Spearman's ρ")
    assert line["Spearman's ρ"] == pytest.approx(spearmanr(xs, ys)[0])
    assert line["α"] == pytest.approx(1.5, abs=0.25)
    assert line["least error"] == pytest.approx(0.1, abs=0.06)
    figure = chart(section, "pets, all images") if len(section.figures) > 1 else section.figures[0]
    assert isinstance(figure, Chart)
    curve = next(one for one in figure.series if one.kind == "curve")
    oracle = fit(1 / (1 - xs), ys)
    at = np.array([point.x for point in curve.points])
    low, high = oracle.interval(1 / (1 - at))
    assert [point.y for point in curve.points] == pytest.approx(oracle.predict(1 / (1 - at)).tolist())
    assert [point.low for point in curve.points] == pytest.approx(low.tolist())
    assert [point.high for point in curve.points] == pytest.approx(high.tolist())
    assert sum(len(one.points) for one in figure.series if one.kind == "points") == 12


def test_upstream_needs_its_set_named(tmp_path: Path) -> None:
    rows = [*planted.curves(), *(replace(row, data="webset") for row in planted.upstream())]
    with pytest.raises(MissingError, match="no --upstream"):
        upstream.build(view(tmp_path, rows))
    named = view_of(
        replace(view(tmp_path, []).config, upstream="webset:zeroshot"), selected(SelectConfig(results=str(tmp_path / "results.jsonl")))
    )
    assert upstream.build(named).figures


def test_the_best_of_the_grid_and_its_mean_stand_side_by_side(tmp_path: Path) -> None:
    section = upstream.build(view(tmp_path, [*planted.grid(kept=(-0.04, 0.0)), *planted.upstream()]))
    top, mean = chart(section, "pets, all images: best of the grid"), chart(section, "pets, all images: mean of the grid")
    for one, other in zip(top.series, mean.series, strict=True):
        if one.kind == "points":
            assert [a.y - b.y for a, b in zip(one.points, other.points, strict=True)] == pytest.approx([0.02] * 3)
            assert [a.x for a in one.points] == [b.x for b in other.points]


def test_what_was_chosen_on_test_is_said(tmp_path: Path) -> None:
    rows = [replace(row, settings={"lr": row.settings["lr"], "selected_on": "test"}) for row in planted.grid()]  # said twice, counted once
    section = shots.build(view(tmp_path, rows))
    assert any("18 of 18 values are the best of a grid on the test set itself" in sentence for sentence in section.said)


def test_robustness_is_the_planted_distance(tmp_path: Path) -> None:
    section = robustness.build(view(tmp_path, planted.shifted()))
    lines = table(section, "beyond the line")
    for line in lines:
        assert line["beyond the line"] == pytest.approx(0.1 if line["objective"] == "clip" else 0.0, abs=1e-6)
        assert line["low"] < line["beyond the line"] < line["high"]
    (figure,) = section.figures
    assert isinstance(figure, Chart)
    line = series(figure, "baseline line")
    assert [logit(p.y) for p in line.points] == pytest.approx([0.9 * logit(p.x) - 0.8 for p in line.points])
    base = np.array([(p.x, p.y) for p in series(figure, "baseline models").points])
    oracle = effective_robustness(base, np.array([[line.points[3].x, 0.5]]))[0]
    assert line.points[3].low == pytest.approx(0.5 - oracle.high)
    assert line.points[3].high == pytest.approx(0.5 - oracle.low)


def test_other_names_of_shifts_and_baselines(tmp_path: Path) -> None:
    rows = [replace(row, data=row.data.replace("pacs/", "rough-")) for row in planted.shifted()]
    with pytest.raises(MissingError, match="no data set has a shifted twin"):
        robustness.build(view(tmp_path, rows))
    flags = {"shift": {"rough-sketch": "pacs"}, "baseline": {"objective": "clip"}}
    again = view_of(replace(view(tmp_path, []).config, **flags), selected(SelectConfig(results=str(tmp_path / "results.jsonl"))))
    lines = table(robustness.build(again), "beyond the line")
    assert [line["beyond the line"] < -0.05 for line in lines] == [line["objective"] == "supervised" for line in lines]


def test_wise_ft_curves_are_means_over_runs(tmp_path: Path) -> None:
    (figure,) = wise.build(view(tmp_path, planted.wise())).figures
    assert isinstance(figure, Chart)
    points = series(figure, "laion").points
    assert [point.x for point in points] == pytest.approx([a / 10 for a in range(11)])
    assert points[5].y == pytest.approx(0.3 + 0.15 + 0.075 + 0.005)
    assert all(point.low is not None and point.low < point.y for point in points)


def test_wise_ft_on_a_shifted_set_is_a_path(tmp_path: Path) -> None:
    rough = [
        replace(
            row,
            data="pets/sketch",
            settings={**row.settings, "acc1_by_alpha": {a: v / 2 for a, v in row.settings["acc1_by_alpha"].items()}},
        )
        for row in planted.wise()
    ]
    section = wise.build(view(tmp_path, [*planted.wise(), *rough]))
    path, curve = chart(section, "pets/sketch: from α = 0 to 1"), chart(section, "pets")
    assert [point.x for point in series(path, "laion").points] == [point.y for point in series(curve, "laion").points]
    assert [point.y for point in series(path, "laion").points] == pytest.approx([point.y / 2 for point in series(curve, "laion").points])
    assert path.x == "accuracy on pets, %"


def test_layers_stand_by_depth(tmp_path: Path) -> None:
    section = layers.build(view(tmp_path, planted.layers()))
    for pooled, less in (("cls", 0.0), ("1", 0.03)):
        points = series(chart(section, f"pets, pooled {pooled}"), "laion").points
        assert [point.x for point in points] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert points[1].y == pytest.approx(0.3 + 0.25 * (1 - math.exp(-1)) - less)
    assert points[-1].y == pytest.approx(0.3 + 0.25 * (1 - math.exp(-4)))  # the model's own features end both curves
    assert [line["saturates at"] for line in table(section, "saturates at")] == [0.8] * 3


def test_ensembles_by_members(tmp_path: Path) -> None:
    section = ensemble.build(view(tmp_path, planted.ensembles()))
    assert [figure.y for figure in section.figures if isinstance(figure, Chart)] == ["accuracy, %", "NLL, nats per image", "ECE, %"]
    accuracy = section.figures[0]
    assert isinstance(accuracy, Chart)
    assert [point.x for point in series(accuracy, "global").points] == [1, 2, 3, 4, 5]
    assert series(accuracy, "global").points[4].y == pytest.approx(0.6 + 2 * 0.03 * 0.8)


def test_ensembles_are_no_models_of_other_plots(tmp_path: Path) -> None:
    seen = view(tmp_path, [*planted.ensembles(), *planted.layers()])
    for module in (shots, size, matrix, exchange, objectives, upstream, robustness, wise):
        with pytest.raises(MissingError):
            module.build(seen)


def test_rows_without_labels_are_called_by_their_names(tmp_path: Path) -> None:
    rows = [planted.row(0.2 + 0.1 * at, name=name, checkpoint=name, k=k) for name in ("one", "two") for at, k in enumerate((1, 5))]
    seen = view(tmp_path, rows)
    assert list(seen.places) == ["one", "two"]
    (figure,) = shots.build(seen).figures
    assert isinstance(figure, Chart)
    assert [line.name for line in figure.series] == ["one", "two"]


def test_what_else_differs_makes_panels(tmp_path: Path) -> None:
    rows = [replace(row, settings={"epochs": epochs}, config=str(epochs)) for row in planted.curves() for epochs in (16, 128)]
    titles = [figure.title for figure in shots.build(view(tmp_path, rows)).figures]
    assert titles == ["eurosat, epochs 16", "eurosat, epochs 128", "pets, epochs 16", "pets, epochs 128"]


def test_many_panels_are_cut_and_noted(tmp_path: Path) -> None:
    rows = [planted.row(0.3, data=f"set{at}", k=k, **planted.labelled("redcaps")) for at in range(30) for k in (1, 5)]
    notices.clear()
    assert len(shots.build(view(tmp_path, rows)).figures) == 24
    assert notices.lines() == ["6 panels beyond 24 of a plot are not drawn: --where chooses what is"]
    notices.clear()


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    section = shots.build(view(tmp_path, planted.curves()))
    assert _draw.svg(section.figures[0]) == _draw.svg(section.figures[0])
    assert _draw.pdf(section, "Shots") == _draw.pdf(section, "Shots")
