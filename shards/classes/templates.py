"""Prompt templates: from a file of any shape, and the prompts that they make of a class name."""

from __future__ import annotations

import re
from typing import Any

from shards.classes import content
from shards.core.errors import UsageError

_SHAPES = "one template per line, with {c} for the class name, a JSON list, or a Python list of texts or lambdas"
_PLACES = re.compile(r"\{c?\}")
_SHOWN = 5


def read_templates(path: str) -> tuple[str, ...]:
    """Return the templates of a file, each with `{c}` or `{}` where the class name goes.

    Raises:
        UsageError: no such file, a shape that is not understood, several lists, or a template without a place for the name.
    """
    value = content.read(path)
    if isinstance(value, content.Table):
        if len(value.rows[0]) != 1:
            raise UsageError(f"{path}: rows of {len(value.rows[0])} columns", _SHAPES)
        value = [row[0] for row in value.rows]
    if isinstance(value, dict):
        value = _chosen(value, path)
    for number, template in enumerate(value, 1):
        if not isinstance(template, str):
            raise UsageError(f"{path}: entry {number} is no text: {str(template)[:100]!r}", _SHAPES)
        check_template(template, f"{path}: entry {number}, template {template[:100]!r}")
    return tuple(str(template) for template in value)


def check_template(template: str, where: str) -> None:
    """Refuse a template that would not be a prompt.

    Args:
        where: what the message begins with.

    Raises:
        UsageError: there is no place for the class name, or there are braces that mean something else.
    """
    if not has_place(template):
        advice = ""
        if "%s" in template or "{" in template:
            advice = "write {c} where the name goes"
        raise UsageError(f"{where} has no place for the class name", "{c} or {}", advice)
    rest = _PLACES.sub("", template)
    if "{" in rest or "}" in rest:
        raise UsageError(f"{where} has braces beside the place for the class name", "{c} or {} alone")


def has_place(template: str) -> bool:
    """Return whether a template has a place for the class name."""
    return "{c}" in template or "{}" in template


def prompts(templates: tuple[str, ...], class_name: str) -> list[str]:
    """Return the prompts of one class; underscores of a folder's name become spaces.

    Raises:
        UsageError: a template without a place for the name.
    """
    class_words = class_name.replace("_", " ")
    for template in templates:
        check_template(template, f"template {template!r}")
    return [class_words.join(template.replace("{}", "{c}").split("{c}")) for template in templates]


def _chosen(mapping: dict[Any, Any], path: str) -> list[Any]:
    """Return the one list of a mapping whose texts have a place for a name."""
    lists = {str(key): value for key, value in mapping.items() if isinstance(value, list)}
    fitting = {key: value for key, value in lists.items() if value and all(isinstance(t, str) and has_place(t) for t in value)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    sizes = ", ".join(f"{key} ({len(value)})" for key, value in list(fitting.items())[:_SHOWN])
    if fitting:
        raise UsageError(f"{path}: {len(fitting)} lists of templates: {sizes}", "one list", "cut out the list of one data set")
    raise UsageError(f"{path}: a mapping without a list of templates", _SHAPES)
