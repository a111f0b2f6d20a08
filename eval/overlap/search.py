"""Which images of a test set training data hold, too: by uid, by bytes, or nearly."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.overlap.near import NearIndex, hash_of
from shards.core.engines.local import threads_of
from shards.core.errors import UsageError
from shards.phash import DEFAULT, LOW_INFORMATION, VERSIONS
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eval.datasets.base import Examples
    from shards.manifest import Manifest, ShardEntry

BYTES, UID, NEAR = "bytes", "uid", "near"
KINDS = (BYTES, UID, NEAR)  # the surest first
_COLUMNS = ("uid", "sha256", "original_sha256", "phash", "information")


@dataclass(frozen=True)
class Match:
    """A test image and the training image that it was found as.

    Attributes:
        place: of the test image in its set.
        how: bytes, uid or near.
        bits: of 64 in which the hashes differ; 0 unless near.
        where: the training image, for a reader: its file and its key.
        picture: reads its bytes.
    """

    place: int
    how: str
    bits: int
    where: str
    picture: Callable[[], bytes]


def matches(test: Examples, builds: Sequence[Manifest], trained_on: Sequence[Examples] = ()) -> list[Match]:
    """Return a match for each test image that occurs in training data, in the order of the test images.

    An image that occurs several times has the surest match, and of equal ones the first. Builds are read a sidecar at a time: memory
    does not grow with them.

    Args:
        builds: what the model was pre-trained on.
        trained_on: labelled sets that a protocol trains on.

    Raises:
        UsageError: a build without sidecars, whose images are therefore unknown.
    """
    best: dict[int, Match] = {}
    searches = {kind: _Test(test, kind) for kind in sorted({kind_of(build) for build in builds} | ({DEFAULT} if trained_on else set()))}
    sources = [(searches[kind_of(build)], _of_build(build)) for build in builds]
    sources += [(searches[DEFAULT], _of_examples(examples)) for examples in trained_on]
    for search, parts in sources:
        for part in parts:
            for match in search.among(part):
                known = best.get(match.place)
                if known is None or _sureness(match) < _sureness(known):
                    best[match.place] = match
    return [best[place] for place in sorted(best)]


def counts(found: Iterable[Match]) -> dict[str, int]:
    """Return how many test images were found by each kind of match."""
    by_kind = Counter(match.how for match in found)
    return {kind: by_kind[kind] for kind in KINDS}


def kind_of(build: Manifest) -> str:
    """Return the kind of perceptual hash that a build's sidecars hold."""
    codecs = build.notes.get("codecs", {})
    named = codecs.get("phash") if isinstance(codecs, dict) else None
    return next((kind for kind, version in VERSIONS.items() if version == named), DEFAULT)


def _sureness(match: Match) -> tuple[int, int]:
    return KINDS.index(match.how), match.bits


@dataclass(frozen=True, eq=False)
class _Part:
    """Some training images: columns of equal length; empty text where a value is unknown.

    Attributes:
        where: says of a row where its image is.
        picture: gives of a row what reads its image, without holding on to the columns.
    """

    uids: NDArray[np.str_]
    hashes: tuple[NDArray[np.bytes_], ...]
    phashes: NDArray[np.uint64]  # 0 where there is none, or where it says too little
    where: Callable[[int], str]
    picture: Callable[[int], Callable[[], bytes]]


class _Test:
    """The test images, ready to be looked up: by content, by uid, and by hash of one kind."""

    def __init__(self, test: Examples, kind: str) -> None:
        import numpy as np

        hashes = _hashes(test, kind)
        self.index = NearIndex(hashes, hashes != np.uint64(0))
        self.by_content = _places(test.hashes.tolist())
        self.by_uid = _places(list(test.ids))

    def among(self, part: _Part) -> Iterator[Match]:
        """Yield all matches among some training images."""
        import numpy as np

        def match(place: int, row: int, how: str, bits: int = 0) -> Match:
            return Match(int(place), how, int(bits), part.where(row), part.picture(row))

        for column in part.hashes:
            for row, content in enumerate(column.tolist()):
                for place in self.by_content.get(content, ()):
                    yield match(place, row, BYTES)
        for row, uid in enumerate(part.uids.tolist()):
            for place in self.by_uid.get(uid, ()):
                yield match(place, row, UID)
        known = np.flatnonzero(part.phashes)
        for place, at, bits in zip(*self.index.pairs(part.phashes[known]), strict=True):
            yield match(place, int(known[at]), NEAR, bits)


def _hashes(examples: Examples, kind: str) -> NDArray[np.uint64]:
    """Return the hash of each image of a set, (n,); 0 where it cannot be read, or says too little for a near match."""
    import numpy as np

    def of_image(i: int) -> int:
        try:
            value, usable = hash_of(examples.read(i), kind)
        except OSError:  # the encoder names it
            return 0
        return value if usable else 0

    with ThreadPoolExecutor(threads_of(0)) as pool:
        return np.array(list(pool.map(of_image, range(len(examples)))), np.uint64)


def _places(names: Sequence[object]) -> dict[object, list[int]]:
    by_name: dict[object, list[int]] = {}
    for place, name in enumerate(names):
        by_name.setdefault(name, []).append(place)
    return by_name


def _of_build(build: Manifest) -> Iterator[_Part]:
    for entry in build.shards:
        yield _of_shard(build, entry)


def _of_shard(build: Manifest, entry: ShardEntry) -> _Part:
    import numpy as np

    with Shard(build, entry) as shard:
        table = shard.sidecar(_COLUMNS)
        path = shard.path
    if "sha256" not in table.column_names:
        found = f"{path}: no sidecar beside it, which names its images"
        raise UsageError(found, "a build that `curate build-shards` wrote, or a subset of one")

    def column(name: str) -> list[Any]:
        return [value or "" for value in table.column(name).to_pylist()] if name in table.column_names else [""] * table.num_rows

    contents = tuple(np.array(column(name), "S64") for name in ("sha256", "original_sha256"))
    measured = zip(column("phash"), column("information"), strict=True)
    phashes = [int(value, 16) if value and float(information or 0) >= LOW_INFORMATION else 0 for value, information in measured]
    uids = np.array(column("uid"), str)
    return _Part(
        uids,
        contents,
        np.array(phashes, np.uint64),
        lambda row: f"{path}: {uids[row]}",
        functools.partial(functools.partial, _picture, build, entry),
    )


def _picture(build: Manifest, entry: ShardEntry, row: int) -> bytes:
    """Return the bytes of a sample's image."""
    from shards.image_names import is_image

    with Shard(build, entry) as shard:
        ending = next(member.ext for member in shard.groups[row] if is_image(f"x.{member.ext}"))
        return shard.read(row, ending)


def _of_examples(examples: Examples) -> Iterator[_Part]:
    import numpy as np

    phashes = _hashes(examples, DEFAULT)
    uids = np.array(examples.ids, str)
    yield _Part(
        uids, (examples.hashes,), phashes, lambda row: f"{examples.name}: {uids[row]}", functools.partial(functools.partial, examples.read)
    )
