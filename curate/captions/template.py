"""Captions for labelled images: templates with a place for the class name, and the sets that CLIP's authors published."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache

from shards.core import fs
from shards.core.errors import UsageError

PLACES = ("{}", "{c}")
# Prompts of OpenAI's CLIP for ImageNet, by open_clip's names.
SETS = {"seven": "SIMPLE_IMAGENET_TEMPLATES", "eighty": "OPENAI_IMAGENET_TEMPLATES"}
ONE = "a photo of a {}."


def load(values: Sequence[str]) -> tuple[str, ...]:
    """Return the templates that values give: each a template (`a photo of a {}`), a set's name, or a file of one per line.

    Raises:
        UsageError: a value is none of these, or a line has no place for the class name.
    """
    templates: list[str] = []
    for value in values:
        lines = [value] if _has_place(value) else list(named(value)) or _lines(value)
        templates += lines
        for line in lines:
            if not _has_place(line):
                raise UsageError(f"template {line!r} of {value!r} has no place for the class name", "a text with {} in it")
    return tuple(templates)


@cache
def named(name: str) -> tuple[str, ...]:
    """Return the templates of a set, one, seven or eighty; none for another name.

    They are read from open_clip's own file, which alone holds them; its package would bring torch with it.
    """
    if name == "one":
        return (ONE,)
    package = importlib.util.find_spec("open_clip")
    if name not in SETS or package is None or package.submodule_search_locations is None:
        return ()
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", f"{package.submodule_search_locations[0]}/zero_shot_metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(template("{}") for template in getattr(module, SETS[name]))


def choose(templates: tuple[str, ...], uid: str) -> str:
    """Return the template that a uid draws."""
    return templates[int.from_bytes(hashlib.sha256(f"template:{uid}".encode()).digest()[:8], "big") % len(templates)]


def fill(templates: tuple[str, ...], class_name: str, uid: str) -> str:
    """Return the template that the uid draws, with the class name in its place (`_` becomes a space)."""
    name = class_name.replace("_", " ")
    return choose(templates, uid).replace("{c}", name).replace("{}", name)


def _has_place(text: str) -> bool:
    return any(place in text for place in PLACES)


def _lines(path: str) -> list[str]:
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no template {path!r}", "a text with {} in it, one | seven | eighty, or a file of such lines")
    return [line.strip() for line in fs.read_text(path).splitlines() if line.strip()]
