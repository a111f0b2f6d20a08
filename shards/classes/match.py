"""Give the classes of a data set the names of a list: by name, by key, by number, or in order, and never by chance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shards.classes.names import ID, Entry, Names, number_of
from shards.core.errors import UsageError, closest

_NUMBERED = re.compile(r"\d+[._)].*")
_SHOWN = 5


@dataclass(frozen=True)
class Matched:
    """The names of a data set's classes.

    Attributes:
        classes: the names in label order.
        labels: the label of each class that was known before, in its old order.
        how: how they were matched: "name", "key", "number" or "order".
        left_out: names of the list that belong to no class of the data.
        repeated: names that stand for several classes, which no prompt can tell apart.
    """

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    how: str
    left_out: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


def match(names: Names, known: Sequence[str]) -> Matched:
    """Return the names of classes that have names or folders of their own.

    In this turn: all classes are keys of the list; all are names in it, in whatever order; all are numbers in it; or there are as
    many names as classes, and none contradicts the order.

    Raises:
        UsageError: none of these holds.
    """
    entries = names.entries
    numbers = [number_of(name) for name in known]
    for how, ways in (("key", [e.key for e in entries]), ("name", [e.name for e in entries])):
        places = _by_text(ways, known)
        if places is not None:
            return _matched([entries[i] for i in places], entries, how)
    stated = {entry.number: entry for entry in entries if entry.number is not None}
    if stated and None not in numbers:
        if set(numbers) <= set(stated):
            return _matched([stated[number] for number in numbers if number is not None], entries, "number")
        raise UsageError(f"{names.path}: numbers {_span(list(stated))}, the data's classes {_span(numbers)}", "the same numbers")
    _refuse_other_keys(names, known)
    ordered = in_order(names)
    if len(ordered) != len(known):
        raise _other_count(names, known)
    _refuse_contradiction(ordered, names.path, known)
    return _matched(ordered, entries, "order")


def match_labels(names: Names, used: Sequence[int]) -> Matched:
    """Return the names of classes that are mere labels; the list may name classes that no image has.

    Args:
        used: the labels that occur, sorted.

    Raises:
        UsageError: a label without a name, or labels that count from 1 under names that have no numbers.
    """
    entries = names.entries
    if all(entry.number is not None for entry in entries):
        ordered = sorted(entries, key=lambda entry: entry.number or 0)
        place = {entry.number: i for i, entry in enumerate(ordered)}
        missing = [label for label in used if label not in place]
        if missing:
            problem = f"{names.path}: no name for label {missing[0]}; its numbers are {_span(list(place))}"
            raise UsageError(problem, f"names for the labels {_span(list(used))}", _from_one(used, list(place)))
        classes = tuple(entry.name for entry in ordered)
        return Matched(classes, tuple(place[label] for label in used), "number", repeated=_repeated(ordered))
    if used[-1] >= len(entries):
        problem = f"{names.path}: {len(entries)} class names for the labels {_span(list(used))}"
        raise UsageError(problem, f"a name for each of 0 … {used[-1]}", _from_one(used, range(len(entries))))
    classes = tuple(entry.name for entry in entries)
    return Matched(classes, tuple(used), "order", repeated=_repeated(entries))


def like_ids(names: Sequence[str]) -> list[str]:
    """Return those names that say nothing to a text tower: numbers, WordNet ids, hashes, or a number before a name."""
    return [name for name in names if number_of(name) is not None or ID.fullmatch(name) or _NUMBERED.fullmatch(name)]


def sorted_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names in order: as numbers where all of them are numbers (timm's order), else as text."""
    numbers = {name: number_of(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(numbers, key=lambda name: (numbers[name] or 0, name)))
    return tuple(sorted(numbers))


def label_of(text: bytes) -> int | None:
    """Return the class number of a `.cls` member; None where it is no whole number of at most nine digits. -1 is a number."""
    word = text.strip()
    digits = word[1:] if word.startswith(b"-") else word
    return int(word) if digits.isdigit() and len(digits) <= 9 else None


def plain(name: str) -> str:
    """Return a name without what names are written differently by: letter case, `_`, `-` and other signs."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def _by_text(ways: list[str], known: Sequence[str]) -> list[int] | None:
    """Return for each class the place of its text, exactly or but for signs and letter case; None where one has none."""
    for form in (str, plain):
        places = {form(text): i for i, text in enumerate(ways) if text}
        distinct = len(places) == len(ways)
        wanted = [form(name) for name in known]
        if distinct and len(set(wanted)) == len(wanted) and set(wanted) <= set(places):
            return [places[name] for name in wanted]
    return None


def _matched(chosen: Sequence[Entry], entries: Sequence[Entry], how: str) -> Matched:
    taken = set(map(id, chosen))
    left_out = tuple(entry.name for entry in entries if id(entry) not in taken)
    return Matched(tuple(entry.name for entry in chosen), tuple(range(len(chosen))), how, left_out, _repeated(chosen))


def _repeated(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return names that several classes have whose keys tell them apart; without keys, one of them is a mistake."""
    counts = Counter(entry.name for entry in entries)
    return tuple(name for name, count in counts.items() if count > 1 and all(e.key for e in entries if e.name == name))


def in_order(names: Names) -> list[Entry]:
    """Return the entries in the order of their numbers, or as they stand.

    Raises:
        UsageError: the numbers do not run from 0.
    """
    numbers = [entry.number for entry in names.entries]
    if None in numbers:
        return list(names.entries)
    ordered = sorted(names.entries, key=lambda entry: entry.number or 0)
    if [entry.number for entry in ordered] != list(range(len(ordered))):
        advice = "leave the numbers out: then line i names the i-th class"
        raise UsageError(f"{names.path}: numbers {_span([n for n in numbers if n is not None])}, labels count from 0", "0, 1, 2, …", advice)
    return ordered


def _refuse_other_keys(names: Names, known: Sequence[str]) -> None:
    """Refuse a list by key that lacks a class of the data. Ids and numbers in front of names are no such keys of other folders."""
    keys = [entry.key for entry in names.entries if entry.key]
    by_key = bool(keys) and not all(ID.fullmatch(key) or number_of(key) is not None for key in keys)
    ids = bool(keys) and any(ID.fullmatch(name) for name in known)
    if not (by_key or ids):
        return
    missing = next(name for name in known if name not in keys)
    raise UsageError(f"{names.path}: no name for class {missing!r}", "every class of the data", closest(missing, keys))


def _refuse_contradiction(ordered: Sequence[Entry], path: str, known: Sequence[str]) -> None:
    """Refuse an order in which a name stands that is that of another class."""
    places = {plain(name): i for i, name in enumerate(known)}
    for i, entry in enumerate(ordered):
        place = places.get(plain(entry.name), i)
        if place != i and number_of(entry.name) is None:
            problem = f"{path}: name {i + 1} is {entry.name!r}, the data's class {known[place]!r} is number {place + 1}"
            raise UsageError(problem, "names in the order of the data's classes", "a JSON object {class: name}")


def _other_count(names: Names, known: Sequence[str]) -> UsageError:
    named = {plain(entry.name) for entry in names.entries}
    missing = [name for name in known if plain(name) not in named]
    problem = f"{names.path}: {len(names.entries)} class names for {len(known)} classes"
    if 0 < len(missing) < len(known):
        problem += f"; not among the names: {', '.join(missing[:_SHOWN])}"
    return UsageError(problem, f"{len(known)} names in label order, or all classes by name", "a JSON object {class: name}")


def _from_one(used: Sequence[int], numbers: Sequence[int | None]) -> str:
    """Return advice where labels and names count from different numbers."""
    if used[0] == 1 and 0 in numbers and used[-1] == len(numbers):
        return "the labels count from 1: put numbers before the names (1 red)"
    return "the labels count from 0: count the names from 0, too" if used[0] == 0 and 0 not in numbers else ""


def _span(numbers: Sequence[int | None]) -> str:
    """Return such as `0 … 11`, or `1 … 90 with gaps`."""
    there = sorted(number for number in numbers if number is not None)
    gaps = " with gaps" if len(there) <= there[-1] - there[0] else ""
    return f"{there[0]} … {there[-1]}{gaps}"
