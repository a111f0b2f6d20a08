"""`curate forget`: take samples out of a build's ledger, examples and report, and out of its work folder.

`shards remove` starts it. Gone are captions, ids that hold them, and pictures; what stays is a ledger row with the uid and
the reason `removed`. Exact and near copies of a picture are that picture: they go with it, and none can take its place.
`removed.txt` in the work folder tells every later build. Each step may be repeated.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from curate.listing import connect, sql_list
from curate.removed import LIST, REASON, add_to_list
from curate.report.build import write_report
from curate.table import RECORDS
from shards import tombstones
from shards.core import fs
from shards.core.config import option
from shards.core.console import emit, say
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest
from shards.remove import COPIES, with_copies
from shards.sample import uid_of
from shards.schema import LEDGER, arrow_schema
from shards.uids import read_uid_file, unpack
from shards.writer import write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class ForgetConfig:
    """Take samples out of ledger, report and work folder."""

    build: str = option(help="a finished build's folder", positional=True, metavar="OUT")
    uids: str = option(help="the samples: text with a uid on each line, or DataComp's .npy", metavar="FILE")
    work: str = option("", "the build's work folder (default: OUT.work)", metavar="DIR")
    json: bool = option(False, "print JSON")


def forget(config: ForgetConfig) -> int:
    """Scrub a build and its work folder."""
    build = config.build.rstrip("/")
    manifest = read_manifest(build)
    ledger = [fs.join(build, "ledger", name) for name in fs.names(fs.join(build, "ledger")) if name.endswith(".parquet")]
    if not ledger:
        raise UsageError(f"no ledger in {build!r}", "a finished build's folder")
    named = read_uid_file(config.uids)
    # Those with a tombstone too: a try that was broken off may have cut the ledger's ties to them.
    down = {uid for rows in tombstones.read(build).values() for _, uid, _ in rows}
    gone = with_copies(build, set(unpack(named.uids)) | down)
    work = config.work.rstrip("/") or build + ".work"
    # The work folder first: what a later build needs to know is safe before the ledger forgets.
    listed = add_to_list(work, gone)
    files = _scrub_work(work, gone, list(manifest.sources))
    rows = sum(_scrub_ledger(path, gone) for path in ledger)
    _scrub_examples(build, gone)
    counted(manifest, ledger).save(build)
    write_report(build)
    found = {"uids": len(named), "with_copies": len(gone), "ledger_rows": rows, "work_files": files, "listed": listed}
    emit(found if config.json else f"{build}: {rows:,} ledger rows and {files:,} files of {work} scrubbed")
    say(f"{fs.join(work, LIST)}: {listed:,} uids that builds with this work folder leave out")
    return 0


def _scrub_ledger(path: str, gone: set[str]) -> int:
    """Leave of the samples' rows in one part of the ledger the uid, where it came from, and that it was removed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        table = pq.read_table(file)
    touched = [i for i, uid in enumerate(table["uid"].to_pylist()) if uid in gone]
    if touched:
        rows = table.to_pylist()
        for i in touched:
            detail = (
                f"copy of {rows[i]['duplicate_of']}" if rows[i]["reason"] in COPIES else rows[i]["detail"] * (rows[i]["reason"] == REASON)
            )
            told = {
                "decision": "dropped",
                "reason": REASON,
                "detail": detail,
                "duplicate_of": "",
                "rank": -1,
                "shard": "",
                "caption_raw": "",
            }
            rows[i] |= {"source_id": rows[i]["uid"], **told}
        with fs.atomic_write(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, arrow_schema(LEDGER)), file, compression="zstd", row_group_size=65536)
    return len(touched)


