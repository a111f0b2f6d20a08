"""What a pool knows about its fetch, in its folder `_fetch`: the input, the settings, and which shards are done.

    _fetch/state.json            settings, fingerprint of the input, counts, shards per round
    _fetch/input/NNNNN.parquet   the rows of shards that are not done, while a fetch runs; those of a retry until they are
    _fetch/rows/NNNNN.parquet    the same rows with their status
    _fetch/unfinished/           what an interrupted run has fetched of shards that are not done
    _fetch/worker.log            what img2dataset says
    _fetch/tmp/                  shards in the making, connections to hosts, what libraries put into the temporary folder

Round 0 is the input; each `--retry-failed` appends a round. A shard is done when its NNNNN_stats.json is there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.fetch import kept
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


def temporary(pool: str, name: str = "") -> str:
    """Return a folder for unfinished work, or the one of all of them."""
    return fs.join(pool, OWN, "tmp", name) if name else fs.join(pool, OWN, "tmp")


def hosts_path(pool: str) -> str:
    """Return the file in which workers count their connections to hosts."""
    return temporary(pool, "hosts")


def input_schema() -> pa.Schema:
    """Return the columns of a shard's rows before they are fetched."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema([("source_id", text), ("url", text), ("url_index", pa.int32()), ("caption", text), ("row", pa.int64())])


def usable(rows: pa.Table) -> int:
    """Return the number of records with an image among a shard's rows: a build takes one image of a record with several URLs."""
    import pyarrow.compute as pc

    return int(pc.count_distinct(rows.filter(pc.equal(rows["status"], "success"))["source_id"]).as_py())


def is_done(pool: str, shard: int) -> bool:
    """Return whether a shard is in the pool."""
    return os.path.exists(fs.join(pool, shard_name(shard) + "_stats.json"))


def commit(pool: str, shard: int, folder: str, rows: pa.Table) -> None:
    """Rename a finished shard into the pool; the stats file goes last and makes it done. Its input, which keeps secrets, goes."""
    import pyarrow.parquet as pq

    fs.make_dirs(fs.join(pool, OWN, "rows"))
    with fs.atomic_write(rows_path(pool, shard)) as file:
        pq.write_table(rows, file)
    for suffix in (".tar", ".parquet", "_stats.json"):
        name = shard_name(shard) + suffix
        with open(fs.join(folder, name), "rb+") as file:
            os.fsync(file.fileno())
        os.replace(fs.join(folder, name), fs.join(pool, name))
    fs.remove(input_path(pool, shard))


@contextmanager
def locked(pool: str) -> Iterator[None]:
    """Hold a pool for one fetch; the lock goes with the process. A pool that was never begun leaves nothing behind."""
    if fs.is_remote(pool):
        raise UsageError(f"{pool}: a pool is fetched into a local folder", "a local path", "copy it afterwards")
    if fs.names(pool) and not fs.exists(fs.join(pool, OWN)):
        raise UsageError(f"{pool}: not empty, and no pool of `curate fetch`", "a new folder, or a pool to go on with")
    with fs.locked(fs.join(pool, OWN), "lock"):
        try:
            yield
        finally:
            if not fs.exists(_state_path(pool)):
                for name in fs.names(fs.join(pool, OWN)):
                    if name != "lock":
                        fs.remove(fs.join(pool, OWN, name))


def _state_path(pool: str) -> str:
    return fs.join(pool, OWN, "state.json")


def open_state(config: FetchConfig) -> State:
    """Return the state of a pool that is locked: made from the input where it is new, else checked against it.

    Raises:
        UsageError: the input or a setting that shapes the pool differs from those the pool was begun with.
    """
    pool = config.output
    kept.adopt(pool, temporary(pool))
    fs.remove(temporary(pool))
    known = _load(pool)
    if known:
        _check_settings(pool, known.settings, config.fixed)
    fresh = temporary(pool, "input")
    normalised = normalise(config, fresh)
    if known and known.input.fingerprint != normalised.fingerprint:
        raise UsageError(
            f"{pool}: the input has changed: {known.input.urls} URLs then, {normalised.urls} now",
            "the input the pool was begun with",
            "fetch into another --output",
        )
    if known:
        _settle(pool, known, fresh)
        return known
    fs.remove(fs.join(pool, OWN, "input"))
    os.replace(fresh, fs.join(pool, OWN, "input"))
    return save(pool, State(config.fixed, normalised, (normalised.shards,)))


def _settle(pool: str, known: State, fresh: str) -> None:
    """Put the rows of shards that are still to be fetched in place, and take away what is left of the others."""
    for shard in range(sum(known.rounds)):
        if is_done(pool, shard):  # a run that was interrupted just behind a shard's last file has left these
            fs.remove(input_path(pool, shard))
            kept.forget(pool, shard)
        elif shard in known.shards(0):
            fs.make_dirs(fs.join(pool, OWN, "input"))
            os.replace(fs.join(fresh, shard_name(shard) + ".parquet"), input_path(pool, shard))
    fs.remove(fresh)


def leave(pool: str, known: State) -> None:
    """Take away what only a running fetch needs: the input's own rows, of which the next run makes them anew, and temporary files."""
    for shard in known.shards(0):
        fs.remove(input_path(pool, shard))
    fs.remove(temporary(pool))


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
