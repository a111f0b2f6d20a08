"""`train list`: the recipes and the tasks there are, each with its own first line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.core import recipes, registry
from shards.core.config import option
from shards.core.console import emit, table
from train.config import RECIPES

TASKS = "train.tasks"


@dataclass(frozen=True)
class ListConfig:
    """The configuration of `train list`."""

    what: Literal["all", "recipes", "tasks"] = option("all", "all | recipes | tasks", positional=True)
    json: bool = option(False, "print JSON")


def show(config: ListConfig) -> int:
    """Print the recipes with their tasks, the tasks, or both; return the exit code.

    With `json` one object is printed: `recipes` is a list of {name, task, about}, `tasks` one of {name, about}.

    Raises:
        UsageError: a recipe is no YAML mapping.
    """
    parts: dict[str, list[dict[str, str]]] = {}
    if config.what in ("all", "recipes"):
        parts["recipes"] = listed_recipes()
    if config.what in ("all", "tasks"):
        parts["tasks"] = listed_tasks()
    if config.json:
        emit(parts)
        return 0
    headings = {"recipes": ("recipe", "task", "about"), "tasks": ("task", "about")}
    tables = [table(headings[name], [list(row.values()) for row in rows]) for name, rows in parts.items()]
    emit("\n\n".join(tables))
    return 0


def listed_recipes(folder: Path = RECIPES) -> list[dict[str, str]]:
    """Return name, task and first comment line of the recipes in a folder, sorted by task and name.

    Args:
        folder: of YAML files; the recipes that come with the package by default.

    Raises:
        UsageError: one of them is no YAML mapping.
    """
    rows = []
    for name in recipes.names(folder):
        task = str(recipes.read(str(folder / f"{name}.yaml"), folder).get("task", ""))
        rows.append({"name": name, "task": task, "about": headline(folder / f"{name}.yaml")})
    return sorted(rows, key=lambda row: (row["task"], row["name"]))


def listed_tasks() -> list[dict[str, str]]:
    """Return name and first line of the documentation of every task, other packages' among them."""
    return [{"name": name, "about": registry.summary(TASKS, name)} for name in registry.names(TASKS)]


def headline(recipe: Path) -> str:
    """Return the first comment line of a recipe, without its mark; nothing where it has no comment."""
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.removeprefix("#").strip()
    return ""
