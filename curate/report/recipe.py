"""The recipe as a report shows it: without paths, which belong to one machine."""

from __future__ import annotations

from typing import Any

from shards.core import fs


def read_recipe(folder: str) -> dict[str, Any]:
    """Return the resolved recipe without paths; empty where the folder has none."""
    import yaml

    path = fs.join(folder, "recipe.yaml")
    recipe = yaml.safe_load(fs.read_text(path)) if fs.exists(path) else {}
    return _without_paths(recipe or {})


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_paths(v) for k, v in value.items() if k not in ("input", "images")}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value):
        return value.rstrip("/").rpartition("/")[2]
    return value


def flattened(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Return a recipe as (dotted key, value) pairs."""
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in flattened(inner, f"{at}.{key}" if at else str(key))]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [pair for i, inner in enumerate(value) for pair in flattened(inner, f"{at}[{i}]")]
    if isinstance(value, list):
        return [(at, ", ".join(map(str, value)))]
    words = {True: "true", False: "false", None: "none"}
    return [(at, words[value] if value is None or isinstance(value, bool) else str(value))] if at else []


def filter_line(recipe: dict[str, Any]) -> list[str]:
    """Return the recipe's filters in order, each with its options: `caption_length (min_words 1)`."""
    lines = []
    for entry in recipe.get("filters") or []:
        options = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "name" and value not in (None, "", []))
        lines.append(f"{entry.get('name')} ({options})" if options else str(entry.get("name")))
    return lines
