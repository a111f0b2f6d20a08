"""What the `.idx` of a foreign tar says of its samples, read as arrays: over a million samples a second, no image opened.

An index line is `EXTENSION OFFSET SIZE NAME` for each member of one sample. Parsing it into `Member` objects costs 4 µs a
sample; finding blanks and line feeds by numpy and comparing extensions as fixed-width bytes costs well below 1 µs.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shards import tar
from shards.core import fs
from shards.core.errors import UsageError
from shards.manifest import Manifest, ShardEntry
from shards.sample import IMAGE_EXTENSIONS
from shards.tar import Member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEAD = b"v1.2 "
_BLANK, _LINE_FEED, _ZERO = b" \n0"
MOST_EXTENSIONS = 63  # kinds of samples are sets of extensions, held as bits; a tar with more is parsed member by member
_MULTIPLIER = 0xBF58476D1CE4E5B9  # splitmix64 (Steele et al. 2014)


@dataclass(frozen=True)
class Scan:
    """What one tar holds, sample by sample; n samples in use.

    Attributes:
        image, text, label: (n,) bool: whether a sample has an image, a `.txt`, a `.cls` member.
        empty_text: (n,) bool: whether its `.txt` has no byte.
        kinds: how many samples have which members, as `.jpg .txt`.
        keys: (n,) uint64 hashes of the keys; empty where the index holds no names (v1.1).
        apart: keys of samples whose members stand apart.
        group: reads and returns the members of the i-th sample in use.
    """

    image: NDArray[np.bool_]
    text: NDArray[np.bool_]
    label: NDArray[np.bool_]
    empty_text: NDArray[np.bool_]
    kinds: Counter[str]
    keys: NDArray[np.uint64]
    apart: list[str]
    group: Callable[[int], list[Member]]


def scan(manifest: Manifest, entry: ShardEntry) -> Scan:
    """Return what a shard's `.idx` says of its samples in use; without one, what a walk through its tar says.

    Raises:
        UsageError: the index has another number of samples than the manifest.
        TornFileError: the index or the tar cannot be parsed.
    """
    path = manifest.path_of(entry)
    index = path.removesuffix(".tar") + ".idx"
    if not fs.exists(index):
        groups = tar.read_index(path)
        _check_count(path, len(groups), entry)
        return _scan_groups(groups, entry, named=True)
    content = fs.read_bytes(index)
    head, _, body = content.partition(b"\n")
    fast = _tokens(body, entry.samples) if head == b"%s%d" % (_HEAD, entry.samples) else None
    found = fast and _scan_tokens(body, fast, entry, index)
    if found is not None:
        return found
    groups = tar.parse_index(content.decode("utf-8", "surrogateescape"), index)
    _check_count(index, len(groups), entry)
    return _scan_groups(groups, entry, named=head.startswith(_HEAD))


def _check_count(path: str, samples: int, entry: ShardEntry) -> None:
    if samples != entry.samples:
        advice = "shards index --overwrite, if the tar was written anew; else shards verify"
        raise UsageError(f"{path}: {samples:,} samples", f"{entry.samples:,}, as the manifest says", advice)


class _Tokens(NamedTuple):
    """The words of an index without its head: where each begins and ends, and its number in its line."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    field: NDArray[np.int64]  # 0 extension, 1 offset, 2 size, 3 name
    lines: NDArray[np.int64]  # the first word of each line


def _tokens(body: bytes, samples: int) -> _Tokens | None:
    """Return the words of an index; None where it is not as `shards index` and wds2idx write it."""
    import numpy as np

    text = np.frombuffer(body, np.uint8)
    if not samples or not body.endswith(b"\n"):
        return None
    ends = np.flatnonzero((text == _BLANK) | (text == _LINE_FEED))
    starts = np.concatenate([[0], ends[:-1] + 1])
    last_words = np.flatnonzero(text[ends] == _LINE_FEED)
    if len(last_words) != samples:
        return None
    lines = np.concatenate([[0], last_words[:-1] + 1])
    words = np.diff(lines, append=len(ends))
    if (words % 4).any() or (starts == ends).any():
        return None
    return _Tokens(starts, ends, np.arange(len(ends)) % 4, lines)  # each line has a multiple of four words


def _scan_tokens(body: bytes, tokens: _Tokens, entry: ShardEntry, index: str) -> Scan | None:
    """Return what the words of an index say; None where they have too many extensions."""
    import numpy as np

    starts, ends = tokens.starts[::4], tokens.ends[::4]
    read = _extensions(body, starts, ends)
    if read is None:
        return None
    extensions, which = read
    members = tokens.lines // 4  # the first member of each sample
    kinds, kind_of = np.unique(np.bitwise_or.reduceat(np.int64(1) << which, members), return_inverse=True)
    sets = [[ext for bit, ext in enumerate(extensions) if kind >> bit & 1] for kind in kinds.tolist()]
    chosen = entry.positions()
    kind_of = kind_of[chosen]

    is_text = np.array([ext.lower() == "txt" for ext in extensions])[which]
    text = np.frombuffer(body, np.uint8)
    size_starts = tokens.starts[2::4]
    is_empty = (text[size_starts] == _ZERO) & (tokens.ends[2::4] - size_starts == 1)
    keys = _key_hashes(body, tokens, members, ends - starts)
    counted = np.bincount(kind_of, minlength=len(sets)).tolist()
    return Scan(
        image=_has(sets, IMAGE_EXTENSIONS)[kind_of],
        text=_has(sets, ("txt",))[kind_of],
        label=_has(sets, ("cls",))[kind_of],
        empty_text=np.bitwise_or.reduceat(is_text & is_empty, members)[chosen],
        kinds=Counter({" ".join(f".{ext}" for ext in names): n for names, n in zip(sets, counted, strict=True) if n}),
        keys=keys[chosen],
        apart=_apart(body, tokens, keys),
        group=functools.partial(_group_in, index, chosen),
    )


