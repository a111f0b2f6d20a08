"""`evaluate noise`: how large a difference between two sources a planned study sees, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from eval import results
from eval.fields import ACCURACIES, where
from eval.gather import LEVELS, Entry, groups, level_of, unit_answers, units_of
from eval.statistics.planning import Plan, detectable, detectable_between_images
from shards.core.config import option
from shards.core.console import emit, say, table
from shards.core.errors import UsageError
from shards.core.notices import note

_LEVELS = tuple(LEVELS)
_MOST_PAIRS = 50  # of rows whose answers are compared for the discordance


@dataclass(frozen=True)
class NoiseConfig:
    """Flags of `evaluate noise`."""

    results: str = option("", "table of results to estimate accuracy, discordance and spreads from", positional=True, metavar="RESULTS")
    images: int = option(0, "test images; those of the results where not given", least=0)
    classes: int = option(0, "classes; those of the results where not given", least=0)
    accuracy: float = option(-1.0, "where the accuracies are expected, 0 to 1; without results, half-way from chance to 1", most=1)
    discordance: float = option(
        -1.0,
        "share of test images that exactly one of two runs has right; estimated from kept answers, else that of independent runs",
        most=1,
    )
    draws: int = option(1, "data draws of each source", least=1)
    train_seeds: int = option(1, "training seeds of each draw", least=1)
    shots: int = option(1, "draws of the shots of each training", least=1)
    sd_draw: float = option(-1.0, "standard deviation that a data draw adds to an accuracy, such as 0.01", most=1)
    sd_seed: float = option(-1.0, "the same of a training seed", most=1)
    sd_shots: float = option(-1.0, "the same of a draw of the shots", most=1)
    where: dict[str, Any] = option({}, "only results with this value, such as data=pets k=5")
    metric: str = option("main", "of the results: `main`, or one metric")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Estimates:
    """What results say: the mean accuracy, test images, classes, discordance, standard deviations by level, their degrees of freedom."""

    accuracy: float | None = None
    images: int = 0
    classes: int = 0
    discordance: float | None = None
    pairs: int = 0
    deviations: dict[str, float] = field(default_factory=dict)
    freedom: dict[str, int] = field(default_factory=dict)


def show(config: NoiseConfig) -> None:
    """Print the smallest differences that the plan sees, level by level.

    Raises:
        UsageError: no number of images or classes, an accuracy or discordance that cannot be, or no such results.
    """
    known = estimate(config) if config.results else Estimates()
    plan = planned(config, known)
    lines = series(plan)
    if config.json:
        emit({"plan": asdict(plan), "estimates": asdict(known), "detectable": lines})
        return
    emit(
        table(["varied", "draws", "seeds", "shots", "sees a difference of"], [[*list(line.values())[:4], _points(line)] for line in lines])
    )
    _tell(plan, known)


def _points(line: dict[str, Any]) -> str:
    return f"{100 * line['detectable']:.2f} points"


def _tell(plan: Plan, known: Estimates) -> None:
    say(f"{plan.images:,} test images, accuracy {plan.accuracy:.3f}, discordance {plan.discordance:.3f}; 80% power at p < 0.05")
    for level in _LEVELS:
        deviation = plan.deviations.get(level)
        df = known.freedom.get(level, 0)
        source = f"estimated, {df} degrees of freedom" if level in known.deviations else "given"
        say(
            f"{LEVELS[level]}: "
            + ("no spread known; taken as none" if deviation is None else f"deviation {100 * deviation:.2f} points ({source})")
        )
    note(
        sum(0 < df < 5 for df in known.freedom.values()),
        "[spread is|spreads are] estimated from fewer than five degrees of freedom: off by half or more",
    )


def planned(config: NoiseConfig, known: Estimates) -> Plan:
    """Return the plan of the flags, filled up from what results say.

    Raises:
        UsageError: no number of images or classes, or an accuracy or discordance that cannot be.
    """
    images, classes = config.images or known.images, config.classes or known.classes
    if images < 2 or classes < 2:
        raise UsageError(f"{images} test images of {classes} classes", "two of each at least", "--images N --classes N, or results")
    chance = 1 / classes
    guessed = (1 + chance) / 2 if known.accuracy is None else known.accuracy
    accuracy = config.accuracy if config.accuracy >= 0 else guessed
    independent = 2 * accuracy * (1 - accuracy)
    likely = independent if known.discordance is None else known.discordance
    discordance = config.discordance if config.discordance >= 0 else likely
    if accuracy <= chance:
        note(
            1,
            "planned [accuracy is|accuracies are] not above chance: a difference there says nothing of sources",
            f"{accuracy:.3f} against {chance:.3f}",
        )
    if discordance > 2 * min(accuracy, 1 - accuracy) + 1e-9:
        raise UsageError(f"--discordance {discordance:g} at accuracy {accuracy:g}", f"at most {2 * min(accuracy, 1 - accuracy):g}")
    given = {"draw": config.sd_draw, "train_seed": config.sd_seed, "shots": config.sd_shots}
    deviations = {**known.deviations, **{level: deviation for level, deviation in given.items() if deviation >= 0}}
    return Plan(images, accuracy, discordance, config.draws, config.train_seeds, config.shots, deviations)


def series(plan: Plan) -> list[dict[str, Any]]:
    """Return the smallest difference with each further level varied, from images alone to the plan, and what more draws would bring."""
    steps = [("different test images", replace(plan, draws=1, train_seeds=1, shots=1))]
    steps += [("test images", replace(plan, draws=1, train_seeds=1, shots=1))]
    if plan.shots > 1:
        steps.append(("shots", replace(plan, draws=1, train_seeds=1)))
    if plan.train_seeds > 1:
        steps.append(("training seed", replace(plan, draws=1)))
    if plan.draws > 1:
        steps.append(("data draw", plan))
    if plan.units[1] > 1:
        level, count = plan.units
        steps += [(f"{factor} times the units", _with_units(plan, level, factor * count)) for factor in (2, 4)]
    lines = []
    for position, (what, step) in enumerate(steps):
        least = detectable_between_images(step) if position == 0 else detectable(step)
        lines.append({"varied": what, "draws": step.draws, "seeds": step.train_seeds, "shots": step.shots, "detectable": least})
    return lines


def _with_units(plan: Plan, level: str, count: int) -> Plan:
    if level == "draw":
        return replace(plan, draws=count)
    return replace(plan, train_seeds=count) if level == "train_seed" else replace(plan, shots=count)


def estimate(config: NoiseConfig) -> Estimates:
    """Return what a table of results says of a study like it.

    Raises:
        UsageError: no results, or none of an accuracy.
    """
    rows = [row for row in results.read(config.results) if row["metric"] in ACCURACIES]
    rows = [row for row in rows if (row.get("main") if config.metric == "main" else row["metric"] == config.metric)]
    rows = where(rows, config.where)
    if not rows:
        raise UsageError(f"{config.results}: no such accuracy", advice="without --where and --metric")
    sizes, classes = {row["n"] for row in rows}, {row["n_classes"] for row in rows}
    if max(len(sizes), len(classes)) > 1 and not (config.images and config.classes):
        found = f"{config.results}: results of {len(sizes)} test sets"
        raise UsageError(found, "one, or both --images and --classes", "--where data=NAME")
    deviations, freedom = _deviations(rows)
    discordance, pairs = _discordance(rows, config.results)
    accuracy = sum(row["value"] for row in rows) / len(rows)
    return Estimates(accuracy, max(sizes), max(classes), discordance, pairs, deviations, freedom)


def _deviations(rows: Sequence[Entry]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the standard deviation and the degrees of freedom of each level, pooled over all that rows are of."""
    from eval.statistics.levels import components

    weighted = dict.fromkeys(_LEVELS, 0.0)
    freedom = dict.fromkeys(_LEVELS, 0)
    for group in groups(rows, _LEVELS):
        for level, (variance, df) in components(_tree(group)).items():
            weighted[level] += variance * df if df else 0.0
            freedom[level] += df
    deviations = {level: (weighted[level] / freedom[level]) ** 0.5 for level in _LEVELS if freedom[level]}
    return deviations, freedom


