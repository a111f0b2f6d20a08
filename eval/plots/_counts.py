"""How often captions mention the classes of a set: from a build's report, or from a CSV; and what the classes of results are called."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval import packed
from eval.data import ROOT_VARIABLE, SETS
from shards.classes.match import plain
from shards.classes.names import read_names
from shards.core import fs, registry
from shards.core.config import digest
from shards.core.errors import TornFileError, UsageError

REPORT = "report.json"
_CLASS_COLUMNS, _COUNT_COLUMNS = ("class", "name", "concept"), ("captions", "count", "frequency")
_LEAST_KNOWN = 0.5  # of a set's classes, how many a list must have to be taken as that set's


@dataclass(frozen=True)
class Counts:
    """Captions that mention each class, by list of classes: lists[list][class]. `manifests`: digests of the builds they are of.

    `source`: the source whose models they are for; empty: all models.
    """

    path: str
    source: str
    lists: Mapping[str, Mapping[str, int]]
    manifests: tuple[str, ...] = ()


def read_counts(stated: str) -> Counts:
    """Return the counts that `--concepts PATH` or `SOURCE=PATH` means.

    Raises:
        UsageError: no such file, no report beside a build, or other columns.
        TornFileError: it cannot be read.
    """
    source, equals, path = stated.partition("=")
    if not equals or fs.exists(stated):
        source, path = "", stated
    if fs.is_dir(path):
        report = fs.join(path, REPORT)
        if not fs.exists(report):
            raise UsageError(f"--concepts {path}: no {REPORT} in it", "a build with its report, or a CSV", f"curate report {path}")
        path = report
    if not fs.exists(path):
        raise UsageError(f"--concepts {path}: no such file", "a build with its report, or a CSV (class,count)")
    if path.endswith(".json"):
        return _of_report(path, source)
    return Counts(path, source, _of_csv(path))


def _of_report(path: str, source: str) -> Counts:
    try:
        report = json.loads(fs.read_bytes(path))
        sets = (report["concepts"] or {"sets": []})["sets"]
        lists = {one["name"]: _of_table(one["table"]) for one in sets}
        manifests = tuple(str(one["manifest"]) for one in report["method"]["sets"])
    except (ValueError, KeyError, TypeError) as error:
        raise TornFileError(f"--concepts {path}: no report: {str(error)[:120]}", "what `curate report` wrote") from error
    if not lists:
        raise UsageError(f"--concepts {path}: the build has no captions, so no class is mentioned", "a build with captions, or a CSV")
    return Counts(path, source, lists, manifests)


def _of_table(table: Mapping[str, Any]) -> dict[str, int]:
    column = [entry["name"] for entry in table["columns"]].index("captions")
    return {str(row[0]): int(row[column]) for row in table["rows"]}


def _of_csv(path: str) -> dict[str, dict[str, int]]:
    """Return the counts of a CSV with a header: class and count; or set, class and captions, as `curate report --csv` writes.

    Raises:
        UsageError: other columns, or a count that is no number.
    """
    reader = csv.DictReader(io.StringIO(fs.read_text(path)))
    header = [name.strip().lower() for name in reader.fieldnames or ()]
    named = next((name for name in _CLASS_COLUMNS if name in header), "")
    counted = next((name for name in _COUNT_COLUMNS if name in header), "")
    if not named or not counted:
        raise UsageError(f"--concepts {path}: columns {', '.join(header) or 'none'}", "class,count; or set,class,captions")
    lists: dict[str, dict[str, int]] = {}
    for number, raw in enumerate(reader, 2):
        row = {(key or "").strip().lower(): (value or "").strip() for key, value in raw.items() if isinstance(value, str | None)}
        try:
            count = int(float(row[counted]))
        except ValueError as error:
            raise UsageError(f"--concepts {path}, line {number}: {row[counted]!r} is no count", "a number of captions") from error
        if count < 0:
            raise UsageError(f"--concepts {path}, line {number}: count {count}", "0 or more")
        lists.setdefault(row.get("set", ""), {})[row[named]] = count
    return lists


def counts_of(counts: Counts, classes: Sequence[str]) -> tuple[dict[str, int], list[str], str]:
    """Return the captions of each class that a list has, the classes that it does not have, and the list's name.

    The list is the one that has most of the classes, by name but for letter case and signs; of equal ones the shortest.
    """
    best: tuple[dict[str, int], str] = ({}, "")
    for name, counted in counts.lists.items():
        by_plain = {plain(entry): count for entry, count in counted.items()}
        found = {entry: counted.get(entry, by_plain.get(plain(entry), -1)) for entry in classes}
        known = {entry: count for entry, count in found.items() if count >= 0}
        if len(known) > len(best[0]) or (len(known) == len(best[0]) and len(counted) < len(counts.lists.get(best[1], ()))):
            best = (known, name)
    if len(best[0]) < _LEAST_KNOWN * len(classes):
        return {}, list(classes), ""
    return best[0], [name for name in classes if name not in best[0]], best[1]


def class_names(digests: Iterable[str], files: Sequence[str], root: str) -> dict[str, tuple[str, ...]]:
    """Return the class names that results are of, by the digest that rows have: of built-in sets, packed sets, and files.

    Raises:
        UsageError: a file that is no list of class names.
    """
    wanted = set(digests)
    known: dict[str, tuple[str, ...]] = {}
    for path in files:
        entries = read_names(path).entries
        ordered = sorted(entries, key=lambda entry: entry.number if entry.number is not None else -1)
        names = tuple(entry.name for entry in ordered)
        known[digest(list(names))] = names
    for names in (*_packed(root), *_built_in()):
        known.setdefault(digest(list(names)), names)
    return {key: names for key, names in known.items() if key in wanted}


def _packed(root: str) -> list[tuple[str, ...]]:
    folder = root or os.environ.get(ROOT_VARIABLE, "")
    if not folder or not fs.is_dir(folder):
        return []
    return [packed.read(fs.join(folder, name)).classes for name in fs.names(folder) if fs.exists(fs.join(folder, name, packed.NAME))]


def _built_in() -> list[tuple[str, ...]]:
    return [tuple(registry.get(SETS, name).CLASSES) for name in registry.names(SETS) if registry.get(SETS, name).CLASSES]
