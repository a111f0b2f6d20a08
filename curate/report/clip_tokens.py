"""How many CLIP tokens a caption has: open_clip's SimpleTokenizer, counted without it, since it brings torch along.

The vocabulary is the installed open_clip's own file. The pattern that cuts text into pieces never matches across white
space, so a caption's tokens are those of its words, and a word is counted once.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VERSION = 1
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2
REMEMBERED = 1_000_000  # words
_SPECIAL = ("<start_of_text>", "<end_of_text>")
_PIECES = "|".join((*_SPECIAL, r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"))
# What is no printable ASCII, and `&`: elsewhere neither ftfy nor HTML unescaping changes anything.
_NOT_PLAIN = "[^ -%'-~]"


def clip_tokens(captions: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Return the CLIP tokens of each caption, (n,), without start and end; a null has none.

    Raises:
        RunError: open_clip's vocabulary is not installed.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = captions.combine_chunks() if isinstance(captions, pa.ChunkedArray) else captions
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    odd = pc.match_substring_regex(texts, _NOT_PLAIN)
    if pc.any(odd).as_py():
        cleaned = [_cleaned(text) for text in texts.filter(odd).to_pylist()]
        texts = pc.replace_with_mask(texts, odd, pa.array(cleaned, pa.large_string()))
    words = pc.ascii_split_whitespace(pc.ascii_lower(pc.ascii_trim_whitespace(texts)))
    found = words.flatten().dictionary_encode()
    each = np.array([_tokens_of(word) for word in found.dictionary.to_pylist()], np.int64)
    sums = np.concatenate([[0], np.cumsum(each[np.asarray(found.indices)])]) if len(each) else np.zeros(1, np.int64)
    ends = np.asarray(words.offsets)
    return sums[ends[1:] - ends[0]] - sums[ends[:-1] - ends[0]]


def _cleaned(text: str) -> str:
    """Return a text as open_clip's `lower` cleaning leaves it."""
    import html

    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


_known: dict[str, int] = {"": 0}


def _tokens_of(word: str) -> int:
    """Return the tokens of a word between white space, in lower case."""
    if (known := _known.get(word)) is not None:
        return known
    bpe = _bpe()
    n = sum(_merged(piece.encode().decode("latin-1").translate(bpe.letters), bpe) for piece in bpe.pieces.findall(word))
    if len(_known) < REMEMBERED:
        _known[word] = n
    return n


def _merged(piece: str, bpe: _Bpe) -> int:
    """Return into how many tokens byte-pair encoding merges a piece: the pair of lowest rank first, everywhere from left to right."""
    if piece in bpe.whole:  # a token that ends a word is what its letters merge into: a test tries them all
        return 1
    ranks, parts = bpe.ranks, [*piece[:-1], piece[-1] + "</w>"]
    pairs = [ranks.get(f"{a} {b}", MERGES) for a, b in itertools.pairwise(parts)]
    while pairs and (best := min(pairs)) < MERGES:
        while best in pairs:
            at = pairs.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            del pairs[at]
            if at > 0:
                pairs[at - 1] = ranks.get(f"{parts[at - 1]} {parts[at]}", MERGES)
            if at < len(pairs):
                pairs[at] = ranks.get(f"{parts[at]} {parts[at + 1]}", MERGES)
    return len(parts)


@dataclass(frozen=True)
class _Bpe:
    """`ranks`: of the pairs that are merged, a space between; `whole`: what merges into one token; `letters`: a printable
    letter for each byte; `pieces`: cuts a word, what is merged never reaches over a cut."""

    ranks: dict[str, int]
    whole: frozenset[str]
    letters: dict[int, int]
    pieces: Any


@cache
def _bpe() -> _Bpe:
    import regex

    spec = importlib.util.find_spec("open_clip")
    paths = [Path(folder, VOCABULARY) for folder in (spec.submodule_search_locations if spec else None) or ()]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise RunError("no vocabulary of CLIP's tokenizer", f"{VOCABULARY} in the package open_clip", "pip install open_clip_torch")
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    whole = frozenset(ending.replace(" ", "").removesuffix("</w>") for ending in merges if ending.endswith("</w>"))
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: byte for byte in plain} | {byte: 256 + i for i, byte in enumerate(others)}
    pieces = regex.compile(_PIECES, regex.IGNORECASE)
    return _Bpe(dict(zip(merges, range(MERGES), strict=True)), whole | set(_SPECIAL), letters, pieces)
