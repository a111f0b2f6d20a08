"""Plug-ins are found by file name in their folder; nothing is ever listed in a registry file.

`get("curate.sources", "redcaps")` imports `curate/sources/redcaps.py`. Third parties add theirs through an
entry point of the group `provender.<package>`, for example `provender.curate.sources`; and `add` those that a command was
given as files, for as long as the process lives.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, NamedTuple

from shards.core.errors import UsageError, closest

NOT_PLUGINS = {"base"}


class Given(NamedTuple):
    """A plug-in that was given as a file. `loader` (`package.module:function`) makes it of `file` and `sha256`, in any process."""

    package: str
    name: str
    file: str
    sha256: str
    loader: str


_given: dict[tuple[str, str], tuple[Given, ModuleType]] = {}


def add(plugin: Given, module: ModuleType) -> None:
    """Let a plug-in be found under its name; one that was given before under the same name goes."""
    _given[plugin.package, plugin.name] = plugin, module


def given() -> tuple[Given, ...]:
    """Return the plug-ins that were given as files."""
    return tuple(plugin for plugin, _ in _given.values())


def with_given(wanted: tuple[Given, ...], function: Callable[[Any], Any], spec: Any) -> Any:
    """Return `function(spec)`, in a process that knows these plug-ins: what is a task of `shards.core.engine` where there are any."""
    for plugin in wanted:
        if plugin not in given():
            module, _, loader = plugin.loader.partition(":")
            getattr(importlib.import_module(module), loader)(plugin.file, plugin.sha256)
    return function(spec)


@cache  # reading the metadata of every installed package takes some ten milliseconds
def _entry_points(package: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"provender.{package}")}


def names(package: str) -> tuple[str, ...]:
    """Return the names of all plug-ins of a package, sorted. Imports the package, none of its plug-ins."""
    files = {name for where, name in _given if where == package}
    return tuple(sorted({*installed(package), *files})) if files else installed(package)


@cache
def installed(package: str) -> tuple[str, ...]:
    """Return the names of a package's plug-ins, but for those that were given as files."""
    folder = importlib.import_module(package).__path__
    ours = {m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_") and m.name not in NOT_PLUGINS}
    return tuple(sorted(ours | set(_entry_points(package))))


def get(package: str, name: str) -> ModuleType:
    """Import the plug-in `name` of `package`.

    Raises:
        UsageError: no such plug-in; the message lists the known ones and the closest match.
    """
    known = names(package)
    if name not in known:
        kind = package.rpartition(".")[2].rstrip("s")
        raise UsageError(f"unknown {kind} {name!r}", ", ".join(known), closest(name, known))
    if (package, name) in _given:
        return _given[package, name][1]
    return importlib.import_module(_entry_points(package).get(name, f"{package}.{name}"))


def summary(package: str, name: str) -> str:
    """Return the first line of a plug-in's docstring: what `list` prints."""
    return (get(package, name).__doc__ or "").strip().partition("\n")[0]
