"""The published files of a named set, as `NAME:PATH` or `NAME:PATH@SPLIT` (test otherwise), such as cifar100:cifar-100-python."""

from __future__ import annotations

from typing import Any

from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples
from eval.downstream.base import PACKAGE
from shards.core import fs, registry

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]


def recognises(path: str) -> bool:
    """Return whether the path begins with the name of a downstream set and a colon."""
    name, colon, _ = path.partition(":")
    return bool(colon) and not fs.is_remote(path) and name in registry.names(PACKAGE)


def load(path: str, columns: Columns) -> Examples:
    """Open one split as the set's file reads it.

    Raises:
        UsageError: no such split, or files that are not those that are published.
    """
    name, _, rest = path.partition(":")
    folder, mark, split = rest.rpartition("@") if not fs.exists(rest) else (rest, "", "")
    module: Any = registry.get(PACKAGE, name)
    return module.load(folder if mark else rest, split or "test")