def _extensions(body: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]] | None:
    """Return the different extensions and each member's number among them; None where they are too many."""
    import numpy as np

    hashes = _hashes(body, starts, ends - starts)
    different = np.unique(hashes[:1000])  # nearly always all there are, and sorting all members costs 0.1 us each
    place = np.minimum(np.searchsorted(different, hashes), len(different) - 1)
    if (different[place] != hashes).any():
        different = np.unique(hashes)
        place = np.searchsorted(different, hashes)
    if len(different) > MOST_EXTENSIONS:
        return None
    examples = np.array([np.argmax(hashes == one) for one in different])
    order = np.argsort(examples)  # as they come in the tar
    words = [body[int(starts[i]) : int(ends[i])] for i in examples[order]]
    return [word.decode("utf-8", "surrogateescape") for word in words], np.argsort(order)[place]


def _key_hashes(body: bytes, tokens: _Tokens, members: NDArray[np.int64], extension_lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the hash of each sample's key: its first member's name without the dot and the extension."""
    starts = tokens.starts[tokens.lines + 3]
    ends = tokens.ends[tokens.lines + 3] - 1 - extension_lengths[members]
    return _hashes(body, starts, ends - starts)


def _hashes(content: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 64-bit hashes of n pieces of a text, eight bytes at a time (mixed as by splitmix64's multiplier and shift).

    Among 10 million different pieces, two share a hash with a chance of 3 in a million.
    """
    import numpy as np

    # Eight bytes from any byte on, as one number.
    words = np.ndarray(len(content) + 1, "<u8", content + bytes(8), strides=(1,))
    result = lengths.astype(np.uint64)
    for first in range(0, int(lengths.max(initial=0)), 8):
        left = lengths - first
        word = words[np.minimum(starts + first, len(content))]
        unused = (8 * np.clip(8 - left, 0, 7)).astype(np.uint64)  # bits behind the piece's end
        mixed = (result ^ (word << unused)) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
        result = np.where(left > 0, mixed, result)
    return result


def _apart(body: bytes, tokens: _Tokens, keys: NDArray[np.uint64]) -> list[str]:
    """Return the keys of samples whose members stand apart; only groups whose key comes again are parsed."""
    import numpy as np

    order = np.sort(keys)
    again = order[1:][order[1:] == order[:-1]]
    if not len(again):
        return []
    starts = tokens.starts[tokens.lines]
    stops = np.append(starts[1:], len(body)) - 1
    suspects = np.flatnonzero(np.isin(keys, again)).tolist()
    return tar.scattered([_parsed(body[starts[i] : stops[i]]) for i in suspects])


def _parsed(line: bytes) -> list[Member]:
    return tar.parse_index("v1.2 1\n" + line.decode("utf-8", "surrogateescape"))[0]


def _group_in(index: str, chosen: NDArray[np.int64], i: int) -> list[Member]:
    """Return the members of the i-th sample in use. The index is read again: 15 M samples' would fill 4 GB."""
    return _parsed(_lines(index, str(fs.identity(index)))[1 + int(chosen[i])])


@functools.lru_cache(maxsize=2)
def _lines(index: str, identity: str) -> list[bytes]:
    """Return the lines of an index; with another `identity` it is another file."""
    return fs.read_bytes(index).split(b"\n")


def _has(kinds: Sequence[Sequence[str]], wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each set of extensions whether one of the wanted ones is in it."""
    import numpy as np

    return np.array([any(ext.lower() in wanted for ext in kind) for kind in kinds], bool)


def _scan_groups(groups: list[list[Member]], entry: ShardEntry, *, named: bool) -> Scan:
    """Return what parsed samples say; `named`: whether their keys are theirs (an index of version 1.1 has none)."""
    import numpy as np

    chosen = [groups[i] for i in entry.positions().tolist()]
    extensions = [[member.ext for member in group] for group in chosen]
    empty = [any(m.ext.lower() == "txt" and m.size == 0 for m in group) for group in chosen]
    keys = [group[0].key.encode("utf-8", "surrogateescape") for group in chosen] if named else []
    lengths = np.array([len(key) for key in keys], np.int64)
    return Scan(
        image=_has(extensions, IMAGE_EXTENSIONS),
        text=_has(extensions, ("txt",)),
        label=_has(extensions, ("cls",)),
        empty_text=np.array(empty, bool),
        kinds=Counter(" ".join(f".{ext}" for ext in dict.fromkeys(kind)) for kind in extensions),
        keys=_hashes(b"".join(keys), np.cumsum(lengths) - lengths, lengths),
        apart=tar.scattered(groups) if named else [],
        group=chosen.__getitem__,
    )
