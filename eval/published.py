"""Read the published table of Entezari et al. (arXiv 2302.13602): 947 fine-tunings, and signs of what is wrong with some of its cells.

The file is separated by tabs, whatever its name says. A line is one setting of a fine-tuning; its columns `1` to `full` are test
accuracies, in percent, by shots per class; `zero` is the accuracy before the first step. Each cell becomes a row of results. Its labels
say what was pre-trained, its settings how it was fine-tuned, and `settings.signs` what speaks against it:

    subsampled   few-shot accuracies of this target are multiples of 1/(classes · shots), by far more often than chance: the test set was
                 cut to the shots, too
    copied       all accuracies of this model are another model's best
    warmup       the 500 steps of warm-up are not fewer than the steps of training
    head         the zero-shot head is at chance for all models on this target, so that fine-tuning from it starts at random

No validation score was published, and values are the best epoch's on the test set: every row is selected on test.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from eval import results
from eval.config import RESULTS
from eval.statistics.proportions import wilson
from shards.core import fs
from shards.core.config import digest, option
from shards.core.console import emit, say, table
from shards.core.errors import UsageError
from shards.core.notices import note

VERSION = 1
WARMUP = 500  # steps, of every fine-tuning
_MODEL = ("loss", "arch", "us", "us_epochs", "us_lr", "us_bs", "us_wd")
_TUNING = ("ds_epochs", "ds_lr", "ds_bs", "ds_wd")
_CELLS = ("zero", "1", "5", "10", "20", "full", "100", "200")
COLUMNS = (*_MODEL, "ds", *_TUNING, *_CELLS)
# Classes and whole test set of each target; the latter is the number by which all accuracies on it are whole images.
TARGETS = {
    "CIFAR100": (100, 10_000), "DTD": (47, 1_880), "CALTECH101": (102, 6_084), "PETS": (37, 3_668), "REAL": (345, 52_041),
    "CLIPART": (345, 14_603), "CameraTraps": (15, 15_215), "CassavaLeafDisease": (5, 4_280), "EuroSAT": (10, 5_400),
}  # fmt: skip
_SHOTS_OF_ZERO = 20
_DIGITS = 3  # decimals of the percentages
_SURE = 1e-6  # a group of cells is sub-sampled where so many multiples have a smaller probability than this
_AT_CHANCE = 1.5  # heads of a target are at chance where the median over models is at most so many times chance (PETS 1.33, EuroSAT 1.55)
_FEWEST_MODELS = 3
_FEWEST_COPIED = 2  # accuracies on different targets: one alone may agree by chance
_FROM_SCRATCH = ("Scratch", "LAION0m")
SIGNS = ("subsampled", "copied", "warmup", "head")


@dataclass(frozen=True)
class ImportConfig:
    """Flags of `evaluate import`."""

    file: str = option(help="the published table", positional=True, metavar="FILE")
    output: str = option(RESULTS, "table of results to append to", metavar="FILE")
    strict: bool = option(False, "exit 1 where a cell has a sign")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Cell:
    """One number of the table: its line (from 1, the header not counted), its column, and the line's other entries."""

    line: int
    column: str
    percent: float
    entries: dict[str, str]
    signs: tuple[str, ...] = ()
    copied_from: str = ""
    images: int = 0

    @property
    def target(self) -> str:
        """The downstream set."""
        return self.entries["ds"]

    @property
    def model(self) -> tuple[str, str, str]:
        """Source, architecture and loss."""
        return self.entries["us"], self.entries["arch"], self.entries["loss"]

    @property
    def shots(self) -> int | None:
        """Images per class; None of `full` and `zero`."""
        return int(self.column) if self.column.isdigit() else None


@dataclass(frozen=True)
class Published:
    """The cells of the table with their signs, and how many lines and empty or unreadable cells it has."""

    cells: tuple[Cell, ...]
    lines: int
    no_numbers: int
    multiples: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # (target, column): multiples, cells


