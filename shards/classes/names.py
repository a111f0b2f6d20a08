"""Lists of class names: what a file of any shape says of each class, its name, its number and its key.

red                              lines, in label order; quotes, commas and dashes around them are taken off
n01440764 tench, Tinca tinca     lines that begin with ids (synset maps): the id is the key, the first synonym the name
0: red   |   1 red   |   red 0   lines with a running number
CSV, TSV, JSON objects in a list columns are told apart by what is in them, and by their names where that leaves a choice
["red", …]                       JSON, YAML, Python: a list of names, or of pairs of key or number and name
{"0": "red"}, {"0": ["n0144", "red"]}, {"red": 0}, {"folder": "name"}
{"id2label": …}, {"names": …}, {"dataset": ["red", …], …}   the one list that fits
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.classes import content
from shards.classes.content import Table
from shards.core.errors import UsageError

ID = re.compile(r"[A-Za-z]{1,4}[-_]?\d{3,}|/[a-z]/[0-9a-z_]{3,}|[0-9a-f]{16,}")
SHAPES = "names by line, a JSON list, {number: name}, {number: [id, name]}, {class: name}, {name: number}, `n01440764 name` lines, CSV"
WORDNET = re.compile(r"n\d{8}")
_ID_LINE = re.compile(r"(\S+)\s+(\S.*)")
_AFTER = re.compile(r"(\d{1,9})(?:\s*[:,;=.)\-]\s*|\s+)(\S.*)")
_BEFORE = re.compile(r"(.*\S)(?:\s*[:,;=]\s*|\s+)(\d{1,9})")
_NAME_COLUMNS = (
    *("name", "classname", "class_name", "label_name", "labelname", "displayname", "display_name", "english", "title"),
    *("class", "label"),
)
_NUMBER_COLUMNS = ("index", "idx", "number", "label", "label_id", "class_id", "class_index", "classid", "id", "class", "target", "")
_KEY_COLUMNS = ("wnid", "synset", "key", "folder", "directory", "mid", "labelname")
_WRAPPED = ("id2label", "label2id", "names", "classnames", "class_names", "classes", "labels", "categories", "fine_label_names")
_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """What a file says of one class: its name, its number (None where only the order tells), its key (empty where there is none).

    `others` are further names that stand behind the name: synonyms of a synset map.
    """

    name: str
    number: int | None = None
    key: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """The classes of a file, in its order. `notes` says what was understood that is not plain, one sentence each."""

    path: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def read_names(path: str, known: Sequence[str] = ()) -> Names:
    """Return what a file says of classes.

    Args:
        known: the classes of the data, by their folders' names or numbers: where a file has a choice of columns or lists, the
            one that fits is taken.

    Raises:
        UsageError: no such file, a shape that is not understood, or a name that is no text.
    """
    value = content.read(path)
    if isinstance(value, Mapping):
        result = _of_mapping(value, path, known)
    elif isinstance(value, Table):
        result = _of_table(value.rows, path, known)
    else:
        result = _of_list(list(value), path, known)
    _check(result)
    alike = _alike([entry.name for entry in result.entries])
    return dataclasses.replace(result, notes=(*result.notes, *alike))


def _alike(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note of names that letter case alone tells apart: a text tower that reads lower case takes them for one."""
    spellings: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        spellings.setdefault(name.casefold(), []).append(name)
    groups = [group for group in spellings.values() if len(group) > 1]
    if not groups:
        return ()
    return (f"{sum(map(len, groups))} names differ from another one in letter case alone, such as {groups[0][0]!r} and {groups[0][1]!r}",)


def _check(names: Names) -> None:
    """Refuse names that are none, and keys or numbers that stand twice."""
    for place, entry in enumerate(names.entries, 1):
        if not isinstance(entry.name, str) or not any(c.isalnum() for c in entry.name):
            raise UsageError(f"{names.path}: entry {place} is no name: {str(entry.name)[:60]!r}", SHAPES)
    numbers: list[Any] = [entry.number for entry in names.entries if entry.number is not None]
    keys: list[Any] = [entry.key for entry in names.entries if entry.key]
    for kind, values in (("number", Counter(numbers)), ("key", Counter(keys))):
        for value, count in values.most_common(1):
            if count > 1:
                raise UsageError(f"{names.path}: the {kind} {value!r} stands {count} times", "each class once")


