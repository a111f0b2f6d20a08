"""CLIP's byte-pair encoder without torch: the token ids of open_clip's `SimpleTokenizer`, from the same vocabulary file.

The file is found in the installed package open_clip, which is not imported: that takes seconds and brings torch. The pattern
that cuts a text into pieces never matches across white space, so a text's ids are those of its words, and a word is encoded once.
Ids are kept packed, 2 bytes each: joining the words of a text is then one call, and numpy reads the result as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import itertools
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
CONTEXT_LENGTH = 77
MERGES = 49152 - 256 - 2  # the file has 262,144; CLIP takes the first of them (Radford et al. 2021, released code)
START, END = "<start_of_text>", "<end_of_text>"
MAX_WORDS = 250_000  # in the cache: 30 MB, at the 121 bytes that a word of real captions takes
MAX_LETTERS = 40  # of a word in the cache: longer ones are addresses and file names, which do not come again
ID_BYTES = 2
_PIECES = "|".join((START, END, r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"))


class ClipBpe:
    """Text to CLIP's token ids, with a cache of words. Threads may share one.

    Attributes:
        start, end: ids of the tokens around a text; `end` is the highest id of all.
        digest: sha256 (hex) of the vocabulary file.
    """

    def __init__(self) -> None:
        """Read the vocabulary.

        Raises:
            RunError: it is not installed.
        """
        import regex

        content = _vocabulary_file().read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        merges = gzip.decompress(content).decode().split("\n", MERGES + 1)[1 : MERGES + 1]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._letters = _letters_of_bytes()
        letters = [chr(letter) for letter in self._letters.values()]
        tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(pair.replace(" ", "") for pair in merges), START, END]
        self._token_ids = {token: number for number, token in enumerate(tokens)}
        self.start, self.end = self._token_ids[START], self._token_ids[END]
        self._packed_start, self._packed_end = _packed([self.start]), _packed([self.end])
        self._pieces = regex.compile(_PIECES, regex.IGNORECASE)
        self._words = _Words(self._encode_word)

    def ids(self, word: str) -> list[int]:
        """Return the ids of a word: text in lower case without white space."""
        return _unpacked(self._words[word])

    def count(self, word: str) -> int:
        """Return how many ids a word has."""
        return len(self._words[word]) // ID_BYTES

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without start and end, like `SimpleTokenizer.encode`."""
        return _unpacked(b"".join(map(self._words.__getitem__, cleaned(text).split())))

    def packed(self, text: str, length: int = CONTEXT_LENGTH) -> bytes:
        """Return start, the ids of a text and end as uint16 in the machine's byte order.

        Args:
            length: the most ids there may be, at least 2; a longer text loses its tail.
        """
        # Each word has at least one id, so later words than these cannot be in the result.
        words = cleaned(text).split()[: length - 2]
        ids = b"".join(map(self._words.__getitem__, words))
        return self._packed_start + ids[: (length - 2) * ID_BYTES] + self._packed_end

    def _encode_word(self, word: str) -> list[int]:
        """Return the ids of a word that is not in the cache."""
        if word.isascii() and word.isalpha():
            return self._encode_piece(word)
        ids: list[int] = []
        for piece in self._pieces.findall(word):
            plain = piece.isascii() and piece.isprintable()
            ids += self._encode_piece(piece if plain else piece.encode().decode("latin-1").translate(self._letters))
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        """Return the ids of a piece, which is written in the letters of its bytes."""
        # A token that ends a word is what its letters merge into (a test tries all 37,000), so there is nothing to merge.
        whole = self._token_ids.get(f"{piece}</w>")
        if whole is None and piece in (START, END):
            whole = self._token_ids[piece]
        if whole is not None:
            return [whole]
        return [self._token_ids[part] for part in self._merge(piece)]

    def _merge(self, piece: str) -> list[str]:
        """Return the tokens that byte-pair encoding merges a piece into.

        The pair of lowest rank is merged first, everywhere from left to right (Sennrich et al. 2016, algorithm 1).
        """
        ranks, parts = self._ranks, [*piece[:-1], f"{piece[-1]}</w>"]
        pairs = [ranks.get(f"{a} {b}", MERGES) for a, b in itertools.pairwise(parts)]
        while pairs and (lowest := min(pairs)) < MERGES:
            while lowest in pairs:
                at = pairs.index(lowest)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
                del pairs[at]
                if at > 0:
                    pairs[at - 1] = ranks.get(f"{parts[at - 1]} {parts[at]}", MERGES)
                if at < len(pairs):
                    pairs[at] = ranks.get(f"{parts[at]} {parts[at + 1]}", MERGES)
        return parts