def import_table(config: ImportConfig) -> None:
    """Append the published table to a table of results, and print how many cells have which sign.

    Raises:
        UsageError: the file is not this table, or the output cannot be written.
    """
    results.check(config.output)
    published = read(config.file)
    rows = list(rows_of(published))
    results.append(config.output, rows)
    counts = Counter(sign for cell in published.cells for sign in cell.signs)
    if config.json:
        emit({"lines": published.lines, "rows": len(rows), "no_numbers": published.no_numbers, "signs": dict(counts)})
    else:
        emit(_summary(published))
    say(f"{published.lines} lines, {len(rows)} results appended to {config.output}; each was selected on the test set")
    note(published.no_numbers, "[cell holds|cells hold] no number and no blank", "such as Nan")
    words = {
        "subsampled": "cells of test sets cut to classes × shots images",
        "copied": "cells copied from another model's best",
        "warmup": "cells whose warm-up is not shorter than the training",
        "head": "cells of targets whose zero-shot heads are at chance",
    }
    for sign in SIGNS:
        note(counts[sign], words[sign], f"settings.signs has {sign!r}")


def read(path: str) -> Published:
    """Return the cells of the published table, with their signs.

    Raises:
        UsageError: no such file, other columns, a target that is not known, or entries that are no numbers.
    """
    if not fs.exists(path):
        raise UsageError(f"no table at {path!r}", "the published results, Hyperparameters_results.csv")
    content = fs.read_bytes(path).decode("utf-8-sig", "replace")
    header = content.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(content), delimiter="\t" if "\t" in header else ",", quoting=csv.QUOTE_NONE)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise UsageError(f"{path}: no column {', '.join(missing)}", f"the columns {', '.join(COLUMNS)}, separated by tabs")
    lines = [
        {name: (entry or "").strip() for name, entry in line.items() if name is not None and isinstance(entry, str)} for line in reader
    ]
    for number, line in enumerate(lines, start=1):
        _check_line(path, number, line)
    cells, no_numbers = _cells(lines)
    multiples = _multiples(cells)
    signed = _with_copies(_with_signs(cells, multiples))
    return Published(tuple(signed), len(lines), no_numbers, multiples)


def _check_line(path: str, number: int, line: dict[str, str]) -> None:
    if line.get("ds") not in TARGETS:
        raise UsageError(f"{path}: line {number}: target {line.get('ds')!r}", ", ".join(TARGETS))
    for name in ("us_epochs", "us_lr", "us_bs", "us_wd", *_TUNING):
        if _number(line.get(name, "")) is None:
            raise UsageError(f"{path}: line {number}: {name} is {line.get(name, '')!r}", "a number")


def _number(entry: str) -> float | None:
    try:
        value = float(entry)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cells(lines: Sequence[dict[str, str]]) -> tuple[list[Cell], int]:
    cells = []
    no_numbers = 0
    for number, line in enumerate(lines, start=1):
        for column in _CELLS:
            entry = line.get(column, "")
            percent = _number(entry)
            if percent is not None:
                cells.append(Cell(number, column, percent, line))
            no_numbers += percent is None and bool(entry)
    return cells, no_numbers


def is_multiple(percent: float, images: int) -> bool:
    """Return whether a percentage of three decimals is a whole number of so many images."""
    return abs(100 * round(percent * images / 100) / images - percent) <= 0.5 * 10**-_DIGITS + 1e-9


def images_if_cut(cell: Cell) -> int:
    """Return how many test images a cell has if its test set was cut to the shots, too; 0 of `full`. `zero` is taken from a 20-shot run."""
    shots = _SHOTS_OF_ZERO if cell.column == "zero" else cell.shots
    return TARGETS[cell.target][0] * shots if shots else 0


def by_chance(images: int, whole: int) -> float:
    """Return the share of the accuracies k / whole, k from 0 to whole, that look like multiples of 1 / images."""
    return sum(is_multiple(round(100 * k / whole, _DIGITS), images) for k in range(whole + 1)) / (whole + 1)


