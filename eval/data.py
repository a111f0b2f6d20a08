"""Open a labelled set: find out its kind, give it its class names and templates, refuse what does not fit."""

from __future__ import annotations

import json
from typing import Any

from eval.datasets.base import SPLITS, Columns, Examples
from shards.core import fs, registry
from shards.core.errors import UsageError, closest

KINDS = "eval.datasets"


def open_examples(path: str, kind: str = "", classnames: str = "", columns: Columns | None = None) -> Examples:
    """Return the labelled set at a path.

    Args:
        kind: a file name in eval/datasets; sniffed from the path where empty.
        classnames: file of class names that replace the set's own.

    Raises:
        UsageError: nothing there, a kind that does not fit, or class names that do not fit.
    """
    refuse_splits(path)
    examples = registry.get(KINDS, kind or sniff(path)).load(path, columns or Columns())
    return examples.rename(read_classnames(classnames, examples.classes)) if classnames else examples


def refuse_splits(path: str) -> None:
    """Refuse a folder that holds split folders rather than data: mixing train and test is never meant."""
    splits = [name for name in fs.names(path) if name.lower() in SPLITS] if fs.is_dir(path) else []
    if len(splits) > 1:
        test = next((s for s in splits if not s.lower().startswith("train")), splits[0])
        raise UsageError(f"{path}: holds the splits {', '.join(splits)}", "one split at a time", f"{path.rstrip('/')}/{test}")


def sniff(path: str) -> str:
    """Return the kind of data set at a path.

    Raises:
        UsageError: nothing there, or none or several kinds know it.
    """
    fitting = [name for name in registry.names(KINDS) if registry.get(KINDS, name).recognises(path)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and not fs.exists(path):
        raise UsageError(f"no data at {path!r}", "class folders, WebDataset tars, or a Hugging Face dataset on disk")
    known = [f"{name}: {registry.summary(KINDS, name)}" for name in registry.names(KINDS)]
    raise UsageError(
        f"{path}: fits {', '.join(fitting) or 'no kind of labelled set'}", "; ".join(known), "--format NAME" if fitting else ""
    )


def read_classnames(path: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names in a file: lines or a JSON list in label order, or a JSON object {known class: name}."""
    content = _content(path)
    if not isinstance(content, dict):
        return content
    for name in known:
        if name not in content:
            raise UsageError(f"{path}: no name for class {name!r}", "every class of the data", closest(name, content))
    return tuple(str(content[name]) for name in known)


def read_templates(path: str) -> tuple[str, ...]:
    """Return the prompt templates in a file: lines or a JSON list, with `{c}` or `{}` where the class name goes."""
    templates = _content(path)
    if isinstance(templates, dict):
        raise UsageError(f"{path}: a JSON object", "one template per line, or a JSON list", "cut out the list of one data set")
    return templates


def prompts(templates: tuple[str, ...], class_name: str) -> list[str]:
    """Return the prompts of one class; underscores of a folder's name become spaces.

    Raises:
        UsageError: a template without a place for the name.
    """
    shown = class_name.replace("_", " ")
    for template in templates:
        if "{c}" not in template and "{}" not in template:
            raise UsageError(f"template {template!r} has no place for the class name", "{c}")
    return [template.replace("{c}", shown).replace("{}", shown) for template in templates]


def _content(path: str) -> Any:
    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}")
    text = fs.read_text(path)
    if path.endswith(".json"):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{path}: not JSON: {error}") from error
        if not isinstance(value, dict | list):
            raise UsageError(f"{path}: found {type(value).__name__}", "a JSON list or object")
        found: Any = value if isinstance(value, dict) else tuple(str(v) for v in value)
    else:
        found = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not found:
        raise UsageError(f"{path}: is empty", "at least one line")
    return found
