"""`shards uids`: which samples a set holds, in DataComp's subset format.

The format: a .npy of dtype `u8,u8` (the uid's high and low 64 bits), shape (n,), sorted; repeats are allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards import expression
from shards.core import fs
from shards.core.config import option
from shards.core.console import counted, emit
from shards.core.errors import TornFileError, UsageError
from shards.listed import UID_COLUMNS, quoted_uid, read_names
from shards.manifest import Manifest, read_manifest
from shards.reader import Shard
from shards.sample import UID_RULE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class UidsConfig:
    """Flags of `shards uids`."""

    source: str = option(help="a build's folder or manifest.json, or a list of uids (.npy, .txt, .csv, .parquet)", positional=True)
    output: str = option("", "write this .npy; without it, uids go to stdout, one per line")
    where: str = option("", "only samples that meet an SQL condition over columns, as for `shards subset`", metavar="EXPR")
    strict: bool = option(False, "exit 1 where the condition has no value for some samples")
    json: bool = option(False, "print JSON")


def run(config: UidsConfig) -> None:
    """Write or print the sorted uids of a set."""
    if config.output and not config.output.endswith(".npy"):
        raise UsageError(f"--output {config.output}", "a name ending in .npy")
    uids = _uids(config)
    if config.output:
        write_uids(config.output, uids)
        emit({"uids": len(uids), "output": config.output} if config.json else f"{config.output}: {counted(len(uids), 'uid')}")
    elif config.json:
        emit(list(unpack(uids)))
    else:
        for uid in unpack(uids):
            emit(uid)


def _uids(config: UidsConfig) -> npt.NDArray[np.void]:
    is_set = fs.is_dir(config.source) or config.source.endswith("manifest.json") or not fs.exists(config.source)
    if not is_set and config.where:
        raise UsageError(f"--where over {config.source!r}, a list", "a build's folder: a list has no columns")
    if not is_set:
        return read_uids(config.source) if config.source.endswith(".npy") else read_uid_file(config.source).uids
    manifest = read_manifest(config.source)
    if not config.where:
        return pack(uids_of(manifest))
    condition = expression.bound(manifest, config.where)
    uids: list[str] = []
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            names = uids_in(shard)
            uids += [names[i] for i in condition.holds(shard).nonzero()[0].tolist()]
    condition.note()
    return pack(uids)


def uids_of(manifest: Manifest) -> Iterator[str]:
    """Yield the uid of each sample in order: the sidecar's, else the key."""
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            yield from uids_in(shard)


def uids_in(shard: Shard) -> list[str]:
    """Return the uids of a shard's samples in use: the sidecar's, else the keys."""
    table = shard.sidecar(["uid"])
    return table["uid"].to_pylist() if table.num_columns else [shard.key(i).rpartition("/")[2] for i in range(len(shard))]


def pack(uids: Iterable[str]) -> npt.NDArray[np.void]:
    """Return uids as a sorted `u8,u8` array.

    Raises:
        UsageError: a uid that is not 32 hex digits.
    """
    import numpy as np

    halves = np.frombuffer(_bytes(uids), dtype=">u8").astype("<u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    return np.ascontiguousarray(halves[order]).view(np.dtype("u8,u8")).reshape(-1)


def _bytes(uids: Iterable[str]) -> bytes:
    content = bytearray()
    for uid in uids:
        if not UID_RULE.fullmatch(uid):
            raise UsageError(f"uid {uid!r}", "32 hex digits, lower case", "this set's keys are no uids; build shards from it first")
        content += bytes.fromhex(uid)
    return bytes(content)


def hashes(keys: Iterable[str]) -> npt.NDArray[np.void]:
    """Return a 128-bit hash of each key, whatever it is made of, as `u8,u8` in their order."""
    import hashlib

    import numpy as np

    content = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest() for key in keys)
    return np.frombuffer(content, np.dtype("u8,u8"))


def unpack(uids: npt.NDArray[np.void]) -> Iterator[str]:
    """Yield the hex uids of a `u8,u8` array."""
    for high, low in zip(uids["f0"].tolist(), uids["f1"].tolist(), strict=True):
        yield f"{high:016x}{low:016x}"


