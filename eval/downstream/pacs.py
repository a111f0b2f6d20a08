"""PACS: seven kinds of things as photos. Shifted: the same kinds as art, cartoons and sketches. A fifth of the photos tests by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PLAIN, Rule, check_split

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "dog", "elephant", "giraffe", "guitar", "horse", "house", "person",
)  # fmt: skip
TEMPLATES = PLAIN
METRIC = "acc1"
LAYOUT = "PACS/{photo,art_painting,cartoon,sketch}/CLASS/*.jpg (or pacs_data/…)"
RULE = Rule("pacs", val=0.1, test=0.2)
SHIFTS = {"art_painting": "paintings", "cartoon": "cartoons", "sketch": "sketches"}
_DOMAIN = "photo"


def splits(path: str) -> list[str]:
    """Return train, val and test of the photos, and each other domain, whole."""
    _root(path)
    return [*RULE.splits(), *SHIFTS]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    domain = split if split in SHIFTS else _DOMAIN
    found = _layout.class_folders(f"{_root(path)}/{domain}", CLASSES, LAYOUT, partial=True)
    items = [item._replace(id=f"{domain}/{item.id}") for item in found]
    chosen = items if split in SHIFTS else _layout.by_rule(items, RULE, split)
    return _layout.examples("pacs", chosen, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, (_DOMAIN, *SHIFTS), ("PACS", "pacs_data", "PACS/pacs_data", "kfold"))
