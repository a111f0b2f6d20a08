"""Gather rows that differ in one thing alone: the best of a grid, and means with intervals over seeds and draws.

A gathered row is a row with more keys: `chosen` says how the best was chosen and of how many; `over` how many units each level has;
`covers` what its interval covers; `members` are the rows that it is of.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eval.fields import ACCURACIES, LOWER_IS_BETTER, OUTCOMES, covers, is_data_unknown, text, value_of
from eval.metrics import ends_of
from shards.core.errors import ProvenderError
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

    from eval.predictions import Predictions
    from eval.statistics.levels import Interval

Entry = dict[str, Any]
# The levels of a study, topmost first, by what tables call them; the draw of the shots stands in a row's runs, or in one of these settings.
LEVELS = {"draw": "data draw", "train_seed": "training seed", "shots": "shots"}
_SHOT_SEEDS = ("shots_seed", "shot_seed", "seed")


def groups(rows: Sequence[Entry], without: Sequence[str]) -> list[list[Entry]]:
    """Return rows together that differ in `without` alone, in the order of their first rows.

    Rows are alike where data, protocol, metric, k, all labels and all settings are, less what an evaluation found (`OUTCOMES`). Names and
    checkpoints may differ, since each run has its own, unless two rows of a group have the same values of `without`: then they part them.
    """
    apart = set(without) | (set(_SHOT_SEEDS) if "shots" in without else set())
    gathered: dict[str, list[Entry]] = {}
    for row in rows:
        gathered.setdefault(_identity(row, apart), []).append(row)
    parted = []
    for group in gathered.values():
        parted += _parted(group, [_by("name"), _by("checkpoint")], lambda row: tuple(text(level_of(row, f)) for f in without))
    return parted


def _identity(row: Mapping[str, Any], apart: set[str]) -> str:
    without = apart | set((row.get("chosen") or {}).get("values", {}))  # the best of each seed's grid may have another learning rate

    def kept(place: str, names: Iterable[str]) -> Entry:
        entries = row.get(place) or {}
        return {name: entries[name] for name in names if name not in without and f"{place}.{name}" not in without}

    labels, settings = row.get("labels") or {}, row.get("settings") or {}
    if "chosen_by" in settings:  # the learning rate was chosen from a grid, which rows state too: it is an outcome
        without = without | {"lr"}
    parts = [row.get(field) for field in ("data", "protocol", "metric", "k", "dataset", "classes")]
    content = [parts, kept("labels", sorted(labels)), kept("settings", sorted(set(settings) - OUTCOMES))]
    return json.dumps(content, sort_keys=True, default=str)


def _by(field: str) -> Callable[[Entry], str]:
    return lambda row: str(row.get(field))


def _parted(group: list[Entry], ways: Sequence[Callable[[Entry], str]], key: Callable[[Entry], Any]) -> list[list[Entry]]:
    """Return a group, split by the first of the ways, and by the next, where two of its rows have one key."""
    if not ways or len({key(row) for row in group}) == len(group):
        return [group]
    split: dict[str, list[Entry]] = {}
    for row in group:
        split.setdefault(ways[0](row), []).append(row)
    return [part for rows in split.values() for part in _parted(rows, ways[1:], key)]


def level_of(row: Mapping[str, Any], field: str) -> Any:
    """Return a row's unit at a level: its label or setting; of `shots`, the seed of their draw where the row is of one draw."""
    value = value_of(row, field)
    if value is not None or field != "shots":
        return value
    return next((value_of(row, name) for name in _SHOT_SEEDS if value_of(row, name) is not None), None)


def best(rows: Sequence[Entry], fields: Sequence[str]) -> list[Entry]:
    """Return the best row of each grid over `fields`, with the mean of the grid beside it.

    Chosen by the validation score (`settings.val`) of the rows that have one; where none has, by the test value, and the row says so: its
    interval does not cover that choice.
    """
    chosen_rows = []
    for group in groups(rows, fields):
        if len(group) == 1 and all(value_of(group[0], field) is None for field in fields):
            chosen_rows.append(group[0])
            continue
        validated = [row for row in group if isinstance((row.get("settings") or {}).get("val"), int | float)]
        note(
            len(group) - len(validated) if validated else 0,
            "[row|rows] of a grid [has|have] no validation score and [was|were] not chosen from",
        )
        chosen = max(validated, key=_validation) if validated else max(group, key=_test)
        how = "val" if validated else "test"
        facts = {
            "by": how,
            "of": len(group),
            "mean": sum(row["value"] for row in group) / len(group),
            "values": {field: value_of(chosen, field) for field in fields},
        }
        row = {**chosen, "chosen": facts, "name": common_name([row["name"] for row in group])}
        if how == "test" and len(group) > 1:
            row["interval"] = f"{row.get('interval') or 'no interval'}, best of {len(group)} on test"
            row["covers"] = covers(chosen)
        chosen_rows.append(row)
    return chosen_rows


