"""The results as plots see them: chosen, gathered, grouped by what a study says of its models, and set side by side in panels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eval.fields import OUTCOMES, chance, parse, text, value_of
from eval.gather import LEVELS, Entry, best, over
from eval.plots._config import PlotConfig
from eval.plots.base import MissingError, Point, Series
from eval.tables import is_best_on_test
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

MOST_PANELS = 24  # charts of one plot: more are a page nobody reads, and --where chooses
# Other words for the labels of a study: the published table's (`evaluate import`).
_ALSO = {"objective": "loss", "model": "arch"}
DIMENSIONS = ("data", "protocol", "k", "objective", "model", "size", "source")
# What settings that hold a curve of the row itself begin with: rows that differ in them alone differ in nothing that was set.
_CURVES = ("acc1_by_", "saturation_layer")
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}


@dataclass(frozen=True)
class View:
    """Results for plots.

    Attributes:
        every: all rows of the table that the flags let through, the best of each grid, before they are gathered over levels.
        rows: the same, gathered.
        levels: what they are gathered over, topmost first.
        places: the place of each source among colours.
    """

    config: PlotConfig
    every: tuple[Entry, ...]
    rows: tuple[Entry, ...]
    levels: tuple[str, ...]
    places: dict[str, int] = field(default_factory=dict)

    def main(self) -> list[Entry]:
        """Return the rows of the metric that is plotted: each data set's main one, or that of `--metric`.

        Ensembles and probes of layers have plots of their own, and are not among them.
        """
        wanted = self.config.metric
        single = [row for row in self.rows if row["protocol"] != "layers" and "members" not in (row.get("settings") or {})]
        return [row for row in single if (bool(row.get("main")) if wanted == "main" else row["metric"] == wanted)]

    def gathered(self, rows: Sequence[Entry]) -> list[Entry]:
        """Return other rows gathered as `rows` are: means and intervals over the same levels."""
        return over(rows, self.levels, self.config.results) if self.levels else list(rows)

    def colour(self, source: str) -> int:
        """Return a source's place among colours."""
        return self.places.get(source, len(self.places))

    def legend(self, rows: Iterable[Entry]) -> tuple[tuple[str, int], ...]:
        """Return the sources of rows with their colours, in the order of colours."""
        present = {source_of(row) for row in rows}
        return tuple((source, place) for source, place in self.places.items() if source in present)


def view_of(config: PlotConfig, rows: Sequence[Entry]) -> View:
    """Return the view of rows of a table.

    Raises:
        UsageError: no row has a field of --best or --over.
    """
    bare = [_without_curves(row) for row in rows]
    wanted = [name for name in parse(config.over, bare, "--over", tuple(LEVELS)) if name]
    fields = parse(config.best, bare, "--best", ("lr",))
    chosen = best(bare, fields) if fields else bare
    view = View(config, tuple(chosen), (), tuple(wanted))
    gathered = view.gathered(chosen)
    sources = sorted(dict.fromkeys(source_of(row) for row in gathered), key=in_order)
    return replace(view, rows=tuple(gathered), places={source: place for place, source in enumerate(sources)})


def _without_curves(row: Entry) -> Entry:
    """Return a row whose curves stand beside its settings, so that runs with other curves are gathered all the same."""
    settings = row.get("settings") or {}
    curves = {name: value for name, value in settings.items() if name.startswith(_CURVES)}
    if not curves:
        return row
    return {**row, "settings": {name: value for name, value in settings.items() if name not in curves}, "curves": curves}


def said_of(row: Mapping[str, Any], name: str) -> Any:
    """Return what a row says of itself under a name, or under the other word for it."""
    value = value_of(row, name)
    return value_of(row, _ALSO[name]) if value is None and name in _ALSO else value


def source_of(row: Mapping[str, Any]) -> str:
    """Return a row's source, or the model's name where it has no such label."""
    return text(said_of(row, "source")) or text(row.get("name"))


def size_of(row: Mapping[str, Any]) -> float | None:
    """Return the samples that a model was trained on: its label `size` (2000, 2.7M), else those of its manifests."""
    labelled = said_of(row, "size")
    if isinstance(labelled, int | float) and not isinstance(labelled, bool):
        return float(labelled) if labelled > 0 else None
    number = re.fullmatch(r"\s*([\d.,]+)\s*([kmbg]?)\s*", str(labelled or ""), re.IGNORECASE)
    if number:
        return float(number[1].replace(",", "")) * _UNITS.get(number[2].lower(), 1)
    first = (row.get("members") or [row])[0]
    samples = [manifest.get("samples") for manifest in first.get("manifests") or () if isinstance(manifest, dict)]
    known = [float(count) for count in samples if isinstance(count, int | float)]
    return sum(known) or None


