"""Which class has which number, and what it is called: synset maps and lists of class names.

LOC_synset_mapping.txt, synset_words.txt     `n01440764 tench, Tinca tinca`: line i is class i
imagenet_class_index.json                    `{"0": ["n01440764", "tench"], …}`
a list of names, alone or among others       in the order of the sorted class folders

`shards.classes` reads these, and every other shape that it knows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shards.classes.match import in_order, sorted_classes
from shards.classes.names import WORDNET, Entry, Names, read_names
from shards.core import fs
from shards.core.errors import UsageError

MAP = "LOC_synset_mapping.txt"
# sha256 of the sorted ids of ILSVRC 2012's 1,000 classes, one per line: the order of all published heads.
ILSVRC2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
_ID_FIRST = re.compile(r"n\d{8}\s+\S")
_EXPECTED = "lines `n01440764 tench, Tinca tinca`, a JSON {index: [id, name]}, or a list of class names"


@dataclass(frozen=True)
class Classes:
    """Classes in order: the id or folder of each, and its names, the first one first."""

    ids: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """sha256 of the ids in order: where digests are equal, numbers mean the same classes."""
        return digest_of(self.ids)

    def called(self, synonyms: str) -> tuple[str, ...]:
        """Return what each class is called: by its first name, or by all of them, with commas."""
        return tuple(names[0] if synonyms == "first" else ", ".join(names) for names in self.names)

    def repeated(self, synonyms: str) -> dict[str, list[str]]:
        """Return the names that stand for several classes, with the ids of those."""
        called = self.called(synonyms)
        return {name: [i for i, c in zip(self.ids, called, strict=True) if c == name] for name, n in Counter(called).items() if n > 1}


def digest_of(ids: Sequence[str]) -> str:
    """Return the sha256 of ids in order, one per line."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()


Folders = Callable[[], Sequence[str]]


def load(path: str, folders: Folders) -> Classes:
    """Return the classes that a map or a list of names gives; without a path, the folders themselves.

    Args:
        path: the file, or an empty string.
        folders: gives the class folders that are there, sorted; a list of names is theirs, in order. A map needs none.

    Raises:
        UsageError: no map for folders named by ids; a file of neither kind; a list of another length; ILSVRC's classes in
            another order than sorted.
    """
    if not path:
        ids = tuple(folders())
        if any(map(WORDNET.fullmatch, ids)):
            raise UsageError(f"classes are named {ids[0]}, …, and no {MAP} is there", _EXPECTED, "--synsets FILE")
        return Classes(ids, tuple((id.replace("_", " "),) for id in ids))
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no synset map at {path!r}", _EXPECTED)
    classes = _of_names(read_names(path, folders()), folders)
    _check(classes, path)
    return classes


def _of_names(names: Names, folders: Folders) -> Classes:
    """Return the classes that a file lists by id or folder, in its order; a list of names alone is the sorted folders'.

    Raises:
        UsageError: ids before some names and not before others, numbers with gaps, or a list of another length.
    """
    entries = in_order(names)
    if not all(entry.key for entry in entries):
        return _by_place([entry.name for entry in entries], names.path, folders())
    if any(entry.number is None for entry in entries) and not all(WORDNET.fullmatch(entry.key) for entry in entries):
        places = {key: place for place, key in enumerate(sorted_classes([entry.key for entry in entries]))}
        entries = sorted(entries, key=lambda entry: places[entry.key])  # an object {folder: name} has no order of its own
    return Classes(tuple(entry.key for entry in entries), tuple(map(_names_of, entries)))


def _names_of(entry: Entry) -> tuple[str, ...]:
    """Return all names of a class: synonyms stand behind WordNet's ids; an index by number has one name, with `_` for blanks."""
    if entry.number is not None:
        return (entry.name.replace("_", " "), *entry.others)
    synonyms = entry.name.split(",") if WORDNET.fullmatch(entry.key) else [entry.name]
    return tuple(filter(None, (name.strip() for name in (*synonyms, *entry.others))))


def _by_place(names: list[str], path: str, ids: Sequence[str]) -> Classes:
    """Return the classes that have these names in order, or by their folders' names where these are the same."""
    odd = next((line for line in names if _ID_FIRST.match(line)), "")
    if odd:
        other = next(line for line in names if not _ID_FIRST.match(line))
        raise UsageError(f"{path}: an id before {odd[:60]!r}, and none before {other[:60]!r}", _EXPECTED)
    if len(names) != len(ids):
        raise UsageError(f"{path}: {len(names)} names for {len(ids)} classes", "a name for each class folder, in their sorted order")
    known = {_plain(id): place for place, id in enumerate(ids)}
    places = [known.get(_plain(name), -1) for name in names]
    if sorted(places) == list(range(len(ids))):  # the folders have these names: the list alone gives the order
        return Classes(tuple(ids[place] for place in places), tuple((name,) for name in names))
    for number, place in enumerate(places):
        if place not in (-1, number):
            raise UsageError(
                f"{path}: name {number + 1} is {names[number]!r}, the folder {ids[place]!r} is number {place + 1}",
                "names in the folders' sorted order",
            )
    return Classes(tuple(ids), tuple((name,) for name in names))


def _check(classes: Classes, path: str) -> None:
    twice = [id for id, n in Counter(classes.ids).items() if n > 1]
    if twice:
        raise UsageError(f"{path}: {twice[0]} stands twice", "each class once")
    if classes.digest != ILSVRC2012 == digest_of(sorted(classes.ids)):
        raise UsageError(f"{path}: ILSVRC's 1,000 classes, in another order than all published heads have", f"sorted by id, as in {MAP}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
