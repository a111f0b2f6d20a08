"""Tell folders and files of splits (train2017, val2017, test-00000-of-00001.parquet) from classes: two splits are never one test set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shards.core.errors import UsageError

_KINDS = {
    "train": ("train", "training", "trainset", "trn"),
    "test": ("test", "testing", "testset", "tst"),
    "val": ("val", "valid", "validation", "valset", "dev", "eval", "evaluation", "holdout", "heldout"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_SHOWN = 5


def kind_of(name: str) -> str:
    """Return which split a name speaks of: train, test or val; empty where it speaks of none, or of several."""
    kinds = {_KIND_OF[word] for word in re.findall("[a-z]+", name.lower()) if word in _KIND_OF}
    return kinds.pop() if len(kinds) == 1 else ""


def refuse_mixture(path: str, places: Iterable[str], pattern: str = "{}") -> None:
    """Refuse data that lies in several splits.

    Args:
        path: the data, for the message.
        places: paths relative to it, of folders or files; of each, the first part that speaks of a split counts.
        pattern: what chooses one of them, with `{}` for its path.

    Raises:
        UsageError: the paths speak of at least two splits.
    """
    found: dict[str, str] = {}
    for place in sorted(places):
        parts = place.split("/")
        first = next((i for i, part in enumerate(parts) if kind_of(part)), None)
        if first is not None:
            found.setdefault("/".join(parts[: first + 1]), kind_of(parts[first]))
    kinds = set(found.values())
    if len(kinds) > 1:
        chosen = next(name for name, kind in found.items() if kind != "train")
        listed = ", ".join(list(found)[:_SHOWN])
        raise UsageError(f"{path}: holds the splits {listed}", "one split at a time", f"--data {pattern.format(chosen)}")


def are_classes_splits(classes: Sequence[str]) -> bool:
    """Return whether half of the classes or more are names of splits, and of several: folders of pictures without classes."""
    kinds = [kind_of(name) for name in classes if kind_of(name)]
    return len(set(kinds)) > 1 and 2 * len(kinds) >= len(classes)