class UidSet:
    """A sorted set of uids that can be asked about shards, and remembers which of them it has met."""

    def __init__(self, uids: npt.NDArray[np.void]) -> None:
        """Take a sorted `u8,u8` array; repeats count once."""
        import numpy as np

        self.uids = uids = np.unique(uids)
        self.high, self.low = np.ascontiguousarray(uids["f0"]), np.ascontiguousarray(uids["f1"])
        self.met = np.zeros(len(uids), np.bool_)

    def __len__(self) -> int:
        return len(self.met)

    @property
    def missing(self) -> int:
        """How many of the uids were met in no shard yet."""
        return int((~self.met).sum())

    def places(self, uids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return where each uid stands in the set, or -1."""
        import numpy as np

        halves = np.frombuffer(_bytes(uids), dtype=">u8").astype("<u8").reshape(-1, 2)
        high, low = halves[:, 0], halves[:, 1]
        at, end = np.searchsorted(self.high, high, "left"), np.searchsorted(self.high, high, "right")
        places = np.full(len(high), -1, np.int64)
        for step in range(int((end - at).max(initial=0))):  # once, unless two uids share their first half
            inside = np.flatnonzero(at + step < end)
            same = inside[self.low[at[inside] + step] == low[inside]]
            places[same] = at[same] + step
        return places

    def holds(self, shard: Shard) -> npt.NDArray[np.bool_]:
        """Return for each sample in use of a shard whether it is in the set."""
        places = self.places(uids_in(shard))
        self.met[places[places >= 0]] = True
        return places >= 0


def read_listed(path: str) -> tuple[UidSet, list[str]]:
    """Read a list of samples; return the uids in it, and what else is named there.

    Lists are DataComp's .npy, text with a uid on each line or in a column, .parquet, .json (see `shards.listed`). A uid may
    be quoted, in capitals, or written with UUID's dashes.

    Raises:
        UsageError: there is none, or it has no column of uids.
        TornFileError: it is cut off.
    """
    if path.endswith(".npy"):
        return UidSet(read_uids(path)), []
    uids, others = [], []
    for name in read_names(path, UID_COLUMNS, lambda cell: bool(quoted_uid(cell))):
        uid = quoted_uid(name)
        if uid:
            uids.append(uid)
        else:
            others.append(name)
    return UidSet(pack(uids)), others


def read_uid_file(path: str) -> UidSet:
    """Read a list of uids, as `read_listed` does.

    Raises:
        UsageError: there is none, or something in it is no uid.
        TornFileError: it is cut off.
    """
    uids, others = read_listed(path)
    if others:
        raise UsageError(f"{path}: {len(others):,} of the names are no uids, such as {others[0][:80]!r}", "32 hex digits")
    return uids


def write_uids(path: str, uids: npt.NDArray[np.void]) -> None:
    """Write a uid array as .npy."""
    import numpy as np

    with fs.atomic_write(path) as file:
        np.save(file, uids, allow_pickle=False)


def read_uids(path: str) -> npt.NDArray[np.void]:
    """Read a uid array, with or without a .npy header: `u8,u8` in either byte order, (n, 2) of `u8`, or text of 32 hex digits.

    Raises:
        UsageError: there is none, it is of another dtype, or something in it is no uid.
        TornFileError: it is cut off.
    """
    import io

    import numpy as np

    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}")
    content, kind = fs.read_bytes(path), np.dtype("u8,u8")
    if not content.startswith(b"\x93NUMPY"):
        if len(content) % kind.itemsize:
            raise TornFileError(f"{path}: {len(content)} bytes", "a multiple of 16")
        return np.frombuffer(content, kind)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        if "allow_pickle" in str(error):
            raise UsageError(f"{path}: an array of Python objects, which may run code", "dtype u8,u8 or S32", "save it so") from None
        raise TornFileError(f"{path}: {error}") from None
    return _as_pairs(array, path)


def _as_pairs(array: npt.NDArray[Any], path: str) -> npt.NDArray[np.void]:
    """Return an array of uids in any of the forms that people save as `u8,u8`."""
    import numpy as np

    kind, pairs = array.dtype, np.dtype("u8,u8")
    refused = UsageError(f"{path}: dtype {kind}, shape {array.shape}", "dtype u8,u8, shape (n,); or text of 32 hex digits")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(-1)
    if kind.kind in "SU" and array.ndim == 1:
        texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in array.tolist()]
        uids = [quoted_uid(text) for text in texts]
        if not all(uids):
            raise UsageError(f"{path}: {texts[uids.index('')]!r} is no uid", "32 hex digits")
        return pack(uids)
    if kind == np.dtype("u8").newbyteorder(kind.byteorder) and array.ndim == 2 and array.shape[1] == 2:
        return np.ascontiguousarray(array.astype("u8")).view(pairs).reshape(-1)
    fields = [kind.fields[name][0] for name in kind.names] if kind.fields is not None and kind.names else []
    if array.ndim != 1 or len(fields) != 2 or any((f.kind, f.itemsize) != ("u", 8) for f in fields):
        raise refused
    return array.astype(pairs)
