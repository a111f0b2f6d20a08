"""What differs between the recipes of builds, without the paths of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.compare.load import Loaded
from curate.report.recipe import flattened, read_recipe


def recipes(sets: list[Loaded]) -> dict[str, Any]:
    """Return the options in which the recipes of sets differ: `rows` of key and `values`, in the order of `sets` (None: not there).

    Sources and filters are told apart by their names, and one that a recipe lacks is one row with all that the others say of it.
    """
    found = {one.label: _named(recipe) for one in sets if one.manifest and (recipe := read_recipe(one.manifest.folder))}
    rows = list(_rows(list(found.values()), ""))
    different = [{"key": key, "values": values} for key, values in rows if len(set(values)) > 1]
    return {"sets": list(found), "equal": len(rows) - len(different), "rows": different}


def _named(value: Any) -> Any:
    """Return a recipe in which lists of named things are mappings by name, and `order` has the names."""
    if isinstance(value, dict):
        return {key: _named(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return {"order": [str(one["name"]) for one in value]} | {str(one["name"]): _named(one) for one in value}
    return value


def _rows(recipes: list[Any], at: str) -> Iterator[tuple[str, list[str | None]]]:
    """Yield each option, as a dotted key, with its value in every recipe."""
    if recipes and all(isinstance(one, dict) for one in recipes):
        for key in dict.fromkeys(key for one in recipes for key in one):
            yield from _rows([one.get(key) for one in recipes], f"{at}.{key}" if at else str(key))
    else:
        yield at, [_line(one) for one in recipes]


def _line(value: Any) -> str | None:
    """Return a value on one line; of a mapping, what is set."""
    if not isinstance(value, dict):
        return None if value is None else flattened(value, "value")[0][1]
    said = [(key, text) for key, text in flattened(value) if text not in ("", "none") and key != "name"]
    return ", ".join(f"{key} {text}" for key, text in said) or "yes"
