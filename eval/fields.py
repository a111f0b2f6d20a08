"""What a row of results says, by name: its own fields, the labels of its model and the settings of its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shards.core.errors import UsageError, closest

# What tells results apart for a reader.
FIELDS = ("name", "data", "protocol", "k", "metric")
DIGESTS = ("checkpoint", "dataset", "config")  # shown by their first twelve digits
ROW_FIELDS = (*FIELDS, *DIGESTS, "step", "samples_seen", "manifests", "n", "n_classes")
# Settings that an evaluation found rather than was told: rows that differ in them alone still differ in nothing that was set.
OUTCOMES = {"val", "val_metric", "epoch", "best_epoch", "chosen", "chosen_by", "chance", "majority", "signs", "copied_from", "line"}
OUTCOMES |= {"acc1_by_lr", "acc1_by_alpha", "acc1_by_cycle", "saturation_layer", "head"}
OUTCOMES |= {"bn", "soup_sizes", "pairs", "losses", "accuracies", "in_basin", "connected"}
OUTCOMES |= {"overlap", "train", "n_train", "n_train_undecodable", "n_small_classes", "such_as", "seen", "searched"}
LOWER_IS_BETTER = {"nll", "ece", "brier", "loss", "error", "barrier", "error_barrier"}
ACCURACIES = ("acc1", "acc5", "mean_per_class")
PLACES = ("labels", "settings")


def value_of(row: Mapping[str, Any], field: str) -> Any:
    """Return a row's field, label or setting, in this order; `labels.NAME` and `settings.NAME` name the place. None where it has none."""
    place, dot, name = field.partition(".")
    if dot and place in PLACES:
        return (row.get(place) or {}).get(name)
    if field in ROW_FIELDS:
        return row.get(field)
    for place in PLACES:
        entries = row.get(place) or {}
        if field in entries:
            return entries[field]
    return None


def known(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all names that `value_of` finds in some row."""
    names = dict.fromkeys(ROW_FIELDS)
    for row in rows:
        for place in PLACES:
            names.update(dict.fromkeys(row.get(place) or {}))
    return list(names)


def parse(text: str, rows: Sequence[Mapping[str, Any]], flag: str, more: Sequence[str] = ()) -> list[str]:
    """Return the names in `a,b`.

    Args:
        flag: for the message.
        more: names that are allowed beside those of the rows.

    Raises:
        UsageError: no row has such a field.
    """
    names = [*known(rows), *more]
    fields = [word.strip() for word in text.split(",") if word.strip()]
    for field in fields:
        place, dot, name = field.partition(".")
        if field not in names and not (dot and place in PLACES and name in names):
            raise UsageError(f"{flag} {text}: no field {field!r}", ", ".join(names), closest(field, names))
    return fields


def is_like(value: Any, wanted: str) -> bool:
    """Return whether a value is what a flag asks for: equal as text, or as numbers (`1e-3` is 0.001)."""
    if text(value) == wanted:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(wanted)
    except (TypeError, ValueError):
        return False


def where(rows: Sequence[dict[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows whose fields have one of the wanted values: `{"source": "redcaps,laion"}`.

    Raises:
        UsageError: no row has such a field.
    """
    left = list(rows)
    for field, words in wanted.items():
        parse(field, rows, "--where")
        values = [word.strip() for word in str(words).split(",")]
        left = [row for row in left if any(is_like(value_of(row, field), value) for value in values)]
    return left


def text(value: Any) -> str:
    """Return a value as one word: null is empty, manifests are their digests."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "+".join(str(v.get("digest", ""))[:12] if isinstance(v, dict) else str(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def chance(row: Mapping[str, Any]) -> float | None:
    """Return what guessing gives: the majority class's share where a row has it (settings.majority) and the metric is acc1, else what the
    evaluation said (settings.chance), else 1 / classes, 5 / classes of acc5. None of other metrics.
    """
    settings = row.get("settings") or {}
    classes = row.get("n_classes") or 0
    metric = row.get("metric")
    if metric == "acc1" and isinstance(settings.get("majority"), int | float):
        return float(settings["majority"])
    if isinstance(settings.get("chance"), int | float):
        return float(settings["chance"])
    if metric not in ACCURACIES or not classes:
        return None
    return min(1.0, (5 if metric == "acc5" else 1) / classes)


def is_data_unknown(row: Mapping[str, Any]) -> bool:
    """Return whether nothing is known of the data that a model was trained on: another tool's weights, or a number from elsewhere."""
    return bool(row.get("data_unknown")) or (row.get("labels") or {}).get("data") == "unknown"


def covers(row: Mapping[str, Any]) -> list[str]:
    """Return what a row's interval covers, of: data draw, training seed, shots, test images. Empty where it has no interval."""
    if "covers" in row:
        return list(row["covers"])
    interval = str(row.get("interval") or "")
    if row.get("low") is None:
        return []
    if "test images" in interval:
        return ["test images"]
    return ["shots"] if "seeds" in interval else []
