"""The compiled loop that counts words and bigrams. Imports numba: import it where there is work.

Two hash tables of rows of whole numbers, so that one look-up touches one cache line. A word's key is its bytes themselves
where it has at most eight, and is exact; longer ones are compared byte by byte. Bigrams are looked up many at a time: the
processor then waits for several rows at once (a third of the time). Indices are unsigned: no wraparound checks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

ZERO, ONE, EIGHT, HALF = np.uint64(0), np.uint64(1), np.uint64(8), np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
WORDS, PAIRS = 1 << 15, 1 << 16  # rows of the tables at the start; they double when half full
WAITING = 1024  # bigrams looked up together
APOSTROPHE = np.uint8(ord("'"))

# What a byte is in a word, 0 if it ends one: digits, lower-cased letters, and all bytes of characters beyond ASCII.
FOLDED = np.array(
    [b if chr(b).isdigit() or chr(b).islower() or b > 127 else b | 32 if chr(b).isupper() else 0 for b in range(256)], np.uint8
)


@njit(cache=True, nogil=True, inline="always")
def _mixed(key: Any) -> Any:
    key = (key ^ (key >> HALF)) * ODD
    return key ^ (key >> HALF)


@njit(cache=True, nogil=True)
def _grown(table: U64) -> U64:
    """Return a table of twice the rows that holds the same; column 0 is the key, 0 in an empty row."""
    bigger = np.zeros((2 * table.shape[0], table.shape[1]), np.uint64)
    mask = np.uint64(bigger.shape[0] - 1)
    for row in table:
        if row[0] != ZERO:
            place = _mixed(row[0]) & mask
            while bigger[place, 0] != ZERO:
                place = (place + ONE) & mask
            bigger[place] = row
    return bigger


@njit(cache=True, nogil=True)
def _same(data: U8, a: Any, b: Any, length: Any) -> bool:
    for _ in range(length):
        if FOLDED[data[a]] != FOLDED[data[b]]:
            return False
        a += ONE
        b += ONE
    return True


@njit(cache=True, nogil=True, inline="always")
def _word_end(data: U8, at: Any, end: Any) -> Any:
    """Return where the word that begins at `at` ends, and its key."""
    key = rest = taken = ZERO
    while at < end:
        byte = FOLDED[data[at]]
        if byte == 0:
            if data[at] != APOSTROPHE or at + ONE == end or FOLDED[data[at + ONE]] == 0:
                break
            byte = APOSTROPHE
        if taken == EIGHT:
            rest = _mixed(rest ^ key)
            key = taken = ZERO
        key = (key << EIGHT) | np.uint64(byte)
        taken += ONE
        at += ONE
    return at, max(key ^ rest, ONE)


@njit(cache=True, nogil=True)
def _add(pairs: U64, keys: U64) -> int:
    """Count bigrams; returns how many of them are new."""
    new, mask = 0, np.uint64(pairs.shape[0] - 1)
    for key in keys:
        place = _mixed(key) & mask
        while pairs[place, 0] != ZERO and pairs[place, 0] != key:
            place = (place + ONE) & mask
        new += pairs[place, 0] == ZERO
        pairs[place, 0] = key
        pairs[place, 1] += ONE
    return new


@njit(cache=True, nogil=True)
def count_words(data: U8, ends: I64) -> tuple[U64, I64, U64, I32, I64, I64, U64]:
    """Count the words and bigrams of captions that lie one after the other.

    Args:
        data: the captions' bytes: words of folded characters; capital ASCII letters count as small ones.
        ends: (n + 1,) where each begins and the last one ends.

    Returns:
        The table of words, (rows, 4): key, bytes << 32 | number, occurrences, captions << 32 | the last one's number + 1; where
        each word lies first, by its number; the table of bigrams, (rows, 2): first number + 1 << 32 | second, occurrences; the
        number of every word in order, (words,); how many words each caption has, (n,), how many different ones, (n,), and a
        hash of them in order, (n,), 0 where there is none. Rows whose column 0 is 0 are empty.
    """
    words, pairs = np.zeros((WORDS, 4), np.uint64), np.zeros((PAIRS, 2), np.uint64)
    start, lengths, distinct = np.zeros(WORDS, np.int64), np.zeros(len(ends) - 1, np.int64), np.zeros(len(ends) - 1, np.int64)
    said = np.zeros(len(ends) - 1, np.uint64)
    stream = np.empty((ends[-1] - ends[0]) // 2 + len(ends), np.int32)  # a word and what ends it are two bytes at least
    waiting, held = np.zeros(WAITING, np.uint64), 0
    used, pairs_used, passed = 0, 0, 0
    for caption in range(len(ends) - 1):
        at, end, before = np.uint64(ends[caption]), np.uint64(ends[caption + 1]), ZERO
        while at < end:
            if FOLDED[data[at]] == 0:
                at += ONE
                continue
            begin = at
            at, key = _word_end(data, begin, end)
            said[caption] = _mixed(said[caption] ^ key)
            length, mask = at - begin, np.uint64(words.shape[0] - 1)
            place = _mixed(key) & mask
            while words[place, 0] != ZERO:
                alike = words[place, 0] == key and words[place, 1] >> HALF == length
                if alike and (length <= EIGHT or _same(data, np.uint64(start[words[place, 1] & LOW]), begin, length)):
                    break
                place = (place + ONE) & mask
            if words[place, 0] == ZERO:
                words[place, 0], words[place, 1] = key, (length << HALF) | np.uint64(used)
                start[used] = begin
                used += 1
            word, seen = words[place, 1] & LOW, words[place, 3]
            words[place, 2] += ONE
            stream[passed] = word
            passed += 1
            lengths[caption] += 1
            if seen & LOW != np.uint64(caption + 1):
                words[place, 3] = (((seen >> HALF) + ONE) << HALF) | np.uint64(caption + 1)
                distinct[caption] += 1
            if before != ZERO:
                waiting[held] = (before << HALF) | word
                held += 1
                if held == WAITING:
                    pairs_used, held = pairs_used + _add(pairs, waiting), 0
                    if 2 * (pairs_used + WAITING) > pairs.shape[0]:
                        pairs = _grown(pairs)
            before = word + ONE
            if 2 * used > words.shape[0]:
                words, start = _grown(words), np.concatenate((start, np.zeros_like(start)))
    _add(pairs, waiting[:held])
    return words, start, pairs, stream[:passed], lengths, distinct, said
