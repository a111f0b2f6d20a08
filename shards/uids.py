"""`shards uids`: which samples a set holds, in DataComp's subset format.

The format: a .npy of dtype `u8,u8` (the uid's high and low 64 bits), shape (n,), sorted; repeats are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.core import fs
from shards.core.config import option
from shards.core.console import emit
from shards.core.errors import TornFileError, UsageError
from shards.manifest import Manifest, read_manifest
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class UidsConfig:
    """Flags of `shards uids`."""

    source: str = option(help="a build's folder or manifest.json, or such a .npy", positional=True)
    output: str = option("", "write this .npy; without it, uids go to stdout, one per line")
    json: bool = option(False, "print JSON")


def run(config: UidsConfig) -> None:
    """Write or print the sorted uids of a set."""
    uids = read_uids(config.source) if config.source.endswith(".npy") else pack(uids_of(read_manifest(config.source)))
    if config.output:
        if not config.output.endswith(".npy"):
            raise UsageError(f"--output {config.output}", "a name ending in .npy")
        write_uids(config.output, uids)
        emit({"uids": len(uids), "output": config.output} if config.json else f"{config.output}: {len(uids):,} uids")
    elif config.json:
        emit(list(unpack(uids)))
    else:
        for uid in unpack(uids):
            emit(uid)


def uids_of(manifest: Manifest) -> Iterator[str]:
    """Yield the uid of each sample in order: the sidecar's, else the key."""
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            table = shard.sidecar()
            if "uid" in table.column_names:
                yield from table["uid"].to_pylist()
            else:
                yield from (shard.key(i).rpartition("/")[2] for i in range(len(shard)))


def pack(uids: Iterable[str]) -> npt.NDArray[np.void]:
    """Return uids as a sorted `u8,u8` array.

    Raises:
        UsageError: a uid that is not 32 hex digits.
    """
    import numpy as np

    content = bytearray()
    for uid in uids:
        if not _UID.fullmatch(uid):
            raise UsageError(f"uid {uid!r}", "32 hex digits, lower case", "this set's keys are no uids; build shards from it first")
        content += bytes.fromhex(uid)
    halves = np.frombuffer(bytes(content), dtype=">u8").astype("<u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    return np.ascontiguousarray(halves[order]).view(np.dtype("u8,u8")).reshape(-1)


def unpack(uids: npt.NDArray[np.void]) -> Iterator[str]:
    """Yield the hex uids of a `u8,u8` array."""
    for high, low in zip(uids["f0"].tolist(), uids["f1"].tolist(), strict=True):
        yield f"{high:016x}{low:016x}"


def write_uids(path: str, uids: npt.NDArray[np.void]) -> None:
    """Write a uid array as .npy."""
    import numpy as np

    with fs.atomic_write(path) as file:
        np.save(file, uids, allow_pickle=False)


def read_uids(path: str) -> npt.NDArray[np.void]:
    """Read a uid array, with or without a .npy header.

    Raises:
        UsageError: there is none, or it is of another dtype.
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
        uids = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TornFileError(f"{path}: {error}") from None
    if uids.dtype != kind or uids.ndim != 1:
        raise UsageError(f"{path}: dtype {uids.dtype}, shape {uids.shape}", "dtype u8,u8, shape (n,)")
    return uids