def in_order(value: Any) -> tuple[int, float, str]:
    """Return what sorts numbers as numbers, and words behind them; `all` comes last."""
    word = text(value)
    try:
        return (0, float(word), word)
    except ValueError:
        return (2 if word == "all" else 1, 0.0, word)


def shots_text(k: Any) -> str:
    """Return a number of shots in words."""
    word = text(k)
    if word in ("", "all"):
        return "all images" if word else ""
    return f"{word} {'shot' if word == '1' else 'shots'}"


def word_of(row: Mapping[str, Any], name: str) -> str:
    """Return a row's value of a dimension as a title has it."""
    if name == "source":
        return source_of(row)
    if name == "k":
        return shots_text(row.get("k"))
    if name == "size":
        size = size_of(row)
        return "" if size is None else f"{size:,.0f} samples"
    return text(said_of(row, name))


def key_of(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return a row's values of dimensions."""
    return tuple(word_of(row, name) for name in names)


def varying(rows: Sequence[Entry], names: Iterable[str]) -> list[str]:
    """Return the dimensions in which rows differ."""
    return [name for name in names if len({word_of(row, name) for row in rows}) > 1]


@dataclass(frozen=True)
class Panel:
    """Rows that belong into one chart, under what tells it from the others."""

    title: str
    rows: tuple[Entry, ...]


def panels(
    rows: Sequence[Entry], apart: Sequence[str], within: Sequence[str], wanted: Callable[[Panel], bool] = lambda _: True
) -> list[Panel]:
    """Return rows by what tells them apart: `apart`, and whatever else two rows of one panel and one place (`within`) differ in.

    Args:
        apart: dimensions that make a panel.
        within: dimensions that make a point of it, such as source and k.
        wanted: which panels can be drawn; only these count towards MOST_PANELS.
    """
    names = [*apart, *_beyond(rows, [*apart, *within])]
    shown = varying(rows, names)
    if "data" in names and "data" not in shown:
        shown = ["data", *shown]
    by_key: dict[tuple[str, ...], list[Entry]] = {}
    for row in rows:
        by_key.setdefault(key_of(row, names), []).append(row)
    titles = {key: ", ".join(filter(None, _titled(group[0], shown))) for key, group in by_key.items()}
    ordered = sorted(by_key, key=lambda key: tuple(in_order(sort_value(by_key[key][0], name)) for name in names))
    every = [Panel(titles[key], tuple(_once(by_key[key], within))) for key in ordered]
    found = [panel for panel in every if wanted(panel)]
    if len(found) > MOST_PANELS:
        note(len(found) - MOST_PANELS, f"[panel|panels] beyond {MOST_PANELS} of a plot [is|are] not drawn", "--where chooses what is")
    return found[:MOST_PANELS]


def sort_value(row: Mapping[str, Any], name: str) -> Any:
    """Return what orders rows by a dimension: numbers of shots and sizes as numbers."""
    if name == "k":
        return row.get("k")
    return size_of(row) or 0 if name == "size" else word_of(row, name)


def _titled(row: Entry, names: Sequence[str]) -> list[str]:
    words = [(name, word_of(row, name)) for name in names]
    return [word if name in (*DIMENSIONS, "metric", "name") else f"{name.partition('.')[2] or name} {word}" for name, word in words if word]


def _once(rows: Sequence[Entry], within: Sequence[str]) -> list[Entry]:
    """Return one row for each place: the last one, as in tables."""
    last = {key_of(row, within): row for row in rows}
    note(len(rows) - len(last), "[result falls|results fall] on the point of another one and [is|are] not drawn", "--where parts them")
    return list(last.values())


def _beyond(rows: Sequence[Entry], names: Sequence[str]) -> list[str]:
    """Return the fewest further labels and settings by which rows alike in `names` differ, the one that parts most of them first."""
    more: list[str] = []
    while True:
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for row in rows:
            groups.setdefault(key_of(row, [*names, *more]), []).append(row)
        alike = [group for group in groups.values() if len(group) > 1]
        parted = {name: sum(len({word_of(row, name) for row in group}) - 1 for group in alike) for name in _candidates(alike)}
        chosen = max(parted, key=lambda name: parted[name], default="")
        if not chosen or not parted[chosen]:
            return more
        more.append(chosen)


def _candidates(groups: Sequence[Sequence[Entry]]) -> list[str]:
    names = dict.fromkeys(name for name in DIMENSIONS if name not in ("source",))
    for group in groups:
        for row in group:
            gathered = {*(row.get("over") or {}), *(row.get("chosen") or {}).get("values", {})}
            for place in ("labels", "settings"):
                names.update(dict.fromkeys(f"{place}.{n}" for n in row.get(place) or {} if n not in OUTCOMES and n not in gathered))
    return [*names, "metric", "name"]


def at_largest(rows: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return, of each data set, the rows of the largest size that all its sources and objectives have, or of each one's largest; and a
    sentence that says so where sizes were left out.
    """
    kept: list[Entry] = []
    chosen: dict[str, None] = {}
    for group in _by_data(rows).values():
        sizes: dict[tuple[str, ...], set[float]] = {}
        for row in group:
            size = size_of(row)
            if size is not None:
                sizes.setdefault(key_of(row, ("source", "objective")), set()).add(size)
        shared = set.intersection(*sizes.values()) if sizes else set()
        largest = {key: max(shared or found) for key, found in sizes.items()}
        kept += [row for row in group if size_of(row) in (None, largest.get(key_of(row, ("source", "objective"))))]
        if sum(map(len, sizes.values())) > len(sizes):
            chosen[f"{max(shared):,.0f}" if shared else "each source's largest number of"] = None
    if not chosen:
        return kept, []
    how = " or ".join(chosen)
    return kept, [f"Models of {how} samples, the largest size that all sources of a data set have; --where size=SIZE shows another."]


def _by_data(rows: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for row in rows:
        found.setdefault(text(row.get("data")), []).append(row)
    return found


def at_ends(rows: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the rows of the fewest and of the most shots, where there are more than two numbers of them; and a sentence."""
    shots = sorted({text(row.get("k")) for row in rows if row.get("k") is not None}, key=in_order)
    if len(shots) <= 2:
        return list(rows), []
    ends = {shots[0], shots[-1], ""}
    between = ",".join(shots[1:-1])
    return [row for row in rows if text(row.get("k")) in ends], [f"The fewest and the most shots; --where k={between} shows those between."]


def point(row: Entry, x: float, label: str = "") -> Point:
    """Return a row as a point."""
    bounds = (row.get("low"), row.get("high"))
    low, high = (None, None) if None in bounds else (float(bounds[0] or 0), float(bounds[1] or 0))
    return Point(x, float(row["value"]), low, high, int(row.get("n") or 0), str(row.get("interval") or ""), label)


def band(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[Point, ...]:
    """Return a fitted curve with its bounds as points."""
    quadruples = zip(x.tolist(), y.tolist(), low.tolist(), high.tolist(), strict=True)
    return tuple(Point(at, value, least, most) for at, value, least, most in quadruples)


def by_source(view: View, rows: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return rows by source, in the order of colours."""
    found: dict[str, list[Entry]] = {}
    for row in rows:
        found.setdefault(source_of(row), []).append(row)
    return {source: found[source] for source in view.places if source in found}


def lines(view: View, rows: Iterable[Entry], x_of: Callable[[Entry], float | None]) -> tuple[Series, ...]:
    """Return a line for each source, its points in the order of x; `x_of` gives a row's x, None where it has none."""
    series = []
    for source, group in by_source(view, rows).items():
        places = [(x_of(row), row) for row in group]
        points = sorted((point(row, x) for x, row in places if x is not None), key=lambda found: found.x)
        if points:
            series.append(Series(source, tuple(points), view.colour(source)))
    return tuple(series)


def chance_of(rows: Iterable[Entry]) -> tuple[tuple[str, float], ...]:
    """Return chance as a level, where all rows have the same."""
    levels = {chance(row) for row in rows}
    level = levels.pop() if len(levels) == 1 else None
    return () if level is None else (("chance", level),)


def said_intervals(rows: Iterable[Entry]) -> tuple[str, ...]:
    """Return what the intervals cover, how many test images there are, and what was chosen on test, in sentences."""
    every = list(rows)
    covered = sorted({", ".join(row.get("covers") or []) or "nothing: there is none" for row in every})
    images = sorted({(text(row.get("data")), int(row.get("n") or 0)) for row in every})
    counted = "; ".join(f"{data} {count:,}" for data, count in images if count)
    said = [f"Intervals are at 95% and cover: {'; or '.join(covered)}."]
    if counted:
        said.append(f"Test images: {counted}.")
    on_test = sum(is_best_on_test(row) for row in every)
    if on_test:
        said.append(f"{on_test} of {len(every)} values are the best of a grid on the test set itself, and too high for that.")
    return tuple(said)


def metric_text(rows: Sequence[Entry]) -> str:
    """Return what a y axis is called."""
    names = sorted({text(row["metric"]) for row in rows})
    words = {"acc1": "accuracy", "mean_per_class": "mean per class", "acc5": "accuracy, top 5", "nll": "NLL, nats", "ece": "ECE"}
    return " or ".join(words.get(name, name) for name in names)


def unit(rows: Sequence[Entry]) -> str:
    """Return `accuracy, %`, as axes have it."""
    return f"{metric_text(rows)}, %"


def need(condition: object, why: str) -> None:
    """Raise MissingError where a plot cannot be filled."""
    if not condition:
        raise MissingError(why)