def _validation(row: Entry) -> float:
    settings = row["settings"]
    return -settings["val"] if settings.get("val_metric") in LOWER_IS_BETTER else settings["val"]


def _test(row: Entry) -> float:
    return -row["value"] if row["metric"] in LOWER_IS_BETTER else row["value"]


def common_name(names: Sequence[str]) -> str:
    """Return what several models are called together: their name, or what their names begin with alike."""
    if len(set(names)) == 1:
        return names[0]
    first, last = min(names), max(names)  # what these two begin with alike, all between them do
    length = next((at for at in range(min(len(first), len(last))) if first[at] != last[at]), min(len(first), len(last)))
    shared = first[:length].rstrip("0123456789").rstrip("-_/. ")
    return f"{shared}*" if len(shared) > 2 else f"{names[0]}, …"


@dataclass(frozen=True)
class Units:
    """The units of a gathered row at its topmost level that has several.

    Attributes:
        level: of them, such as `draw`; empty where nothing varies.
        keys: of the units, in order.
        values: (units,) means over all that lies below.
        runs: per unit, the runs below it: (row, position in its runs).
        counts: how many units each level has, on average.
        same: why draws do not count as draws; empty where they do.
    """

    level: str
    keys: tuple[str, ...]
    values: tuple[float, ...]
    runs: tuple[tuple[tuple[Entry, int], ...], ...]
    counts: dict[str, int]
    same: str = ""


def over(rows: Sequence[Entry], fields: Sequence[str], results: str) -> list[Entry]:
    """Return the mean of the rows that differ in `fields` alone, with an interval that covers these fields and the test images.

    Args:
        fields: levels, topmost first, such as draw, train_seed, shots.
        results: the table, beside which answers by image are kept.
    """
    gathered = []
    for group in groups(rows, fields):
        units = units_of(group, fields)
        gathered.append(_gathered(group, units, results) if len(units.values) > 1 else _alone(group, units))
    return gathered


def _alone(group: Sequence[Entry], units: Units) -> Entry:
    """Return a row of which nothing varies: its own interval stands; where draws are the same data, it says so."""
    row = {**group[-1], "members": list(group), "covers": covers(group[-1])}
    return {**row, "interval": f"{row.get('interval') or 'no interval'} ({units.same})"} if units.same else row


def units_of(group: Sequence[Entry], fields: Sequence[str]) -> Units:
    """Return the units of a group at the topmost level that varies."""
    runs = [(row, at) for row in group for at in range(_runs(row, fields))]
    keys = {field: [_key(row, at, field) for row, at in runs] for field in fields}
    same = ""
    if "draw" in fields and len(set(keys["draw"])) > 1 and _is_one_build(group):
        same = f"all {len(set(keys['draw']))} draws are the same data"
        keys["draw"] = [""] * len(runs)
        runs, keys = _once(runs, keys)
    varying = [field for field in fields if len(set(keys[field])) > 1]
    if not varying:
        return Units("", ("",), (sum(_value(*run) for run in runs) / len(runs),), (tuple(runs),), {}, same)
    top = varying[0]
    names = tuple(sorted(set(keys[top]), key=_in_order))
    members = tuple(tuple(run for run, key in zip(runs, keys[top], strict=True) if key == name) for name in names)
    places = [[i for i, key in enumerate(keys[top]) if key == name] for name in names]
    values = tuple(_nested_mean(runs, place, [keys[f] for f in varying[1:]]) for place in places)
    return Units(top, names, values, members, _counts(keys, varying), same)


def _runs(row: Mapping[str, Any], fields: Sequence[str]) -> int:
    """Return how many runs a row counts for: its draws of the shots where they are gathered over, else one."""
    return len(row.get("runs") or ()) if "shots" in fields and len(row.get("runs") or ()) > 1 else 1


def _key(row: Mapping[str, Any], at: int, field: str) -> str:
    return f"{at}" if field == "shots" and len(row.get("runs") or ()) > 1 else text(level_of(row, field))


def _value(row: Mapping[str, Any], at: int) -> float:
    runs = row.get("runs") or ()
    return float(runs[at]) if len(runs) > 1 and at < len(runs) else float(row["value"])


def _is_one_build(group: Sequence[Mapping[str, Any]]) -> bool:
    manifests = {json.dumps(row.get("manifests") or [], sort_keys=True) for row in group}
    return len(manifests) == 1 and manifests != {"[]"}


def _once(runs: list[tuple[Entry, int]], keys: dict[str, list[str]]) -> tuple[list[tuple[Entry, int]], dict[str, list[str]]]:
    """Return each combination of keys once: the same data trained with the same seed is one run, however often it stands there."""
    combined = list(zip(*keys.values(), strict=True))
    firsts = sorted({key: at for at, key in reversed(list(enumerate(combined)))}.values())
    return [runs[at] for at in firsts], {field: [values[at] for at in firsts] for field, values in keys.items()}


