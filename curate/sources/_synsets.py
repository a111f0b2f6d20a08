"""Which class has which number, and what it is called: synset maps and lists of class names.

LOC_synset_mapping.txt, synset_words.txt     `n01440764 tench, Tinca tinca`: line i is class i
imagenet_class_index.json                    `{"0": ["n01440764", "tench"], …}`
a JSON list, or a text file, of names        in the order of the sorted class folders
a JSON object of such lists                  the one list that has as many names as there are classes
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shards.core import fs
from shards.core.errors import UsageError

MAP = "LOC_synset_mapping.txt"
# sha256 of the sorted ids of ILSVRC 2012's 1,000 classes, one per line: the order of all published heads.
ILSVRC2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
_ID = re.compile(r"n\d{8}")
_LINE = re.compile(r"(n\d{8})\s+(\S.*)")
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
        if any(map(_ID.fullmatch, ids)):
            raise UsageError(f"classes are named {ids[0]}, …, and no {MAP} is there", _EXPECTED, "--synsets FILE")
        return Classes(ids, tuple((id.replace("_", " "),) for id in ids))
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no synset map at {path!r}", _EXPECTED)
    text = fs.read_text(path)
    pairs = _from_json(text, path, folders) if text.lstrip()[:1] in ("{", "[") else _from_lines(text, path, folders)
    found = Classes(tuple(id for id, _ in pairs), tuple(names for _, names in pairs))
    _check(found, path)
    return found


def _check(found: Classes, path: str) -> None:
    twice = [id for id, n in Counter(found.ids).items() if n > 1]
    if twice:
        raise UsageError(f"{path}: {twice[0]} stands twice", "each class once")
    if found.digest != ILSVRC2012 == digest_of(sorted(found.ids)):
        raise UsageError(f"{path}: ILSVRC's 1,000 classes, in another order than all published heads have", f"sorted by id, as in {MAP}")


def _from_lines(text: str, path: str, folders: Folders) -> list[tuple[str, tuple[str, ...]]]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UsageError(f"{path}: an empty file", _EXPECTED)
    matches = [_LINE.fullmatch(line) for line in lines]
    if not any(matches):
        return _named(lines, path, folders)
    pairs = []
    for number, (line, match) in enumerate(zip(lines, matches, strict=True), 1):
        if match is None:
            raise UsageError(f"{path}: line {number}: {line[:60]!r}", _EXPECTED)
        pairs.append((match[1], tuple(name.strip() for name in match[2].split(",") if name.strip())))
    return pairs


def _from_json(text: str, path: str, folders: Folders) -> list[tuple[str, tuple[str, ...]]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}", _EXPECTED) from error
    if isinstance(content, list):
        return _named(content, path, folders)
    indexed = [content.get(str(i)) for i in range(len(content))]
    if indexed and all(isinstance(row, list) and len(row) == 2 for row in indexed):
        return [(str(row[0]), (str(row[1]).replace("_", " "),)) for row in indexed if row]
    lists = {k: v for k, v in content.items() if isinstance(v, list)}
    wanted = len(folders())
    fitting = [v for v in lists.values() if len(v) == wanted]
    if len(fitting) != 1:
        sizes = ", ".join(f"{k} ({len(v)})" for k, v in lists.items()) or "no lists"
        raise UsageError(f"{path}: not one list of {wanted} names, but {sizes}", _EXPECTED, "a file with the right list alone")
    return _named(fitting[0], path, folders)


def _named(names: list[Any], path: str, folders: Folders) -> list[tuple[str, tuple[str, ...]]]:
    ids = folders()
    if len(names) != len(ids) or not all(isinstance(n, str) and n.strip() for n in names):
        raise UsageError(f"{path}: {len(names)} names for {len(ids)} classes", "a name for each class folder, in their sorted order")
    places = {_plain(id): i for i, id in enumerate(ids)}
    found = [places.get(_plain(name), -1) for name in names]
    if sorted(found) == list(range(len(ids))):  # the folders have these names: the list alone gives the order
        return [(ids[place], (name.strip(),)) for place, name in zip(found, names, strict=True)]
    for i, place in enumerate(found):
        if place not in (-1, i):
            raise UsageError(
                f"{path}: name {i + 1} is {names[i]!r}, the folder {ids[place]!r} is number {place + 1}",
                "names in the folders' sorted order",
            )
    return [(folder, (name.strip(),)) for folder, name in zip(ids, names, strict=True)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