def number_of(value: Any) -> int | None:
    """Return a value as a class number; None where it is no whole number of at most nine digits from 0 on."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 10**9 else None
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _of_list(values: list[Any], path: str, known: Sequence[str]) -> Names:
    for place, value in enumerate(values, 1):
        if isinstance(value, content.Template):
            raise UsageError(f"{path}: entry {place} is a template: {str(value)[:60]!r}", SHAPES, "--templates FILE")
    if all(isinstance(value, str) for value in values):
        return _of_texts([value.strip() for value in values], path, known)
    if all(isinstance(value, list | tuple) for value in values):
        return _of_table(values, path, known)
    if all(isinstance(value, Mapping) for value in values):
        header = tuple(values[0])
        if all(set(value) == set(header) for value in values):
            return _of_table([header, *([value[key] for key in header] for value in values)], path, known)
        shared = [key for key in header if all(key in value for value in values)]
        return _of_table([shared, *([value[key] for key in shared] for value in values)], path, known)
    odd = next((i, value) for i, value in enumerate(values, 1) if not isinstance(value, str))
    raise UsageError(f"{path}: entry {odd[0]} is no text: {str(odd[1])[:60]!r}", SHAPES)


def _of_texts(lines: list[str], path: str, known: Sequence[str]) -> Names:
    """Return what lines say: by ids in front, by columns, by running numbers, or as they are."""
    tabs = {line.count("\t") for line in lines}
    if len(tabs) == 1 and tabs != {0}:
        return _of_table([[cell.strip() for cell in line.split("\t")] for line in lines], path, known)
    head = [word.strip().lower() for word in lines[0].split(",")]
    if len(head) > 1 and set(head) & set(_NAME_COLUMNS) and set(head) <= {*_NAME_COLUMNS, *_NUMBER_COLUMNS, *_KEY_COLUMNS}:
        return _of_table(content.table("\n".join(lines)).rows, path, known)
    matches = [_ID_LINE.fullmatch(line) for line in lines]
    if all(match and ID.fullmatch(match[1]) for match in matches):
        return _of_id_lines([(match[1], match[2]) for match in matches if match], path)
    for pattern, name, number in ((_AFTER, 2, 1), (_BEFORE, 1, 2)):
        matches = [pattern.fullmatch(line) for line in lines]
        pairs = [(match[name], int(match[number])) for match in matches if match]
        if len(lines) > 1 and len(pairs) == len(lines) and _runs([n for _, n in pairs]) and not set(lines) <= set(known):
            return Names(path, tuple(Entry(text, n) for text, n in pairs))
    return Names(path, tuple(map(Entry, lines)), _synonyms(lines))


def _of_id_lines(pairs: list[tuple[str, str]], path: str) -> Names:
    """Return what lines with ids say. ImageNet's development kit has a number between the id and the name."""
    numbered = [re.fullmatch(r"(\d{1,9})\s+(\S.*)", text) for _, text in pairs]
    if all(numbered):
        return Names(path, tuple(Entry(match[2], int(match[1]), key) for (key, _), match in zip(pairs, numbered, strict=True) if match))
    entries = []
    for key, text in pairs:
        synonyms = text.split(",") if WORDNET.fullmatch(key) else [text]
        first, *others = (name.strip() for name in synonyms)
        entries.append(Entry(first, None, key, tuple(filter(None, others))))
    cut = sum(bool(entry.others) for entry in entries)
    notes = (f"{cut} classes have several names; the first one is taken",) if cut else ()
    distinct = len({entry.key for entry in entries}) == len(entries)
    # WordNet's ids are keys: one that stands twice is refused. What else looks like an id may be a word of the name.
    if not distinct and not all(WORDNET.fullmatch(entry.key) for entry in entries):
        entries = [Entry(entry.name) for entry in entries]
    return Names(path, tuple(entries), notes)


def _synonyms(lines: list[str]) -> tuple[str, ...]:
    several = [line for line in lines if ", " in line]
    return (f"{len(several)} names hold commas and are used whole, such as {several[0][:60]!r}",) if several else ()


def _runs(numbers: list[int]) -> bool:
    """Return whether numbers are 0 … n-1 or 1 … n, in any order."""
    return sorted(numbers) in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _of_mapping(mapping: Mapping[Any, Any], path: str, known: Sequence[str]) -> Names:
    for key in _WRAPPED:
        inner = mapping.get(key)
        if key not in known and isinstance(inner, list | dict) and inner:
            return _of_mapping(inner, path, known) if isinstance(inner, dict) else _of_list(list(inner), path, known)
    keys = [str(key) for key in mapping]
    values = list(mapping.values())
    if all(isinstance(value, str) for value in values):
        return _of_pairs(keys, [value.strip() for value in values], path, known)
    if all(isinstance(value, Mapping) for value in values):
        named = [{"": key, **value} for key, value in zip(keys, values, strict=True)]
        return _of_list(named, path, known)
    if all(isinstance(value, list) for value in values):
        even = len({len(value) for value in values}) == 1
        by_number = all(number_of(key) is not None for key in keys)
        if even and (by_number or set(known) <= set(keys)):
            return _of_table([[key, *value] for key, value in zip(keys, values, strict=True)], path, known)
        return _of_list(_fitting(dict(zip(keys, values, strict=True)), path, known), path, known)
    if all(number_of(value) is not None for value in values):
        return _of_table([[key, value] for key, value in zip(keys, values, strict=True)], path, known)
    lists = {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, list) and len(value) > 1}
    if lists:
        return _of_list(_fitting(lists, path, known), path, known)
    odd = next(i for i, value in enumerate(values) if not isinstance(value, str))
    raise UsageError(f"{path}: the name of {keys[odd]!r} is no text: {str(values[odd])[:60]!r}", SHAPES)