@cache
def clip_bpe() -> ClipBpe:
    """Return this process's encoder; whoever encodes here shares its cache of words."""
    return ClipBpe()


def cleaned(text: str) -> str:
    """Return a text as open_clip's `lower` cleaning leaves it, except that white space may be of any kind and length."""
    # In printable ASCII without `&` neither ftfy nor HTML unescaping changes anything; they take 100 µs, all else 5.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.lower()
    import html

    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).lower()


def cut_row(row: bytes, length: int) -> bytes:
    """Return packed ids, as `ClipBpe.packed` or a layer of tokens has them, as `packed` would make them for a shorter context.

    Args:
        row: start, ids and end; uint16.
        length: the most ids there may be, at least 2.
    """
    return row if len(row) <= length * ID_BYTES else row[: (length - 1) * ID_BYTES] + row[-ID_BYTES:]


def fill_rows(rows: Sequence[bytes], out: NDArray[Any]) -> None:
    """Write packed ids into an array, zeros behind them.

    Args:
        rows: n rows as `ClipBpe.packed` makes them, none with more ids than a row of `out` holds.
        out: (n, length) integers that hold 49,407; every element is written.

    Raises:
        UsageError: another number of rows than `out` has, or a longer row.
    """
    import numpy as np

    if len(rows) != len(out):
        raise UsageError(f"{len(rows)} rows of ids", f"{len(out)}: the rows of the array they go to")
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) // ID_BYTES
    length = out.shape[1]
    if lengths.max(initial=0) > length:
        raise UsageError(f"a row of {lengths.max()} ids", f"at most {length}: the length of the array's rows")
    flat: NDArray[np.uint16] = np.frombuffer(b"".join(rows), np.uint16)
    out[:] = 0
    out[np.arange(length) < lengths[:, None]] = flat


class _Words(dict[str, bytes]):
    """Packed ids of words. A word that is not there is encoded; the first `MAX_WORDS` stay."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        ids = _packed(self._encode(word))
        if len(self) < MAX_WORDS and len(word) <= MAX_LETTERS:
            self[word] = ids
        return ids


def _packed(ids: list[int]) -> bytes:
    return array("H", ids).tobytes()


def _unpacked(ids: bytes) -> list[int]:
    return array("H", ids).tolist()


def _letters_of_bytes() -> dict[int, int]:
    """Return the printable letter of each byte in the vocabulary file, in the order of their ids: a byte that is printable in
    Latin-1 is its own letter, the others have those from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}


def _vocabulary_file() -> Path:
    spec = importlib.util.find_spec("open_clip")
    folders = (spec.submodule_search_locations if spec else None) or ()
    for folder in folders:
        path = Path(folder, VOCABULARY)
        if path.exists():
            return path
    raise RunError("no vocabulary of CLIP's tokenizer", f"{VOCABULARY} in the package open_clip", "pip install open_clip_torch")


def tokenizer_facts() -> dict[str, Any]:
    """Return what decides a caption's ids: a layer of tokens states it, and whoever reads the layer compares."""
    return {"vocabulary": VOCABULARY, "sha256": clip_bpe().digest, "context_length": CONTEXT_LENGTH}