def _tree(group: Sequence[Entry]) -> list[list[list[float]]]:
    """Return tree[draw][seed][shot], accuracies."""
    draws: dict[str, dict[str, list[float]]] = {}
    for row in group:
        seeds = draws.setdefault(str(level_of(row, "draw")), {})
        runs = row.get("runs") or ()
        seeds.setdefault(str(level_of(row, "train_seed")), []).extend(map(float, runs if len(runs) > 1 else [row["value"]]))
    return [list(seeds.values()) for seeds in draws.values()]


def _discordance(rows: Sequence[Entry], path: str) -> tuple[float | None, int]:
    """Return the mean share of images that exactly one of two models has right, over pairs of models whose answers are kept."""
    shares: list[float] = []
    kept = [row for row in rows if row.get("predictions") and row["metric"] == "acc1"]
    for at, row in enumerate(kept):
        for other in kept[at + 1 :]:
            is_pair = row["name"] != other["name"] and all(row[f] == other[f] for f in ("data", "protocol", "k", "dataset"))
            if is_pair and len(shares) < _MOST_PAIRS:
                shares += _share_between(row, other, path)
    return (sum(shares) / len(shares), len(shares)) if shares else (None, 0)


def _share_between(row: Entry, other: Entry, path: str) -> list[float]:
    """Return the discordance of the first runs of two rows; [] where their answers cannot be read."""
    first, second = (units_of([entry], ["shots"]) for entry in (row, other))
    together = replace(first, runs=((first.runs[0][0],), (second.runs[0][0],)))
    answers = unit_answers(together, "acc1", path)
    return [] if answers is None else [float((answers[0][0] != answers[0][1]).mean())]