def _multiples(cells: Sequence[Cell]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return, by target and shots, how many cells are multiples of 1/(classes · shots), and of how many.

    A `zero` that the lines of one model repeat counts once: repeated, it would pass for independent evidence.
    """
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    seen = set()
    for cell in cells:
        images = images_if_cut(cell)
        place = (cell.model, cell.target, cell.percent, cell.column, 0 if cell.column == "zero" else cell.line)
        is_new = place not in seen
        seen.add(place)
        if images and is_new:
            hits, total = counts.get((cell.target, cell.column), (0, 0))
            is_hit = is_multiple(cell.percent, images)
            counts[cell.target, cell.column] = (hits + is_hit, total + 1)
    return counts


def _subsampled(multiples: dict[tuple[str, str], tuple[int, int]]) -> set[tuple[str, str]]:
    """Return the groups in which multiples are far more frequent than the whole test set gives."""
    from scipy.stats import binom

    groups = set()
    for (target, column), (hits, total) in multiples.items():
        classes, whole = TARGETS[target]
        images = classes * (_SHOTS_OF_ZERO if column == "zero" else int(column))
        if images < whole and float(binom.sf(hits - 1, total, by_chance(images, whole))) < _SURE:
            groups.add((target, column))
    return groups


def _heads_at_chance(cells: Sequence[Cell]) -> set[str]:
    """Return the targets on which the zero-shot heads of all models together are at chance."""
    values: dict[str, set[tuple[str, str, float]]] = {}
    for cell in cells:
        if cell.column == "zero" and cell.entries["loss"] == "CLIP" and cell.entries["us"] not in _FROM_SCRATCH:
            values.setdefault(cell.target, set()).add((*cell.model[:2], cell.percent / 100))
    return {
        target
        for target, found in values.items()
        if len(found) >= _FEWEST_MODELS and median(value for _, _, value in found) <= _AT_CHANCE / TARGETS[target][0]
    }


def training_steps(cell: Cell) -> int | None:
    """Return the steps of a few-shot fine-tuning; None of `full`, whose training set the table does not tell."""
    if not cell.shots:
        return None
    batches = math.ceil(TARGETS[cell.target][0] * cell.shots / float(cell.entries["ds_bs"]))
    return batches * int(float(cell.entries["ds_epochs"]))


def _with_signs(cells: Sequence[Cell], multiples: dict[tuple[str, str], tuple[int, int]]) -> list[Cell]:
    subsampled, at_chance = _subsampled(multiples), _heads_at_chance(cells)
    signed = []
    for cell in cells:
        signs = []
        images = TARGETS[cell.target][1]
        if (cell.target, cell.column) in subsampled and is_multiple(cell.percent, images_if_cut(cell)):
            signs.append("subsampled")
            images = images_if_cut(cell)
        steps = training_steps(cell)
        if steps is not None and steps <= WARMUP:
            signs.append("warmup")
        if cell.target in at_chance and cell.entries["loss"] == "CLIP":
            signs.append("head")
        signed.append(replace(cell, signs=tuple(signs), images=images))
    return signed


def _with_copies(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the sign `copied` on those of models all of whose comparable accuracies are another model's best."""
    best: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    lines: dict[tuple[str, str, str], set[tuple[str, int]]] = {}
    for cell in cells:
        lines.setdefault(cell.model, set()).add((cell.target, cell.line))
        if cell.column != "zero":
            values = best.setdefault(cell.model, {})
            values[cell.target, cell.column] = max(values.get((cell.target, cell.column), 0.0), cell.percent)
    sources = {model: _source_of(model, best) for model in best if _is_one_line_a_target(lines[model])}
    return [
        replace(cell, signs=(*cell.signs, "copied"), copied_from=" ".join(sources[cell.model])) if sources.get(cell.model) else cell
        for cell in cells
    ]


def _is_one_line_a_target(lines: set[tuple[str, int]]) -> bool:
    """Return whether a model has no grid of its own: nothing was searched, though all else was."""
    return len({target for target, _ in lines}) == len(lines)


def _source_of(
    model: tuple[str, str, str], best: dict[tuple[str, str, str], dict[tuple[str, str], float]]
) -> tuple[str, str, str] | tuple[()]:
    """Return the model whose best accuracies are all those of this one, up to a hundredth of a percent; () where there is none."""
    own = best[model]
    for other, values in best.items():
        common = [place for place in own if place in values] if other != model else []
        if len(common) >= _FEWEST_COPIED and all(abs(own[place] - values[place]) < 0.01 for place in common):
            return other
    return ()


def rows_of(published: Published) -> Iterator[results.Row]:
    """Yield the cells as rows of results; a `zero` that several lines of one model repeat is one row."""
    seen = set()
    for cell in published.cells:
        if cell.column == "zero":
            place = (cell.model, tuple(cell.entries[name] for name in _MODEL), cell.target, cell.percent)
            if place in seen:
                continue
            seen.add(place)
        yield _row(cell)


def _row(cell: Cell) -> results.Row:
    entries = cell.entries
    source, arch, loss = cell.model
    labels: dict[str, Any] = {"source": source, "loss": loss, "arch": arch, "target": cell.target, "shots_per_class": cell.column}
    if source not in _FROM_SCRATCH:
        labels["data"] = "unknown"
    labels |= {f"pretrain_{name.removeprefix('us_')}": _plain(entries[name]) for name in ("us_epochs", "us_lr", "us_bs", "us_wd")}
    is_before = cell.column == "zero"
    settings: dict[str, Any] = {"published": "arXiv 2302.13602", "selected_on": "test", "line": cell.line, "signs": list(cell.signs)}
    if not is_before:
        settings |= {name.removeprefix("ds_"): _plain(entries[name]) for name in _TUNING}
    if cell.copied_from:
        settings["copied_from"] = cell.copied_from
    share = cell.percent / 100
    low, high = wilson(round(share * cell.images), cell.images)
    return results.Row(
        name=f"{source} {arch} {loss}",
        data=cell.target,
        protocol=_protocol(cell),
        metric="acc1",
        main=True,
        value=share,
        low=low,
        high=high,
        interval=f"wilson over test images{', of a cut test set' if 'subsampled' in cell.signs else ''}",
        k=cell.shots or ("all" if cell.column == "full" else None),
        n=cell.images,
        n_undecodable=0,
        n_classes=TARGETS[cell.target][0],
        runs=(),
        checkpoint="",
        step=0,
        samples_seen=0,
        manifests=(),
        train_config="",
        dataset="",
        classes="",
        config=digest({"published": VERSION, "labels": labels, "settings": settings}),
        settings=settings,
        labels=labels,
    )


def _protocol(cell: Cell) -> str:
    """Return what a cell measures. The `zero` of a fine-tuning from a probe is the probe's, not a zero-shot head's."""
    if cell.column != "zero":
        return "finetune"
    return "zeroshot" if cell.entries["loss"] == "CLIP" else "before-finetune"


def _plain(entry: str) -> int | float:
    value = float(entry)
    return int(value) if value.is_integer() else value


def _summary(published: Published) -> str:
    """Return a table of signs by target and shots."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for cell in published.cells:
        counts.setdefault((cell.target, cell.column), Counter()).update((*cell.signs, "cells"))
    lines = []
    for (target, column), found in sorted(counts.items(), key=lambda entry: (entry[0][0], _CELLS.index(entry[0][1]))):
        hits, _ = published.multiples.get((target, column), (0, 0))
        images = TARGETS[target][0] * int(column) if column.isdigit() else ""
        lines.append([target, column, found["cells"], images, hits or "", *(found[sign] or "" for sign in SIGNS)])
    return table(["target", "shots", "cells", "classes × shots", "multiples of it", *SIGNS], lines)
