"""`curate why`: where did my sample go? Answers by uid, by source id or by URL, from the ledger."""

from __future__ import annotations

import dataclasses
from typing import Any

from curate.listing import connect, sql_list
from shards.core import fs
from shards.core.config import option
from shards.core.console import emit, say, visible
from shards.core.errors import UsageError
from shards.schema import REASONS


@dataclasses.dataclass(frozen=True)
class WhyConfig:
    """Say what a build did with samples."""

    build: str = option(help="a finished build's folder", positional=True, metavar="OUT")
    samples: tuple[str, ...] = option(help="uids, source ids or URLs", positional=True, metavar="UID|SOURCE_ID|URL")
    json: bool = option(False, "print JSON")


def why(config: WhyConfig) -> int:
    """Print a sentence per matching ledger row; exit 1 if one of the names matches nothing."""
    files = [fs.join(config.build, "ledger", name) for name in fs.names(fs.join(config.build, "ledger"))]
    if not files:
        raise UsageError(f"no ledger in {config.build!r}", "a finished build's folder")
    con = connect("")
    missing: list[str] = []
    found: list[dict[str, Any]] = []
    for name in config.samples:
        # An id of cc3m, cc12m and img2dataset is the URL, a line feed, and the caption.
        query = f"SELECT * FROM read_parquet({sql_list(files)}) WHERE uid = $1 OR source_id = $1 OR starts_with(source_id, $1 || chr(10))"
        rows = con.sql(query, params=[name]).to_arrow_table().to_pylist() or _by_url(con, config.build, files, name)
        missing += [] if rows else [name]
        found += rows
    emit(found if config.json else "\n".join(map(sentence, found)))
    for name in missing:
        say(f"{name!r} is in no row of the ledger")
    return 1 if missing else 0


def _by_url(con: Any, build: str, ledger: list[str], url: str) -> list[dict[str, Any]]:
    """Look a URL up among the kept samples, whose sidecars have it."""
    sidecars = [fs.join(build, name) for name in fs.names(build) if name.endswith(".parquet")]
    if not sidecars:
        return []
    query = (
        f"SELECT * FROM read_parquet({sql_list(ledger)}) WHERE uid IN (SELECT uid FROM read_parquet({sql_list(sidecars)}) WHERE url = $1)"
    )
    return con.sql(query, params=[url]).to_arrow_table().to_pylist()


def sentence(row: dict[str, Any]) -> str:
    """Return one ledger row in words."""
    where = f"{row['uid']}  {row['source']} {row['source_id']!r} ({row['input']}, record {row['row']})"
    if row["decision"] == "kept":
        return f"{where}\n  kept: shard {row['shard']}, rank {row['rank']:,}"
    if row["decision"] == "spare":
        return f"{where}\n  spare: survived at rank {row['rank']:,}, beyond the size of the build"
    if row["decision"] == "holdout":
        return f"{where}\n  held out"
    text = REASONS.get(row["reason"], "refused by this filter")
    of = f" of {row['duplicate_of']}" if row["duplicate_of"] else ""
    return f"{where}\n  dropped: {row['reason']}{of} ({visible(row['detail'] or text)}): {text}"
