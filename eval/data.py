"""Open a labelled set: find out its kind, give it its class names, refuse what does not fit. No image is opened."""

from __future__ import annotations

import os
from typing import Any

from eval.datasets.base import SPLITS, Columns, Examples
from eval.packed import folder_of
from shards.classes.match import Matched, like_ids, match, match_labels
from shards.classes.names import Names, read_names
from shards.classes.templates import check_template, prompts
from shards.core import fs, registry
from shards.core.console import counted, say, warn
from shards.core.errors import UsageError

KINDS = "eval.datasets"
SETS = "eval.downstream"
ROOT_VARIABLE = "PROVENDER_DATA"
_SHOWN = 5


def open_examples(path: str, kind: str = "", classnames: str = "", columns: Columns | None = None) -> Examples:
    """Return the labelled set at a path.

    Args:
        kind: a file name in eval/datasets; sniffed from the path where empty.
        classnames: file of class names that replace the set's own.

    Raises:
        UsageError: nothing there, a kind that does not fit, class names that do not fit, or labels that are no classes.
    """
    refuse_splits(path)
    examples = registry.get(KINDS, kind or sniff(path)).load(path, columns or Columns())
    if classnames:
        examples = named_by(examples, classnames)
    if not examples.named and len(examples.classes) > len(examples):
        last = int(examples.labels.argmax())
        found = f"{examples.name}: {examples.ids[last]} has label {examples.labels[last]}, of {len(examples)} images"
        raise UsageError(found, "no more classes than images where the classes have no names", "--classnames FILE, or mend the label")
    return examples


def resolve(config: Any) -> list[str]:
    """Return the paths that `--data` means. What is no path is looked for in `--data-root`, or in the folder that PROVENDER_DATA names.

    Args:
        config: has `data`, one text or several, and may have `data_root`.

    Raises:
        UsageError: no data, or the name of a downstream set that is not there.
    """
    stated = (config.data,) if isinstance(config.data, str) else tuple(config.data)
    root = getattr(config, "data_root", "") or os.environ.get(ROOT_VARIABLE, "")
    if not stated or "" in stated:
        raise UsageError("no data to evaluate on", "--data PATH, or the name of a set in --data-root")
    return [_resolved(name, root) for name in stated]


def _resolved(name: str, root: str) -> str:
    if fs.is_remote(name) or fs.exists(name):
        return name
    if root and fs.exists(fs.join(root, name)):
        return fs.join(root, name)
    set_name = name.partition("/")[0]
    if set_name in registry.names(SETS):
        where = f"in {root}" if root else "--data-root DIR (or PROVENDER_DATA) names the folder of packed sets"
        raise UsageError(f"no data at {name!r}", where, f"evaluate pack {set_name} --input DIR --output {fs.join(root or 'DIR', set_name)}")
    return name


def refuse_splits(path: str) -> None:
    """Refuse a folder that holds split folders rather than data: mixing train and test is never meant. A packed set has a test split."""
    if folder_of(path)[0]:
        return
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
        raise UsageError(f"no data at {path!r}", "class folders, WebDataset tars, a table, a packed set, or a Hugging Face dataset on disk")
    known = [f"{name}: {registry.summary(KINDS, name)}" for name in registry.names(KINDS)]
    raise UsageError(
        f"{path}: fits {', '.join(fitting) or 'no kind of labelled set'}", "; ".join(known), "--format NAME" if fitting else ""
    )


def named_by(examples: Examples, path: str) -> Examples:
    """Return a set with the class names of a file, matched by key, name, number or order.

    Raises:
        UsageError: the file is not understood, or its names do not fit the set's classes.
    """
    import numpy as np

    names = read_names(path, examples.classes)
    used = list(range(len(examples.classes))) if examples.named else np.unique(examples.labels).tolist()
    matched = match(names, examples.classes) if examples.named else match_labels(names, used)
    _say_match(names, matched, [examples.classes[label] for label in used], examples.named)
    renamed = examples.rename(matched, used)
    left_out = matched.left_out
    renamed = renamed.telling(
        len(left_out), f"[name|names] of {path} that [belongs|belong] to no class of the data", f"such as {left_out[:1]}"[:80]
    )
    repeated = matched.repeated
    return renamed.telling(
        len(repeated), "[name|names] that [stands|stand] for several classes, which prompts cannot tell apart", ", ".join(repeated[:_SHOWN])
    )


def _say_match(names: Names, matched: Matched, known: list[str], named: bool) -> None:
    """Say how names were matched, and what was understood that is not plain."""
    for note in names.notes:
        say(f"{names.path}: {note}")
    own = [(old, matched.classes[label]) for old, label in zip(known, matched.labels, strict=True)]
    recased = [f"{old} = {new}" for old, new in own if old != new and old.casefold() == new.casefold()]
    if recased and named:
        count = len(recased)
        say(f"{names.path}: {count} names differ from the data's own in letter case alone, such as {recased[0]}; the file's are used")
    shown = ", ".join(f"{old} = {new}" for old, new in own[:3])
    how = {"key": "class", "name": "name", "number": "number", "order": "order"}[matched.how]
    say(f"{names.path}: {len(matched.classes)} class names, matched by {how}: {shown}{', …' if len(own) > 3 else ''}")
    if named and matched.how == "order" and known[0] == "1" and "0" not in known:
        warn(f"{names.path}: the classes are numbered from 1; the first name is that of class 1")


def check_prompts(classes: tuple[str, ...], templates: tuple[str, ...]) -> None:
    """Say the first prompts, and warn of names that say nothing to a text tower.

    Raises:
        UsageError: a template without a place for the name.
    """
    for template in templates:
        check_template(template, f"template {template!r}")
    first = [prompts(templates[:1], name)[0] for name in classes[:3]]
    more = ", …" if len(classes) > 3 else ""
    say(
        f"prompts: {counted(len(classes), 'class', 'classes')} × {counted(len(templates), 'template')}: {', '.join(map(repr, first))}{more}"
    )
    ids = like_ids(classes)
    if ids:
        shown = ", ".join(ids[:3])
        warn(f"{len(ids)} of {len(classes)} class names look like ids or numbers, not like names, such as {shown}; --classnames FILE")
