"""Drop samples with a profane word in any caption.

What it does: looks for whole words and phrases of word lists, in any case, in the plural too, whatever punctuation stands between
    (`Tit-Bits` has the word `tit`, `title` has not). Words on the allow-list never count: neither single ones
    (`titi`), nor listed words inside an allowed phrase (`Maine Coon`), nor, in a labelled set, what the name of the
    sample's own class has in it (WordNet's `cock`, `nipple`). Entries in scripts without spaces, and emoji,
    are searched as text. Where that finds nothing, disguises are tried: `sh1t`, `f**k`, `s h i t`, `fuuuck`.
Why: published collections were filtered so (RedCaps, ImageNet-Captions), and substring matching deletes whole classes.
Example: `filters: [{name: profanity, list: [default, lists/es], allow: [cock, "cock-of-the-rock", my-allowed.txt]}]`.
Options: list (files in LDNOOBW's format, one entry per line; `default` is better-profanity's), allow (words and phrases that
    never count, or files of them), disguised.

Lists of several languages find each other's harmless words (French `bite`, Turkish `am`): give the lists of the languages that
the captions are in. Of the package better-profanity the word list alone is used; `profanity_allow.txt` beside this
file is our allow-list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from curate.filters._words import matcher
from curate.filters.base import Facts
from shards.core import fs
from shards.core.config import option
from shards.core.errors import UsageError

VERSION = 3
MEASURE = ("list", "allow", "disguised")
COLUMNS = (("hits", "int32"), ("words", "string"))

ALLOW_FILE = os.path.join(os.path.dirname(__file__), "profanity_allow.txt")


@dataclass(frozen=True)
class Options:
    """The lists, and what is allowed besides."""

    list: tuple[str, ...] = option((), "word lists, one entry per line; `default`, also without this option: better-profanity's")
    allow: tuple[str, ...] = option((), "more words and phrases that never count, or files of them")
    disguised: bool = option(True, "find disguised words, too: sh1t, f**k, s h i t, fuuuck")


def files(options: Options) -> list[str]:
    """Return the files that these options stand for without naming them."""
    return [ALLOW_FILE, *([_default()] if not options.list or "default" in options.list else [])]


def measurer(options: Options) -> Callable[[Facts], tuple[int, str]]:
    """Return the function that counts and names the listed words of all captions."""
    entries = [entry for path in options.list or ("default",) for entry in read(_default() if path == "default" else path)]
    allowed = [word for value in options.allow for word in (read(value) if fs.exists(value) and not fs.is_dir(value) else [value])]
    find = matcher(entries, [*read(ALLOW_FILE), *allowed], options.disguised)

    named = cache(lambda class_name: frozenset(find(class_name)))

    def measure(facts: Facts) -> tuple[int, str]:
        alone = facts.captions == (facts.caption,)
        found = find(facts.caption) if alone else [word for text in dict.fromkeys((facts.caption, *facts.captions)) for word in find(text)]
        if found and facts.class_name:
            found = [word for word in found if word not in named(facts.class_name.replace("_", " "))]
        return (len(found), ", ".join(dict.fromkeys(found))) if found else (0, "")

    return measure


def refuse(options: Options) -> str:
    """Return SQL that is true for a sample with a hit."""
    return '"profanity.hits" > 0'


def detail(options: Options) -> str:
    """Return SQL for the words found."""
    return '"profanity.words"'


def read(path: str) -> list[str]:
    """Return the entries of a word list; `#` begins a comment.

    Raises:
        UsageError: no such file, or no text in it.
    """
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"profanity: no word list at {path!r}", "a UTF-8 file with one entry per line, or default")
    try:
        lines = (line.strip() for line in fs.read_text(path).splitlines())
    except UnicodeDecodeError as error:
        raise UsageError(f"profanity: {path!r} is no UTF-8 text: {error}", "one entry per line") from error
    return [line for line in lines if line and not line.startswith("#")]


def _default() -> str:
    from importlib.util import find_spec

    package = find_spec("better_profanity")
    if package is None or not package.origin:
        raise UsageError("profanity: the package better-profanity is not installed", advice="--profanity-list FILE")
    return os.path.join(os.path.dirname(package.origin), "profanity_wordlist.txt")
