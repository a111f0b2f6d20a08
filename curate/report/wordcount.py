"""Count words and bigrams exactly: one pass over the bytes of captions in a compiled loop (wordloop.py).

`tokens` is the definition of a word. Captions of ASCII go to the loop as they are; the others are folded and split by
`tokens` first, and join them word by word. A bigram is two words that follow each other in one caption.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VERSION = 1
_ASCII_WORD = re.compile(r"[0-9a-z]+(?:'[0-9a-z]+)*")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True)
class Counts:
    """What was counted. Words are numbered by their first occurrence.

    `words`: their spelling; `count`: occurrences; `captions`: captions that hold them.
    `first`, `second`, `pairs`: the words of each distinct bigram, by number, and its occurrences, in no order.
    `stream`: the number of every word in order, caption after caption.
    `lengths`: how many words each caption has; `distinct`: how many different ones; `said`: a hash of them in order,
    0 where there is none.
    """

    words: list[str]
    count: NDArray[np.int64]
    captions: NDArray[np.int64]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    pairs: NDArray[np.int64]
    stream: NDArray[np.int32]
    lengths: NDArray[np.int64]
    distinct: NDArray[np.int64]
    said: NDArray[np.uint64]


def tokens(caption: str) -> list[str]:
    """Return the words of a caption.

    The caption is folded as Unicode's caseless matching does: NFKC, full case folding, NFKC; ’ becomes ', and what is
    invisible (format characters, variation selectors) goes, but for the zero-width space. A word is then a letter or number
    with the letters, numbers and marks that follow it, and may have single apostrophes inside: `don't`, `l'été`, `3d`.
    A script without spaces between words gives its runs, not its words.
    """
    if caption.isascii():
        return _ASCII_WORD.findall(caption.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", caption).casefold()).replace("\u2019", "'")
    marks, invisible, word = _beyond_letters()
    if not invisible.isdisjoint(folded):
        folded = "".join(c for c in folded if c not in invisible)
    return (_WORD if marks.isdisjoint(folded) else word).findall(folded)


@cache
def _beyond_letters() -> tuple[frozenset[str], frozenset[str], re.Pattern[str]]:
    """Return the marks and the invisible characters of this Python's Unicode, and what matches a word with marks in it."""
    planes = (*range(0x80, 0x20000), *range(0xE0000, 0xF0000))  # the others hold ideographs and private characters alone
    characters = [(c, unicodedata.category(c)) for c in map(chr, planes)]
    selectors = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
    marks = frozenset(c for c, category in characters if category in ("Mn", "Mc")) - selectors
    invisible = selectors | {c for c, category in characters if category == "Cf"} - {"\u200b"}
    run = f"[^\\W_]+(?:[{''.join(sorted(marks))}]+[^\\W_]*)*"
    return marks, invisible, re.compile(f"{run}(?:'{run})*")


def count(captions: pa.ChunkedArray | pa.Array | Iterable[str]) -> Counts:
    """Count the words and bigrams of captions; memory grows with the text given and with what is distinct in it."""
    import numpy as np

    from curate.report.wordloop import count_words

    data, ends = _bytes(captions)
    rows, start, pairs, stream, lengths, distinct, said = count_words(data, ends)
    rows, pairs = rows[rows[:, 0] != 0], pairs[pairs[:, 0] != 0]
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    rows = rows[np.argsort(rows[:, 1] & low)]
    places = zip(start.tolist(), (rows[:, 1] >> half).tolist(), strict=False)  # `start` has room to spare
    return Counts(
        words=[data[at : at + size].tobytes().lower().decode() for at, size in places],
        count=rows[:, 2].astype(np.int64),
        captions=(rows[:, 3] >> half).astype(np.int64),
        first=((pairs[:, 0] >> half) - np.uint64(1)).astype(np.int32),
        second=(pairs[:, 0] & low).astype(np.int32),
        pairs=pairs[:, 1].astype(np.int64),
        stream=stream,
        lengths=lengths,
        distinct=distinct,
        said=said,
    )


def _bytes(captions: pa.ChunkedArray | pa.Array | Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all captions as UTF-8 and where each ends; those beyond ASCII are folded and split."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = captions if isinstance(captions, pa.ChunkedArray | pa.Array) else pa.array(captions, pa.large_string())
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    beyond = pc.invert(pc.string_is_ascii(texts))
    if pc.any(beyond).as_py():
        folded = [" ".join(tokens(caption)) for caption in texts.filter(beyond).to_pylist()]
        texts = pc.replace_with_mask(texts, beyond, pa.array(folded, pa.large_string()))
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(content, np.uint8) if content and len(content) else np.zeros(1, np.uint8), ends