def _of_pairs(keys: list[str], values: list[str], path: str, known: Sequence[str]) -> Names:
    """Return what a mapping of texts says: its keys are numbers or classes of the data, or its values are."""
    numbers = [number_of(key) for key in keys]
    values_count = all(number_of(value) is not None for value in values)
    if None not in numbers and values_count:
        raise UsageError(f"{path}: holds numbers alone, no names", SHAPES)
    if None not in numbers:
        return Names(path, tuple(map(Entry, values, numbers)), _synonyms(values))
    if values_count:
        return Names(path, tuple(Entry(key, number_of(value)) for key, value in zip(keys, values, strict=True)))
    classes = set(known)
    if classes and classes <= set(values) and not classes <= set(keys):
        keys, values = values, keys
    return Names(path, tuple(Entry(value, None, key) for key, value in zip(keys, values, strict=True)), _synonyms(values))


def _fitting(lists: dict[str, list[Any]], path: str, known: Sequence[str]) -> list[Any]:
    """Return the one list with as many names as there are classes."""
    texts = {key: value for key, value in lists.items() if value and all(isinstance(name, str) for name in value)}
    fitting = [value for value in texts.values() if len(value) == len(known)]
    if len(fitting) != 1:
        sizes = ", ".join(f"{key} ({len(value)})" for key, value in list(texts.items())[:_SHOWN]) or "lists of other things"
        wanted = f"one list of {len(known)} names" if known else "one list of names"
        raise UsageError(f"{path}: {len(lists)} lists: {sizes}", wanted, "cut out the list of one data set")
    return fitting[0]


def _of_table(rows: Sequence[Sequence[Any]], path: str, known: Sequence[str]) -> Names:
    """Return what rows say: the columns are told apart by what is in them.

    Raises:
        UsageError: no column of names, or several that may be it.
    """
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        odd = next(i for i, row in enumerate(rows, 1) if len(row) != len(rows[0]))
        raise UsageError(f"{path}: row {odd} has {len(rows[odd - 1])} values, row 1 has {len(rows[0])}", SHAPES)
    header = [str(cell).strip().lower() for cell in rows[0]]
    usual = {*_NAME_COLUMNS, *_NUMBER_COLUMNS, *_KEY_COLUMNS}
    has_header = len(rows) > 1 and (all(isinstance(cell, str) for cell in rows[0])) and any(word in usual and word for word in header)
    body = rows[1:] if has_header else rows
    if not has_header:
        header = [f"column {i + 1}" for i in range(len(rows[0]))]
    columns = [[cell.strip() if isinstance(cell, str) else cell for cell in column] for column in zip(*body, strict=True)]
    numbers, keys, names = _kinds(columns, known)
    data_names = next((i for i in keys if header[i] in _NAME_COLUMNS), None)
    if data_names is not None and not any(header[i] in _NAME_COLUMNS for i in names):
        names = [data_names]  # the data is named as this list names it; what stands beside, such as a supercategory, is no name
    name = _one(names, header, _NAME_COLUMNS, path, "names", rows[0])
    if name is None:
        plain = [i for i in keys if not all(ID.fullmatch(str(cell)) for cell in columns[i])]
        name = next(iter(plain or keys), None)  # the names are the data's own, or ids are all there is
    if name is None:
        raise UsageError(f"{path}: holds numbers alone, no names" if numbers else f"{path}: no column of names in {list(rows[0])}", SHAPES)
    number = _one([i for i in numbers if len(set(columns[i])) == len(body)], header, _NUMBER_COLUMNS, path, "numbers", rows[0])
    key = _one(keys, header, _KEY_COLUMNS, path, "keys", rows[0])
    entries = []
    for i in range(len(body)):
        at = number_of(columns[number][i]) if number is not None else None
        entries.append(Entry(columns[name][i], at, str(columns[key][i]) if key is not None else ""))
    return Names(path, tuple(entries), _synonyms([entry.name for entry in entries if isinstance(entry.name, str)]))


def _kinds(columns: list[list[Any]], known: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """Return which columns hold numbers, keys and names. Ids that stand several times are no keys, and no names either."""
    numbers, data_keys, ids, names = [], [], [], []
    for i, column in enumerate(columns):
        texts = all(isinstance(cell, str) for cell in column)
        distinct = texts and len(set(column)) == len(column)
        if all(number_of(cell) is not None for cell in column):
            numbers.append(i)
        elif distinct and known and set(known) <= set(column):
            data_keys.append(i)
        elif texts and all(ID.fullmatch(cell) for cell in column):
            ids += [i] if distinct else []
        elif texts:
            names.append(i)
    return numbers, data_keys or ids, names


def _one(places: list[int], header: list[str], usual: tuple[str, ...], path: str, what: str, first: Sequence[Any]) -> int | None:
    """Return the one column of a kind; among several, the first with a usual name."""
    if len(places) < 2:
        return places[0] if places else None
    for word in usual:
        fitting = [i for i in places if header[i] == word]
        if len(fitting) == 1:
            return fitting[0]
    raise UsageError(
        f"{path}: {len(places)} columns may be the {what}: {[str(first[i])[:40] for i in places]}", "one", "leave the others out"
    )
