"""Captions for labelled images: templates with a place for the class name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shards.core import fs
from shards.core.errors import UsageError

PLACES = ("{}", "{c}")


def load(values: Sequence[str]) -> tuple[str, ...]:
    """Return the templates that values give, each a template (`a photo of a {}`) or a file of one template per line.

    Raises:
        UsageError: a value is neither, or a line has no place for the class name.
    """
    templates: list[str] = []
    for value in values:
        lines = [value] if _has_place(value) else _lines(value)
        templates += lines
        for line in lines:
            if not _has_place(line):
                raise UsageError(f"template {line!r} of {value!r} has no place for the class name", "a text with {} in it")
    return tuple(templates)


def fill(templates: tuple[str, ...], class_name: str, uid: str) -> str:
    """Return one of the templates, chosen by the uid, with the class name in its place (`_` becomes a space)."""
    draw = int.from_bytes(hashlib.sha256(f"template:{uid}".encode()).digest()[:8], "big")
    name = class_name.replace("_", " ")
    return templates[draw % len(templates)].replace("{c}", name).replace("{}", name)


def _has_place(text: str) -> bool:
    return any(place in text for place in PLACES)


def _lines(path: str) -> list[str]:
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no template {path!r}", "a text with {} in it, or a file of such lines")
    return [line.strip() for line in fs.read_text(path).splitlines() if line.strip()]
