"""Concepts: the class names of downstream sets, and how often captions mention them.

A list is a text file: one class per line, `name, synonym, synonym`; `#` begins a comment line. `_` and `-` part words; what
stands in parentheses tells two classes apart (`crane (bird)`) and is not looked for. A name is found in its singular, plural
and possessive forms (forms.py), as consecutive words of a caption (wordcount.tokens), whatever is meant by them: `crane` is the
bird and the machine, and a form that two classes of a set share counts for both. Where forms of one set overlap in a caption,
the one that begins first is taken, then the longest one: `hot dog` is no `dog`, if the set has both. Sets do not see each other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from curate.report.concepts.forms import variants
from curate.report.wordcount import Counts, tokens
from shards.core import fs
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

# The nine downstream sets of Entezari et al. 2023 (two of them share their classes), in its order, and ImageNet.
DEFAULT = (
    "CIFAR-100",
    "DTD",
    "Caltech-101",
    "Oxford-IIIT_Pets",
    "DomainNet_REAL_and_CLIPART",
    "Caltech_camera_traps",
    "Cassava_leaf_disease",
    "EuroSAT",
    "ImageNet-1k",
)
VERSION = 1  # of the rule by which forms are found
Form = tuple[str, ...]
_LAYOUT = "one class per line: name, synonym, synonym"
_ASIDE = re.compile(r"\([^)]*\)")


@dataclass(frozen=True)
class ConceptList:
    """The classes of a set. `classes`: the names of each one; the first is what it is called, and no other class's first."""

    name: str
    classes: tuple[tuple[str, ...], ...]


@cache
def default_lists() -> tuple[ConceptList, ...]:
    """Return the lists that come with the program."""
    folder = Path(__file__).parent
    return tuple(_parsed(str(folder / f"{name}.txt"), (folder / f"{name}.txt").read_text(encoding="utf-8")) for name in DEFAULT)


def read_list(path: str) -> ConceptList:
    """Read a list of classes; it is called as the file is, without its extension.

    Raises:
        UsageError: there is no such file, it is no text, it has no class, a class has no word, or two have the same name.
    """
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"{path}: {'a folder' if fs.is_dir(path) else 'no such file'}", f"a text file, {_LAYOUT}")
    try:
        return _parsed(path, fs.read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})", f"a text file, {_LAYOUT}") from error


def lists_with(paths: Iterable[str]) -> tuple[ConceptList, ...]:
    """Return the default lists and those of the files.

    Raises:
        UsageError: a file cannot be read as a list, or two lists have the same name.
    """
    lists = [*default_lists()]
    for path in paths:
        added = read_list(path)
        if added.name in {known.name for known in lists}:
            raise UsageError(f"{path}: there is a list {added.name!r} already", advice="rename the file: a list is called as its file is")
        lists.append(added)
    return tuple(lists)


def _parsed(path: str, text: str) -> ConceptList:
    classes: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not line.strip(" \t,"):
            continue
        names = tuple(" ".join(name.split()) for name in line.split(",") if name.strip())
        if wordless := [name for name in names if not _words(name)]:
            raise UsageError(f"{path}, line {number}: {wordless[0]!r} has no word to look for", _LAYOUT)
        if names[0] in classes:
            raise UsageError(f"{path}, line {number}: a second class {names[0]!r}", advice=f"tell them apart: '{names[0]} (which one)'")
        classes[names[0]] = names
    if not classes:
        raise UsageError(f"{path}: no class in it", _LAYOUT)
    return ConceptList(" ".join(PurePosixPath(path).stem.replace("_", " ").split()), tuple(classes.values()))


def _words(name: str) -> Form:
    return tuple(tokens(_ASIDE.sub(" ", name).replace("_", " ")))


@cache
def forms_of(concepts: ConceptList) -> dict[Form, tuple[int, ...]]:
    """Return every form that is looked for, as words, and the classes that have it, by their places in the list."""
    found: dict[Form, dict[int, None]] = {}
    for place, names in enumerate(concepts.classes):
        for words in map(_words, names):
            for last in variants(words[-1]):
                found.setdefault((*words[:-1], last), {})[place] = None
    return {form: tuple(places) for form, places in found.items()}


def shared_forms(concepts: ConceptList) -> dict[str, list[str]]:
    """Return the forms that more than one class has, but for possessives, and those classes: a mention counts for each."""
    shared = {form: places for form, places in forms_of(concepts).items() if len(places) > 1 and not form[-1].endswith("'s")}
    return {" ".join(form): [concepts.classes[place][0] for place in places] for form, places in sorted(shared.items())}


def digest(lists: Sequence[ConceptList]) -> str:
    """Return the sha256 of all that is looked for: names, synonyms and their forms. Equal digests, comparable counts."""
    looked_for = [(one.name, [names[0] for names in one.classes], sorted(forms_of(one).items())) for one in lists]
    return hashlib.sha256(json.dumps([VERSION, looked_for]).encode()).hexdigest()


def mentions(counts: Counts, lists: Sequence[ConceptList]) -> pa.Table:
    """Count the mentions of classes in captions.

    Args:
        counts: from `wordcount.count`.
        lists: no two with the same name.

    Returns:
        A row for each class that is mentioned, in the order of the lists: set, class, count (occurrences of any of its forms)
        and captions (those that hold at least one).
    """
    import numpy as np
    import pyarrow as pa

    from curate.report.concepts.matching import compiled, count_mentions

    phrases = compiled(tuple(lists))
    known = np.fromiter((phrases.numbers.get(word, -1) for word in counts.words), np.int32, len(counts.words))
    count, captions = count_mentions(counts.stream, counts.lengths, known, *phrases.arrays)
    sets = [concepts.name for concepts in lists for _ in concepts.classes]
    names = [names[0] for concepts in lists for names in concepts.classes]
    table = pa.table({"set": sets, "class": names, "count": count, "captions": captions})
    return table.filter(pa.array(count > 0))
