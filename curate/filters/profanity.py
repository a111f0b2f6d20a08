"""Drop samples with a profane word in any caption.

What it does: looks for whole words and phrases of a word list, in any case, whatever punctuation stands between
    (`Tit-Bits` has the word `tit`, `title` has not). Words on the allow-list never count: neither single ones
    (`titi`), nor listed words inside an allowed phrase (`Maine Coon`). Entries in scripts without
    spaces, and emoji, are searched as text.
Why: published collections were filtered so (RedCaps, ImageNet-Captions), and substring matching deletes whole classes.
Example: `filters: [{name: profanity, list: lists/en, allow: [cock, "cock-of-the-rock"]}]`.
Options: list (a file in LDNOOBW's format: one entry per line), allow (more words and phrases that never count).

The default list is the file that the package better-profanity brings; its matcher is not used. `profanity_allow.txt`
beside this file is our allow-list; a change of it raises VERSION.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from curate.filters.base import Facts
from shards.core import fs
from shards.core.config import option
from shards.core.errors import UsageError

VERSION = 1
MEASURE = ("list", "allow")
COLUMNS = (("hits", "int32"), ("words", "string"))

ALLOW_FILE = os.path.join(os.path.dirname(__file__), "profanity_allow.txt")
_SYMBOLS = "!+@$*"  # stand for letters in entries such as `sh!t`
_QUOTES = "\"'.,;:?()[]{}<>“”‘’«»…-–—"
_ASCII_WORD = re.compile("[0-9a-z]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class Options:
    """The list, and what is allowed besides."""

    list: str = option("", "a word list, one entry per line; default: better-profanity's")
    allow: tuple[str, ...] = option((), "more words and phrases that never count")


def measurer(options: Options) -> Callable[[Facts], tuple[int, str]]:
    """Return the function that counts and names the listed words of all captions."""
    find = matcher(_entries(options.list), [*_read(ALLOW_FILE), *options.allow])

    def measure(facts: Facts) -> tuple[int, str]:
        found = [word for caption in dict.fromkeys((facts.caption, *facts.captions)) for word in find(caption)]
        return len(found), ", ".join(dict.fromkeys(found))

    return measure


def refuse(options: Options) -> str:
    """Return SQL that is true for a sample with a hit."""
    return '"profanity.hits" > 0'


def detail(options: Options) -> str:
    """Return SQL for the words found."""
    return '"profanity.words"'


def matcher(entries: Iterable[str], allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the function that lists the entries in a text, in order. Time goes with the text, not with the list."""
    entries = list(entries)
    spelt = {folded for e in entries if any(c in e for c in _SYMBOLS) and (folded := _fold(e))}
    unspaced = sorted({f for e in entries if (f := _fold(e)) not in spelt and not f.isascii() and (_UNSPACED.search(f) or not _tokens(f))})
    spaced = [e for e in entries if _fold(e) not in spelt and not _UNSPACED.search(e)]
    phrases = {t: e for e in spaced if (t := tuple(_tokens(_fold(e))))}
    passes = {t for a in allowed if (t := tuple(_tokens(_fold(a))))}
    words = {t[0] for t in phrases.keys() - passes}
    lengths: dict[str, list[int]] = {}
    for t in sorted(phrases.keys() | passes, key=len, reverse=True):
        if len(t) not in lengths.setdefault(t[0], []):
            lengths[t[0]].append(len(t))

    def find(text: str) -> list[str]:
        folded = _fold(text)
        tokens = _tokens(folded)
        found = [] if words.isdisjoint(tokens) else _scan(tokens, lengths, phrases, passes)
        if any(c in folded for c in _SYMBOLS):
            found += [form for chunk in folded.split() for form in _bare(chunk) if form in spelt]
        if unspaced and not folded.isascii():
            found += [word for word in unspaced if word in folded]
        return found

    return find


def _scan(tokens: list[str], lengths: dict[str, list[int]], phrases: dict[tuple[str, ...], str], passes: set[tuple[str, ...]]) -> list[str]:
    """Walk over the words; at each, the longest phrase counts, and an allowed one hides the words in it."""
    found, at = [], 0
    while at < len(tokens):
        step = 1
        for length in lengths.get(tokens[at], ()):
            phrase = tuple(tokens[at : at + length])
            if phrase in passes or phrase in phrases:
                found += [] if phrase in passes else [phrases[phrase]]
                step = len(phrase)
                break
        at += step
    return found


def _bare(chunk: str) -> set[str]:
    """Return what stands between spaces, without the punctuation around it; `!` may be either."""
    return {chunk, chunk.strip(_QUOTES), chunk.strip(_QUOTES + "!")}


def _fold(text: str) -> str:
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _tokens(folded: str) -> list[str]:
    return (_ASCII_WORD if folded.isascii() else _any_word()).findall(folded)


@cache
def _any_word() -> re.Pattern[str]:
    """Return the pattern of a word: letters, digits, and the marks that scripts put on them."""
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
    return re.compile(f"(?:[^\\W_]|[{marks}])+")


def _entries(path: str) -> list[str]:
    from importlib.util import find_spec

    if path:
        return _read(path)
    package = find_spec("better_profanity")
    if package is None or not package.origin:
        raise UsageError("profanity: the package better-profanity is not installed", advice="--profanity-list FILE")
    return _read(os.path.join(os.path.dirname(package.origin), "profanity_wordlist.txt"))


def _read(path: str) -> list[str]:
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"profanity: no word list at {path!r}", "a UTF-8 file with one entry per line")
    lines = (line.strip() for line in fs.read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
