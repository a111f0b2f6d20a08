"""DomainNet REAL: 345 kinds of things in photos; about 121,000 images train, 52,041 test. Shifted: the test images of the other domains."""

from __future__ import annotations

from eval.downstream._domainnet import LAYOUT, Domain

__all__ = ["CLASSES", "LAYOUT", "METRIC", "SHIFTS", "TEMPLATES", "load", "splits"]

CLASSES = ()  # the folders of the lists, in the order of the labels that the lists state
TEMPLATES = (
    "a photo of a {c}.",
)  # fmt: skip
METRIC = "acc1"


SET = Domain("real", TEMPLATES, METRIC)
SHIFTS = SET.shifts
splits, load = SET.splits, SET.load
