"""`curate fetch`: the rounds of a fetch, resumed, retried, and summed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from curate.fetch import state
from curate.fetch.config import FetchConfig
from curate.fetch.normalise import write_shard_input
from curate.fetch.pool import OWN, TABLE
from curate.fetch.rows import OPTED_OUT, RETRIED, statuses, write_table
from curate.fetch.state import State
from curate.fetch.task import Task
from curate.fetch.web import Limits
from curate.fetch.worker import fetch_shard
from shards.core import console, fs
from shards.core.engine import Done, map_unordered
from shards.core.errors import UsageError


def fetch(config: FetchConfig) -> int:
    """Fetch a source's images into a pool and write its table; failed URLs are rows, not errors.

    Raises:
        UsageError: a flag or the input does not fit, or the pool belongs to another input.
    """
    _check(config)
    with state.locked(config.output):
        known = state.open_state(config)
        pending = [n for n in range(sum(known.rounds)) if not state.is_done(config.output, n)]
        killed = _fetch_shards(config, known, pending)
        retrying = any(n >= known.rounds[0] for n in pending)  # an interrupted round is finished first
        if config.retry_failed and not retrying and (shards := _append_round(config, known, killed)):
            known = state.save(config.output, State(known.settings, known.input, (*known.rounds, shards)))
            killed |= _fetch_shards(config, known, list(known.shards(len(known.rounds) - 1)))
        _report(config, known, killed)
    return 0


def _check(config: FetchConfig) -> None:
    numbers = {"timeout": config.timeout, "max-bytes": config.max_bytes, "threads": config.threads}
    optional = {"image-size": config.image_size, "enough": config.enough, "limit": config.limit}
    numbers |= {name: value for name, value in optional.items() if value is not None}
    for name, value in (numbers | {"samples-per-shard": config.samples_per_shard}).items():
        if value <= 0:
            raise UsageError(f"--{name} {value}", "a number above 0")


def _fetch_shards(config: FetchConfig, known: State, shards: list[int]) -> dict[int, str]:
    """Fetch shards, in order, until all are done or enough images are there; return those whose worker died, and how."""
    if not shards:
        return {}
    successes = sum(_successes(config.output, n) for n in range(sum(known.rounds)) if n not in shards)
    killed: dict[int, str] = {}

    def tasks() -> Iterator[Task]:
        for shard in shards:
            if config.enough is not None and successes >= config.enough:
                return
            yield _task(config, shard)

    workers = min(config.workers or len(os.sched_getaffinity(0)), max(len(shards), 1))
    total = sum(_input_rows(config.output, n) for n in shards)
    with console.Progress("fetch", total, "URLs") as progress:
        for outcome in map_unordered(fetch_shard, tasks(), workers=workers):
            if isinstance(outcome, Done):
                successes += outcome.result.successes
                progress.add(outcome.result.urls)
            else:
                killed[outcome.spec.shard] = outcome.reason
                console.warn(f"shard {outcome.spec.shard}: {outcome.reason}; another run fetches it again")
    return killed


def _task(config: FetchConfig, shard: int) -> Task:
    return Task(
        pool=os.path.abspath(config.output),
        shard=shard,
        limits=Limits(config.timeout, config.max_bytes, config.allow_private_hosts),
        threads=config.threads,
        samples_per_shard=config.samples_per_shard,
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        resize_only_if_bigger=config.resize_only_if_bigger,
    )


def _input_rows(pool: str, shard: int) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(state.input_path(pool, shard)).num_rows)


def _successes(pool: str, shard: int) -> int:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not state.is_done(pool, shard):
        return 0
    column = pq.read_table(state.rows_path(pool, shard), columns=["status"])["status"]
    return int(pc.sum(pc.equal(column, "success")).as_py() or 0)


def _append_round(config: FetchConfig, known: State, killed: dict[int, str]) -> int:
    """Write the input of another round: the URLs that failed and did not opt out. Return its number of shards."""
    import pyarrow as pa

    names = ("source_id", "url", "url_index", "caption", "row")
    schema = pa.schema(list(zip(names, (pa.string(), pa.string(), pa.int32(), pa.string(), pa.int64()), strict=True)))
    failed = (row for rows in statuses(config.output, known, killed) for row in rows if row["status"] in RETRIED)
    asked = (row for row in failed if row["shard"] not in killed and not row["detail"].startswith(OPTED_OUT))
    folder, shards = fs.join(config.output, OWN, "input"), 0
    while chunk := list(islice(asked, config.samples_per_shard)):
        write_shard_input(pa.Table.from_pylist(chunk, schema), folder, sum(known.rounds) + shards)
        shards += 1
    return shards


def _report(config: FetchConfig, known: State, killed: dict[int, str]) -> None:
    counts, details = write_table(config.output, known, killed)
    found = known.input
    console.say(f"{found.records:,} records, {found.without_url:,} without a URL, {found.urls:,} URLs")
    for status, count in sorted(counts.items()):
        console.say(f"  {status}: {count:,}")
    for detail, count in details.most_common(5):
        console.say(f"    {count:,} × {detail}")
    console.say(f"table: {fs.join(config.output, TABLE)}")
    if config.json:
        console.emit({
            "pool": config.output,
            "records": found.records,
            "without_url": found.without_url,
            "urls": found.urls,
            "statuses": dict(sorted(counts.items())),
            "shards": sum(known.rounds),
            "rounds": len(known.rounds),
        })  # fmt: skip
