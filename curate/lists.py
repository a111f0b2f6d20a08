"""`curate list`: the sources, filters, recipes, reasons and hashes there are, from their own words."""

from __future__ import annotations

import dataclasses
from typing import Literal

from curate import plugins
from curate.config import FILTERS, RECIPES, SOURCES
from curate.recipe import HASHES
from shards.core import recipes, registry
from shards.core.config import describe, hints, option
from shards.core.console import emit, table
from shards.schema import REASONS


@dataclasses.dataclass(frozen=True)
class ListConfig:
    """List what a recipe may name."""

    what: Literal["sources", "filters", "recipes", "reasons", "hashes"] = option(
        "sources", "sources | filters | recipes | reasons | hashes", positional=True
    )
    plugin: tuple[str, ...] = option((), "files of Python, each a filter or a source, to list with the others", metavar="FILE.py")
    json: bool = option(False, "print JSON")


def list_(config: ListConfig) -> int:
    """Print the plug-ins with their options, or the closed list of reasons."""
    plugins.use_all(config.plugin)
    if config.what == "reasons":
        owned = {name: f"refused by the filter: {registry.summary(FILTERS, name)}" for name in registry.names(FILTERS)}
        rows = REASONS | owned
        emit([{"reason": k, "meaning": v} for k, v in rows.items()] if config.json else table(("reason", "meaning"), rows.items()))
        return 0
    if config.what == "recipes":
        known = {name: _headline(name) for name in recipes.names(RECIPES)}
        emit([{"name": k, "about": v} for k, v in known.items()] if config.json else table(("recipe", "what it builds"), known.items()))
        return 0
    if config.what == "hashes":
        costs = [{"name": k, "about": v} for k, v in HASHES.items()]
        emit(costs if config.json else table(("hash", "what it costs and finds"), HASHES.items()))
        return 0
    package = SOURCES if config.what == "sources" else FILTERS
    listed = []
    lines = []
    for name in registry.names(package):
        options = options_of(package, name)
        listed.append({"name": name, "about": registry.summary(package, name), "options": options})
        lines.append(f"{name}: {registry.summary(package, name)}")
        lines += [f"    {option}: {text}" for option, text in options.items()]
    emit(listed if config.json else "\n".join(lines))
    return 0


def _headline(name: str) -> str:
    """Return the first line of a recipe's comment."""
    return (RECIPES / f"{name}.yaml").read_text().partition("\n")[0].removeprefix("# ")


def options_of(package: str, name: str) -> dict[str, str]:
    """Return a plug-in's options in words: type, default, help."""
    cls = registry.get(package, name).Options
    result: dict[str, str] = {}
    for field in dataclasses.fields(cls):
        usual = " ".join(field.default) if isinstance(field.default, tuple) else field.default
        default = "" if usual in (None, dataclasses.MISSING, "") else f", default {usual}"
        result[field.name] = f"{describe(hints(cls)[field.name])}{default}: {field.metadata.get('help', '')}"
    return result
