"""Find the entries of word lists in a text: whole words and phrases, in any case, whatever punctuation stands between.

Time goes with the text, not with the lists: a text without any listed word costs one set look-up per word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

_SYMBOLS = "!+@$*"  # stand for letters in entries such as `sh!t`
_QUOTES = "\"'.,;:?()[]{}<>“”‘’«»…-–—"
_SPACES = {i: c if (c := chr(i)).isalnum() else " " for i in range(128)}
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
# Disguises: letters with digits or symbols among them, a letter thrice, letters one by one.
_HIDES = "0-9a-z@$!*#%^+|"
_DISGUISED = re.compile("[a-z][0-9@$!*#%^+|]+[a-z]")
_WHOLE = re.compile(f"(?<![{_HIDES}])[a-z][{_HIDES}]{{2,30}}[a-z](?![{_HIDES}])")
_THRICE = re.compile(r"([a-z])\1\1+")
_ONE_BY_ONE = re.compile(r"(?<![0-9a-z])[a-z]([^0-9a-z]{1,2})[a-z](?:\1[a-z](?![0-9a-z])){2,30}")
_SINGLE = frozenset("bcdefghjklmnopqrtuvwxyz")  # of `a`, `i` and `'s` alone no entry is made
_LEET = [str.maketrans("013457@$!+|", to) for to in ("oieastasiti", "oleastaslti")]
_MASKS = "*#%^@$!"


def matcher(entries: Iterable[str], allowed: Iterable[str], disguised: bool = False) -> Callable[[str], list[str]]:
    """Return the function that lists the entries in a text, in order.

    An entry of one Latin word stands for its plural in -s, too; so do allowed words and the last words of allowed phrases. `disguised`
    has texts without a plain hit searched for `sh1t`, `f**k`, `s h i t` and `fuuuck`, by entries of four letters and more.
    """
    entries = list(entries)
    spelt = {folded for e in entries if any(c in e for c in _SYMBOLS) and (folded := fold(e))}
    unspaced = sorted({f for e in entries if (f := fold(e)) not in spelt and not f.isascii() and (_UNSPACED.search(f) or not tokens(f))})
    spaced = [e for e in entries if fold(e) not in spelt and not _UNSPACED.search(e)]
    passes = {t for a in allowed for t in _with_plural(tokens(fold(a)))}
    phrases: dict[tuple[str, ...], str] = {t: e for e in spaced for t in _with_plural(tokens(fold(e)))[1:] if len(t) == 1}
    phrases |= {tuple(found): e for e in spaced if (found := tokens(fold(e)))}
    firsts = {t[0] for t in phrases.keys() - passes}
    lengths: dict[str, list[int]] = {}
    for t in sorted(phrases.keys() | passes, key=len, reverse=True):
        if len(t) not in lengths.setdefault(t[0], []):
            lengths[t[0]].append(len(t))
    reveal = _revealer({t[0]: e for t, e in phrases.items() if len(t) == 1 and t not in passes}) if disguised else None

    def find(text: str) -> list[str]:
        folded = fold(text)
        words = tokens(folded)
        found = [] if firsts.isdisjoint(words) else _scan(words, lengths, phrases, passes)
        if any(c in folded for c in _SYMBOLS):
            found += [form for chunk in folded.split() for form in _bare(chunk) if form in spelt]
        if unspaced and not folded.isascii():
            found += [word for word in unspaced if word in folded]
        return found or (reveal(folded, words) if reveal else found)

    return find


def _scan(words: list[str], lengths: dict[str, list[int]], phrases: dict[tuple[str, ...], str], passes: set[tuple[str, ...]]) -> list[str]:
    """Walk over the words; at each, the longest phrase counts, and an allowed one hides the words in it."""
    found, at = [], 0
    while at < len(words):
        step = 1
        for length in lengths.get(words[at], ()):
            phrase = tuple(words[at : at + length])
            if phrase in passes or phrase in phrases:
                found += [] if phrase in passes else [phrases[phrase]]
                step = len(phrase)
                break
        at += step
    return found


def _revealer(listed: dict[str, str]) -> Callable[[str, list[str]], list[str]]:
    """Return the function that lists the entries hidden in a folded text with these words."""
    listed = {word: entry for word, entry in listed.items() if len(word) > 3 and word.isascii() and word.isalpha()}
    shapes: dict[tuple[int, str, str], list[str]] = {}
    for word in listed:
        shapes.setdefault((len(word), word[0], word[-1]), []).append(word)

    def unmask(chunk: str) -> str:
        for table in _LEET:
            if (plain := chunk.translate(table)) in listed:
                return plain
        near = shapes.get((len(chunk), chunk[0], chunk[-1]), ())
        return next((w for w in near if all(c == m or m in _MASKS for c, m in zip(w, chunk, strict=True))), "")

    def reveal(folded: str, words: list[str]) -> list[str]:
        found: list[str] = []
        if _DISGUISED.search(folded):
            chunks = [c for c in _WHOLE.findall(folded) if not c.isalpha() and sum(map(str.isalpha, c)) > 1]
            found += [listed[word] for chunk in chunks if (word := unmask(chunk))]
        if _THRICE.search(folded):
            forms = [(_THRICE.sub(r"\1", w), _THRICE.sub(r"\1\1", w)) for w in words if _THRICE.search(w)]
            found += [listed[one if one in listed else two] for one, two in forms if one in listed or two in listed]
        if not _SINGLE.isdisjoint(words):
            joined = ("".join(filter(str.isalpha, run[0])) for run in _ONE_BY_ONE.finditer(folded))
            found += [listed[word] for word in joined if word in listed]
        return found

    return reveal


def _with_plural(words: list[str]) -> list[tuple[str, ...]]:
    """Return a phrase, and its plural where its last word is a Latin one that may have one; nothing for no words."""
    if not words:
        return []
    last = words[-1]
    plural = len(last) > 2 and last.isascii() and last.isalpha() and last[-1] != "s"
    return [tuple(words), (*words[:-1], last + "s")] if plural else [tuple(words)]


def _bare(chunk: str) -> set[str]:
    """Return what stands between spaces, without the punctuation around it; `!` may be either."""
    return {chunk, chunk.strip(_QUOTES), chunk.strip(_QUOTES + "!")}


def fold(text: str) -> str:
    """Return a text without differences of case and width."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def tokens(folded: str) -> list[str]:
    """Return the words of a folded text: runs of letters and digits, and of the marks that scripts put on them."""
    return folded.translate(_SPACES).split() if folded.isascii() else _any_word().findall(folded)


@cache
def _any_word() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
    return re.compile(f"(?:[^\\W_]|[{marks}])+")
