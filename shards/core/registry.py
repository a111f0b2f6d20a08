"""Plug-ins are found by file name in their folder; nothing is ever listed in a registry file.

`get("curate.sources", "redcaps")` imports `curate/sources/redcaps.py`. Third parties add theirs through an
entry point of the group `provender.<package>`, for example `provender.curate.sources`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from shards.core.errors import UsageError, closest

NOT_PLUGINS = {"base"}


@cache  # reading the metadata of every installed package takes some ten milliseconds
def _entry_points(package: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"provender.{package}")}


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the names of all plug-ins of a package, sorted. Imports the package, none of its plug-ins."""
    folder = importlib.import_module(package).__path__
    own = {m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_") and m.name not in NOT_PLUGINS}
    return tuple(sorted(own | set(_entry_points(package))))


def get(package: str, name: str) -> ModuleType:
    """Import the plug-in `name` of `package`.

    Raises:
        UsageError: no such plug-in; the message lists the known ones and the closest match.
    """
    known = names(package)
    if name not in known:
        kind = package.rpartition(".")[2].rstrip("s")
        raise UsageError(f"unknown {kind} {name!r}", ", ".join(known), closest(name, known))
    return importlib.import_module(_entry_points(package).get(name, f"{package}.{name}"))


def summary(package: str, name: str) -> str:
    """Return the first line of a plug-in's docstring: what `list` prints."""
    return (get(package, name).__doc__ or "").strip().partition("\n")[0]
