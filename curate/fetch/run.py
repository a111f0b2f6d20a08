"""`curate fetch`: the rounds of a fetch, resumed, retried, and summed up."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from curate import plugins
from curate.fetch import state
from curate.fetch.config import FetchConfig
from curate.fetch.normalise import write_shard_input
from curate.fetch.pool import OWN, TABLE
from curate.fetch.rows import RETRIED, statuses, write_table
from curate.fetch.scrub import scrub
from curate.fetch.secrecy import Barred, Lists, is_secret, read_lists
from curate.fetch.state import State
from curate.fetch.task import Task
from curate.fetch.web import PRIVATE, Limits
from curate.fetch.worker import fetch_shard
from shards.core import console, fs
from shards.core.engine import Done, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import RunError, UsageError
from shards.core.notices import note

MOST_KINDS = 20  # lines at the end; a fetch meets some ten kinds


def fetch(config: FetchConfig) -> int:
    """Fetch a source's images into a pool and write its table; failed URLs are rows, not errors.

    Raises:
        UsageError: a flag or the input does not fit, the pool belongs to another input, or another fetch works on it.
        RunError: no URL gave an image.
    """
    plugins.use_all(config.plugin)
    barred = _check(config)
    with state.locked(config.output):
        known = state.open_state(config)
        gone = scrub(config.output, range(sum(known.rounds)), barred, config.source_name)
        pending = [n for n in range(sum(known.rounds)) if not state.is_done(config.output, n)]
        killed = _fetch_shards(config, known, pending)
        retrying = any(n >= known.rounds[0] for n in pending)  # an interrupted round is finished first
        if config.retry_failed and not retrying and (shards := _append_round(config, known, killed, barred)):
            known = state.save(config.output, State(known.settings, known.input, (*known.rounds, shards)))
            killed |= _fetch_shards(config, known, list(known.shards(len(known.rounds) - 1)))
        counts = write_table(config.output, known, killed, barred)
        state.leave(config.output, known)
        if gone:
            rows = console.inflected(gone, f"{gone:,} [row that stands|rows that stand] on a list now [was|were]")
            console.say(f"{rows} taken out of {config.output}")
        _report(config, known, counts)
    return 0


def _check(config: FetchConfig) -> Barred:
    """Refuse what no download should begin with; return what is not to be asked for.

    Raises:
        UsageError: a contact that is none, or a list that is not there.
    """
    # Brackets and semicolons end what a user agent says of itself; a header holds ASCII.
    if config.contact and not re.fullmatch(r"[!-'*-:<-~]+", config.contact):
        allowed = "a mail address or a URL, in ASCII and without brackets, semicolons or blanks"
        raise UsageError(f"--contact {config.contact!r}", allowed)
    return read_lists(_lists(config))


def _lists(config: FetchConfig) -> Lists:
    return Lists(config.blocklist_urls, config.blocklist_hosts, config.removed)


def _fetch_shards(config: FetchConfig, known: State, shards: list[int]) -> dict[int, str]:
    """Fetch shards, in order, until all are done or enough images are there; return those whose worker died, and how."""
    if not shards:
        return {}
    usable = sum(_usable(config.output, n) for n in range(sum(known.rounds)) if n not in shards) if config.enough else 0
    killed: dict[int, str] = {}
    kept = 0

    def tasks() -> Iterator[Task]:
        for shard in shards:
            if config.enough is not None and usable >= config.enough:
                return
            yield _task(config, shard)

    if not config.contact:
        console.say("hosts cannot reach you: name yourself in the user agent with --contact URL|MAIL")
    # An interrupt leaves no table that knows less than the pool's shards do; those are read without one.
    fs.remove(fs.join(config.output, TABLE))
    workers = min(config.workers or default_workers(), max(len(shards), 1))
    total = sum(_input_rows(config.output, n) for n in shards)
    with console.Progress("fetch", total, "URLs") as progress:
        for outcome in map_unordered(fetch_shard, tasks(), workers=workers):
            if isinstance(outcome, Done):
                usable += outcome.result.usable
                kept += outcome.result.kept
                progress.add(outcome.result.urls)
            else:
                killed[outcome.spec.shard] = outcome.reason
                console.warn(f"shard {outcome.spec.shard}: {outcome.reason}; another run fetches it again")
    if kept:
        console.say(f"{kept:,} of the images were there from a run that was interrupted")
    return killed


def _task(config: FetchConfig, shard: int) -> Task:
    limits = Limits(
        timeout=config.timeout,
        max_bytes=config.max_bytes,
        allow_private_hosts=config.allow_private_hosts,
        per_host=config.per_host,
        retries=config.retries,
        longest_wait=config.longest_wait,
        contact=config.contact,
    )
    return Task(
        pool=os.path.abspath(config.output),
        shard=shard,
        source_name=config.source_name,
        limits=limits,
        lists=_lists(config),
        prove=config.enough is not None and config.image_size is None,
        threads=config.threads,
        samples_per_shard=config.samples_per_shard,
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        resize_only_if_bigger=config.resize_only_if_bigger,
    )


def _input_rows(pool: str, shard: int) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(state.input_path(pool, shard)).num_rows)


def _usable(pool: str, shard: int) -> int:
    import pyarrow.parquet as pq

    if not state.is_done(pool, shard):
        return 0
    return state.usable(pq.read_table(state.rows_path(pool, shard), columns=["status", "source_id"]))


def _append_round(config: FetchConfig, known: State, killed: dict[int, str], barred: Barred) -> int:
    """Write the input of another round: the URLs that failed, but not those that are not to be asked. Return its number of shards."""
    import pyarrow as pa

    failed = (row for rows in statuses(config.output, known, killed, barred) for row in rows if row["status"] in RETRIED)
    asked = (row for row in failed if row["shard"] not in killed and not is_secret(row["detail"]))
    folder, shards = fs.join(config.output, OWN, "input"), 0
    while chunk := list(islice(asked, config.samples_per_shard)):
        write_shard_input(pa.Table.from_pylist(chunk, state.input_schema()), folder, sum(known.rounds) + shards)
        shards += 1
    return shards


def _report(config: FetchConfig, known: State, numbers: tuple[Counter[str], Counter[str]]) -> None:
    """Say what became of the URLs, by status and by kind of failure.

    Raises:
        RunError: none of those that were asked for gave an image.
    """
    counts, kinds = numbers
    source, table = known.input, fs.join(config.output, TABLE)
    records, urls = console.counted(source.records, "record"), console.counted(source.urls, "URL")
    console.say(f"{records}, {source.without_url:,} without a URL, {urls}")
    for status, count in sorted(counts.items()):
        console.say(f"  {status}: {count:,}")
    console.say(f"table: {table}")
    if config.json:
        console.emit({
            "pool": config.output,
            "records": source.records,
            "without_url": source.without_url,
            "urls": source.urls,
            "statuses": dict(sorted(counts.items())),
            "without_image": dict(kinds.most_common()),
            "shards": sum(known.rounds),
            "rounds": len(known.rounds),
        })  # fmt: skip
    asked = sum(kinds.values())
    if asked and not counts["success"]:
        reasons = ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common(MOST_KINDS))
        again = "--allow-private-hosts --retry-failed asks these hosts, too" if kinds[PRIVATE] else "--retry-failed asks again"
        problem = f"none of {console.counted(asked, 'URL')} gave an image: {reasons}"
        raise RunError(problem, advice=f"{again}; `detail` in {table} tells more")
    for place, (kind, count) in enumerate(kinds.most_common()):
        way = "; --allow-private-hosts --retry-failed asks these hosts, too" if kind == PRIVATE else ""
        note(count, f"[URL|URLs] gave no image: {kind if place < MOST_KINDS else 'other reasons'}", f"see `detail` in {table}{way}")
    note(source.without_url, "[record has|records have] no URL", config.pattern)