def counted(manifest: Manifest, ledger: list[str]) -> Manifest:
    """Return the manifest with its sources counted anew from the ledger."""
    con = connect("")
    rows = con.execute(
        f"SELECT source, decision, reason, count(*) FROM read_parquet({sql_list(ledger)}) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    con.close()
    sources: dict[str, dict[str, Any]] = {}
    for name, source in manifest.sources.items():
        decisions = {d: sum(n for s, decision, _, n in rows if (s, decision) == (name, d)) for d in ("kept", "holdout", "spare")}
        dropped = {reason: n for s, decision, reason, n in rows if (s, decision) == (name, "dropped")}
        order = [*(r for r in source.get("dropped", {}) if r in dropped), *(r for r in dropped if r not in source.get("dropped", {}))]
        sources[name] = source | decisions | {"dropped": {reason: dropped[reason] for reason in order}}
    return dataclasses.replace(manifest, sources=sources)


def _scrub_examples(build: str, gone: set[str]) -> None:
    """Take the samples, and groups of copies that one of them leads, out of the pictures that the report shows."""
    import pyarrow.parquet as pq

    for name in fs.names(fs.join(build, "examples")):
        path = fs.join(build, "examples", name)
        if not name.endswith(".parquet"):
            continue
        with fs.open_read(path) as file:
            table = pq.read_table(file)
        rows = table.drop_columns([c for c in table.column_names if c == "thumbnail"]).to_pylist()
        led = {row["group"] for row in rows if row.get("kind") == "group" and row["position"] == 0 and row["uid"] in gone}
        kept = [
            i for i, row in enumerate(rows)
            if not any(isinstance(v, str) and v in gone for v in row.values()) and not (row.get("kind") == "group" and row["group"] in led)
        ]  # fmt: skip
        if len(kept) < len(rows):
            write_sidecar(path, table.take(kept))


def _scrub_work(work: str, gone: set[str], sources: list[str]) -> int:
    """Scrub listed records in place, and drop every other file that has rows of the samples: a build makes it again."""
    files = 0
    for name in fs.walk(work) if fs.is_dir(work) else []:
        path = fs.join(work, name)
        if not name.endswith(".parquet"):
            continue
        if name.startswith("records/"):
            files += _scrub_records(path, gone, sources)
        elif _mentions(path, gone):
            files += 1
            fs.remove(path.removesuffix(".parquet") + ".blob")
            fs.remove(path)
    return files


def _mentions(path: str, gone: set[str]) -> bool:
    """Return whether a parquet file has rows of one of the samples."""
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        names = [n for n in ("uid", "image_id", "key") if n in parquet.schema_arrow.names]
        table = parquet.read(names)
    return any(not gone.isdisjoint(table[n].to_pylist()) for n in names)


def _scrub_records(path: str, gone: set[str], sources: list[str]) -> int:
    """Leave of the samples' records the uid alone, which is an id that keeps the uid; their pictures are not looked at again.

    A file that cannot be left so is dropped, to be listed again: one of fetched addresses, or one whose records make a sample
    of each caption.
    """
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        if "source_id" not in parquet.schema_arrow.names:
            return 0
        groups = [parquet.read_row_group(i) for i in range(parquet.metadata.num_row_groups)]
    listed = "captions" in parquet.schema_arrow.names
    if listed and any(_children(table, gone, sources) for table in groups):
        fs.remove(path.removesuffix(".parquet") + ".blob")
        fs.remove(path)
        return 1
    if not listed:
        found = any(uid_of(s, source_id) in gone for table in groups for source_id in table["source_id"].to_pylist() for s in sources)
        if found:
            fs.remove(path)
        return int(found)
    scrubbed = [_scrubbed(table, gone, sources) for table in groups]
    if all(table is None for table in scrubbed):
        return 0
    for old, new in zip(groups, scrubbed, strict=True):
        _blank_pictures(path.removesuffix(".parquet") + ".blob", old, new)
    with fs.atomic_write(path) as file, pq.ParquetWriter(file, groups[0].schema, compression="zstd") as writer:
        for old, new in zip(groups, scrubbed, strict=True):  # row groups are tasks: they stay as they are
            writer.write_table(old if new is None else new, row_group_size=max(1, old.num_rows))
    return 1


def _children(table: pa.Table, gone: set[str], sources: list[str]) -> bool:
    """Return whether a record's caption is itself one of the samples (`captions: each`)."""
    rows = zip(table["source_id"].to_pylist(), table["captions"].to_pylist(), strict=True)
    several = ((source_id, len(captions)) for source_id, captions in rows if len(captions) > 1)
    return any(uid_of(s, f"{source_id}#{k}") in gone for source_id, n in several for k in range(n) for s in sources)


def _blank_pictures(blob: str, old: pa.Table, new: pa.Table | None) -> None:
    """Overwrite the pictures of scrubbed records that lie in the work folder itself, where a source handed them over as bytes."""
    rows = [] if new is None else [row for row, now in zip(old.to_pylist(), new["status"].to_pylist(), strict=True) if now == REASON]
    for row in rows:
        if row["path"] == blob and row["size"] > 0:
            with open(blob, "r+b") as file:
                file.seek(row["offset"])
                file.write(bytes(row["size"]))


def _scrubbed(table: pa.Table, gone: set[str], sources: list[str]) -> pa.Table | None:
    """Return a table of records without what it says of the samples; None where it says nothing of them."""
    import pyarrow as pa

    uids = [next((u for s in sources if (u := uid_of(s, source_id)) in gone), "") for source_id in table["source_id"].to_pylist()]
    if not any(uids):
        return None
    empty: dict[str, Any] = {"string": "", "list<string>": [], "int64": 0, "int32": 0}
    blank = {name: empty[kind] for name, kind in RECORDS if name not in ("source_id", "input", "row", "class_index", "class_name")}
    rows = [row | blank | {"source_id": uid, "status": REASON} if uid else row for row, uid in zip(table.to_pylist(), uids, strict=True)]
    return pa.Table.from_pylist(rows, table.schema)