def _in_order(key: str) -> tuple[float, str]:
    try:
        return float(key), key
    except ValueError:
        return float("inf"), key


def _nested_mean(runs: Sequence[tuple[Entry, int]], places: Sequence[int], below: Sequence[Sequence[str]]) -> float:
    """Return the mean over the levels below, each level's units weighing alike however many runs they have."""
    if not below:
        return sum(_value(*runs[i]) for i in places) / len(places)
    parts: dict[str, list[int]] = {}
    for i in places:
        parts.setdefault(below[0][i], []).append(i)
    return sum(_nested_mean(runs, part, below[1:]) for part in parts.values()) / len(parts)


def _counts(keys: Mapping[str, Sequence[str]], varying: Sequence[str]) -> dict[str, int]:
    """Return how many units each level has within one unit of the levels above, on average."""
    counts: dict[str, int] = {}
    above = 1
    for depth in range(len(varying)):
        distinct = len(set(zip(*(keys[field] for field in varying[: depth + 1]), strict=True)))
        counts[varying[depth]] = max(1, round(distinct / above))
        above = distinct
    return counts


def _gathered(group: Sequence[Entry], units: Units, results: str) -> Entry:
    from eval.statistics.levels import crossed_interval, spread_interval

    first = group[0]
    n = int(first.get("n") or 0) if first["metric"] in ACCURACIES else 0
    answers = unit_answers(units, str(first["metric"]), results)
    if answers is None:
        found = spread_interval(units.values, n, ends_of(str(first["metric"])))
    else:
        found = crossed_interval(answers[0], answers[1])
    levels = [LEVELS.get(level, level) for level in units.counts]
    covered = [*(levels if found.spread else []), *(["test images"] if found.images else [])]
    return {
        **first,
        "name": common_name([row["name"] for row in group]),
        "checkpoint": first["checkpoint"] if len({row["checkpoint"] for row in group}) == 1 else "",
        "manifests": first.get("manifests") if _is_one_build(group) else _all_manifests(group),
        "value": sum(units.values) / len(units.values),
        "low": found.low,
        "high": found.high,
        "interval": _said(units, found, n, answers is not None),
        "runs": units.values,
        "over": units.counts,
        "covers": covered,
        "members": list(group),
        "data_unknown": any(is_data_unknown(row) for row in group),
    }


def _all_manifests(group: Sequence[Entry]) -> list[Any]:
    return [manifest for row in group for manifest in row.get("manifests") or ()]


def _said(units: Units, found: Interval, n: int, has_answers: bool) -> str:
    """Return what the interval is over, in words: `3 draws × 2 training seeds × 640 test images`."""
    words = {"draw": "draws", "train_seed": "training seeds", "shots": "draws of shots"}
    levels = " × ".join(f"{count} {words.get(level, level)}" for level, count in units.counts.items())
    why = f" ({units.same})" if units.same else ""
    if not found.spread:
        return f"over test images ({units.same or f'all of {levels} give the same'})" if n else f"none: all of {levels} give the same"
    if not n:
        return f"{levels}, not test images{why}"
    return f"{levels} × {n} test images{'' if has_answers else ' at most'}{why}"


def unit_answers(units: Units, metric: str, results: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return what each image counts in each unit, (units, images), and the classes where the metric is per class.

    None where the metric is no accuracy, or where the answers of a run are not kept.
    """
    import numpy as np

    from eval.predictions import aligned

    parts = [[_prediction(row, at, results) for row, at in unit] for unit in units.runs]
    flat = [part for unit in parts for part in unit]
    if metric not in ACCURACIES or any(part is None for part in flat):
        return None
    try:
        together = aligned([part for part in flat if part is not None])
    except ProvenderError:
        note(1, "[group|groups] of runs [has|have] no test image in common: [its|their] intervals are without answers by image")
        return None
    counted = [(part.ranks < (5 if metric == "acc5" else 1)).astype(np.float64) for part in together]
    means, start = [], 0
    for unit in parts:
        means.append(np.mean(counted[start : start + len(unit)], axis=0))
        start += len(unit)
    return np.stack(means), together[0].labels if metric == "mean_per_class" else None


def _prediction(row: Mapping[str, Any], at: int, results: str) -> Predictions | None:
    """Return the answers of one run, less their logits; None where they are not kept."""
    digests = row.get("predictions") or ()
    if not digests or (len(row.get("runs") or ()) > 1 and len(digests) != len(row["runs"])):
        return None
    try:
        return _kept(results, digests[at if at < len(digests) else 0])
    except ProvenderError as error:
        note(1, "[file|files] of answers by image could not be read", error.found)
        return None


@functools.lru_cache(maxsize=64)
def _kept(results: str, digest: str) -> Predictions:
    """Return kept answers less their logits; each metric, pair and plot of a run asks for the same ones, 2.4 MB for 50,000 images."""
    import numpy as np

    from eval.predictions import read

    kept = read(results, digest)
    return replace(kept, logits=np.zeros((len(kept), 0), np.float32))
