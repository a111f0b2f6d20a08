"""DomainNet CLIPART: 345 kinds of things in clip art; 33,525 images train, 14,604 test. Shifted: the test images of the other domains."""

from __future__ import annotations

from eval.downstream._domainnet import LAYOUT, Domain

__all__ = ["CLASSES", "LAYOUT", "METRIC", "SHIFTS", "TEMPLATES", "load", "splits"]

CLASSES = ()  # the folders of the lists, in the order of the labels that the lists state
TEMPLATES = (
    "a photo of a {c}.",
)  # fmt: skip
METRIC = "acc1"


SET = Domain("clipart", TEMPLATES, METRIC)
SHIFTS = SET.shifts
splits, load = SET.splits, SET.load
