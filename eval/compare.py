"""The difference between rows: paired by image where both keep their answers, over the units of a study where both have the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eval.fields import ACCURACIES, is_like, text, value_of
from eval.gather import LEVELS, Entry, Units, unit_answers, units_of
from shards.core.errors import UsageError, closest
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

_Z = 1.959964


def against(rows: Sequence[Entry], name: str, fields: Sequence[str], results: str) -> list[Entry]:
    """Return the rows with `against`: their difference to the row of the same data, protocol, shots and metric under another name.

    Args:
        name: of the model to compare with; or FIELD=VALUE, such as source=scratch: then all other labels are alike, too.
        fields: the levels that rows were gathered over.
        results: the table, beside which answers by image are kept.

    Raises:
        UsageError: no row is of this name.
    """
    field, equals, value = name.partition("=")
    others = [row for row in rows if (is_like(value_of(row, field), value) if equals else row["name"] == name)]
    if not others:
        known = sorted({text(value_of(row, field)) for row in rows} if equals else {str(row["name"]) for row in rows})
        raise UsageError(f"--against {name}: no such row", ", ".join(known[:20]), closest(value if equals else name, known))
    label = field if equals else ""
    places = _placed(others, label)
    compared = []
    for row in rows:
        other = None if any(row is entry for entry in others) else places.get(_place(row, label)) or _only_one(others, row)
        compared.append(row if other is None else {**row, "against": difference(row, other, fields, results)})
    if not any("against" in row for row in compared):
        raise UsageError(f"--against {name}: no other row is of the same data, protocol, shots and metric")
    return compared


def _place(row: Mapping[str, Any], field: str) -> str:
    parts = [row.get(name) for name in ("data", "protocol", "metric", "k", "dataset")]
    apart = {field, *(row.get("chosen") or {}).get("values", {}), *(row.get("over") or {})}
    labels = {name: value for name, value in (row.get("labels") or {}).items() if name not in apart} if field else {}
    return json.dumps([parts, labels], sort_keys=True, default=str)


def _only_one(others: Sequence[Entry], row: Mapping[str, Any]) -> Entry | None:
    """Return the row to compare with of the same data, protocol, shots and metric, where there is one alone: its labels may differ."""
    alike = [other for other in others if _place({**other, "labels": {}}, "") == _place({**row, "labels": {}}, "")]
    return alike[0] if len(alike) == 1 else None


def _placed(others: Sequence[Entry], field: str) -> dict[str, Entry]:
    places: dict[str, Entry] = {}
    for row in others:
        note(int(_place(row, field) in places), "rows to compare with stand in one place; the last one counts", str(row["name"]))
        places[_place(row, field)] = row
    return places


def difference(row: Entry, other: Entry, fields: Sequence[str], results: str) -> dict[str, Any]:
    """Return row less other: difference, low, high, p, what it is over, what it covers, and the smallest difference that it could see.

    With the answers by image of both: over units (draws, seeds, shots) where both have the same number of the same level, paired in their
    order, and over images; else the paired bootstrap over images of the means over runs, and McNemar's test where both are one run. Without
    answers: from both intervals as if independent (MOVER: Zou, Donner 2008, Stat. Med. 27, 1693).
    """
    units, others = (units_of(entry.get("members") or [entry], [*fields, *_own(entry, fields)]) for entry in (row, other))
    answers = _matched(units, others, str(row["metric"]), results)
    facts: dict[str, Any] = {"name": other["name"], "difference": row["value"] - other["value"]}
    if answers is None:
        return {**facts, **_unpaired(row, other)}
    first, second, strata = answers
    if fields and units.level and units.level == others.level and len(first) == len(second):
        return {**facts, **_over_units(first - second, strata, units)}
    return {**facts, **_over_images(first, second, strata)}


def _own(row: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Return `shots` where a row has runs of its own, so that all of them count."""
    return ["shots"] if "shots" not in fields and len(row.get("runs") or ()) > 1 else []


def _matched(units: Units, others: Units, metric: str, results: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Return the answers of both in one order of images, (units, images) each, and classes where the metric is per class."""
    together = replace(units, runs=(*units.runs, *others.runs))
    answers = unit_answers(together, metric, results)
    if answers is None:
        return None
    return answers[0][: len(units.runs)], answers[0][len(units.runs) :], answers[1]


def _over_units(differences: np.ndarray, strata: np.ndarray | None, units: Units) -> dict[str, Any]:
    from eval.statistics.levels import crossed_interval, crossed_p

    found = crossed_interval(differences, strata, (-1.0, 1.0))
    levels = [LEVELS.get(level, level) for level in units.counts]
    covers = [*(levels if found.spread else []), "test images"]
    how = f"paired over {len(differences)} units of {LEVELS.get(units.level, units.level)} and {differences.shape[1]} images"
    p = crossed_p(differences, strata) if differences.any() else 1.0
    return {"low": found.low, "high": found.high, "p": p, "how": how, "covers": covers, "detectable": _seen(differences)}


def _over_images(first: np.ndarray, second: np.ndarray, strata: np.ndarray | None) -> dict[str, Any]:
    from eval.statistics.proportions import mcnemar
    from eval.statistics.resampling import paired_bootstrap

    found = paired_bootstrap(first.mean(axis=0), second.mean(axis=0), strata, per_stratum=strata is not None)
    facts = {"low": found.low, "high": found.high, "p": found.p, "how": f"paired bootstrap over {first.shape[1]} images"}
    facts |= {"covers": ["test images"], "detectable": _seen(first.mean(axis=0, keepdims=True) - second.mean(axis=0, keepdims=True))}
    if len(first) == len(second) == 1 and strata is None:
        facts["mcnemar"] = mcnemar(first[0] > 0, second[0] > 0)
    return facts


def _seen(differences: np.ndarray) -> float:
    """Return the smallest difference that these images show: of a mean over runs, the mean square takes the place of the discordance."""
    from eval.statistics.proportions import detectable_paired

    return detectable_paired(float((differences.mean(axis=0) ** 2).mean()), differences.shape[1])


def _unpaired(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the interval of a difference from the intervals of both."""
    from statistics import NormalDist

    value, beside = row["value"], other["value"]
    bounds = (row.get("low"), row.get("high"), other.get("low"), other.get("high"))
    if any(bound is None for bound in bounds):
        return {"low": None, "high": None, "p": None, "how": "no interval of one or both", "covers": [], "detectable": None}
    low, high, other_low, other_high = (float(bound) for bound in bounds if bound is not None)
    below = ((value - low) ** 2 + (other_high - beside) ** 2) ** 0.5
    above = ((high - value) ** 2 + (beside - other_low) ** 2) ** 0.5
    gap = value - beside
    error = (below if gap > 0 else above) / _Z
    p = 2 * (1 - NormalDist().cdf(abs(gap) / error)) if error else 1.0
    facts = {
        "low": gap - below,
        "high": gap + above,
        "p": p,
        "how": "unpaired: from both intervals",
        "covers": list(row.get("covers") or []),
    }
    return {**facts, "detectable": detectable_alone(row)}


def detectable_alone(row: Mapping[str, Any]) -> float | None:
    """Return the smallest difference between this accuracy and another on as many images of its own; None of other metrics."""
    from eval.statistics.proportions import detectable_unpaired

    if row.get("metric") not in ACCURACIES or not row.get("n"):
        return None
    return detectable_unpaired(float(row["value"]), int(row["n"]))
