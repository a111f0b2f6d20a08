"""What a pool knows about its fetch, in its folder `_fetch`: the input, the settings, and which shards are done.

    _fetch/state.json            settings, fingerprint of the input, counts, shards per round
    _fetch/input/NNNNN.parquet   the rows of each shard, before they are fetched
    _fetch/rows/NNNNN.parquet    the same rows with their status
    _fetch/worker.log            what img2dataset says
    _fetch/tmp/                  unfinished shards; emptied at each start

Round 0 is the input; each `--retry-failed` appends a round. A shard is done when its NNNNN_stats.json is there.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.fetch.config import FetchConfig
from curate.fetch.normalise import Normalised, normalise, shard_name
from curate.fetch.pool import OWN
from shards.core import fs
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class State:
    """A pool's settings, its input, and the number of shards of each round."""

    settings: dict[str, Any]
    input: Normalised
    rounds: tuple[int, ...]

    def shards(self, round: int) -> range:
        """Return the numbers of a round's shards."""
        first = sum(self.rounds[:round])
        return range(first, first + self.rounds[round])


def input_path(pool: str, shard: int) -> str:
    """Return where a shard's rows wait."""
    return fs.join(pool, OWN, "input", shard_name(shard) + ".parquet")


def rows_path(pool: str, shard: int) -> str:
    """Return where a done shard's rows stand with their status."""
    return fs.join(pool, OWN, "rows", shard_name(shard) + ".parquet")


def temporary(pool: str, name: str) -> str:
    """Return a folder for unfinished work."""
    return fs.join(pool, OWN, "tmp", name)


def is_done(pool: str, shard: int) -> bool:
    """Return whether a shard is in the pool."""
    return os.path.exists(fs.join(pool, shard_name(shard) + "_stats.json"))


def commit(pool: str, shard: int, folder: str, rows: pa.Table) -> None:
    """Rename a finished shard into the pool; the stats file goes last and makes it done."""
    import pyarrow.parquet as pq

    fs.make_dirs(fs.join(pool, OWN, "rows"))
    with fs.atomic_write(rows_path(pool, shard)) as file:
        pq.write_table(rows, file)
    for suffix in (".tar", ".parquet", "_stats.json"):
        name = shard_name(shard) + suffix
        with open(fs.join(folder, name), "rb+") as file:
            os.fsync(file.fileno())
        os.replace(fs.join(folder, name), fs.join(pool, name))


@contextmanager
def locked(pool: str) -> Iterator[None]:
    """Hold a pool for one fetch; the lock goes with the process. A pool that was never begun leaves nothing behind."""
    if fs.is_remote(pool):
        raise UsageError(f"{pool}: a pool is fetched into a local folder", "a local path", "copy it afterwards")
    if fs.names(pool) and not fs.exists(fs.join(pool, OWN)):
        raise UsageError(f"{pool}: not empty, and no pool of `curate fetch`", "a new folder, or a pool to go on with")
    fs.make_dirs(fs.join(pool, OWN))
    with open(fs.join(pool, OWN, "lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{pool}: another fetch works on this pool", "one at a time") from error
        try:
            yield
        finally:
            if not fs.exists(_state_path(pool)):
                fs.remove(fs.join(pool, OWN))
                if not fs.names(pool):
                    fs.remove(pool)


def _state_path(pool: str) -> str:
    return fs.join(pool, OWN, "state.json")


def open_state(config: FetchConfig) -> State:
    """Return the state of a pool that is locked: made from the input where it is new, else checked against it.

    Raises:
        UsageError: the input or a setting that shapes the pool differs from those the pool was begun with.
    """
    pool = config.output
    fs.remove(fs.join(pool, OWN, "tmp"))
    known = _load(pool)
    if known:
        _check_settings(pool, known.settings, config.fixed)
    fresh = temporary(pool, "input")
    found = normalise(config, fresh)
    if known:
        fs.remove(fresh)
    if known and known.input.fingerprint != found.fingerprint:
        raise UsageError(
            f"{pool}: the input has changed: {known.input.urls} URLs then, {found.urls} now",
            "the input the pool was begun with",
            "fetch into another --output",
        )
    if known:
        return known
    fs.remove(fs.join(pool, OWN, "input"))
    os.replace(fresh, fs.join(pool, OWN, "input"))
    return save(pool, State(config.fixed, found, (found.shards,)))


def save(pool: str, state: State) -> State:
    """Write the state and return it."""
    fs.write_text(_state_path(pool), json.dumps(dataclasses.asdict(state), indent=1) + "\n")
    return state


def _load(pool: str) -> State | None:
    path = _state_path(pool)
    if not fs.exists(path):
        return None
    values = json.loads(fs.read_text(path))
    return State(values["settings"], Normalised(**values["input"]), tuple(values["rounds"]))


def _check_settings(pool: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    for key, value in now.items():
        if then.get(key) != value:
            raise UsageError(f"{pool}: {key} was {then.get(key)!r} and is now {value!r}", f"{key} {then.get(key)!r}", "another --output")
