"""Recipe files: YAML mappings, the user's own or those that come with a room, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.core.errors import UsageError, closest


def names(shipped: Path) -> list[str]:
    """Return the names of the recipes in a room's folder."""
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def read(name: str, shipped: Path) -> dict[str, Any]:
    """Return the values of a recipe: of a file, or of the shipped one with this name.

    Raises:
        UsageError: there is neither, or it is no YAML mapping.
    """
    import yaml

    from shards.core import fs

    own = shipped / f"{name}.yaml"
    file = str(own) if own.exists() and not fs.exists(name) else name
    if not fs.exists(file) or fs.is_dir(file):
        known = names(shipped)
        raise UsageError(f"no file and no recipe {name!r}", f"a YAML file, or {', '.join(known)}", closest(name, known))
    try:
        values = yaml.safe_load(fs.read_text(file))
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file}: found {values!r}", "a mapping of keys to values")
    return values
