"""`curate forget`: take samples out of a build's ledger, examples and report, and out of its work folder.

`shards remove` starts it. Gone are captions, ids that hold them, and pictures; what stays is a ledger row with the uid and
the reason `removed`. Exact and near copies of a picture are that picture: they go with it, and none can take its place.
`removed.txt` in the work folder tells every later build. Each step may be repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.listing import connect, sql_list
from curate.removed import LIST, REASON, add_to_list
from curate.report.build import write_report
from curate.report.stats import ASIDE
from curate.table import RECORDS
from shards import tombstones
from shards.core import fs
from shards.core.config import option
from shards.core.console import counted, emit, say
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest
from shards.remove import COPIES, with_copies
from shards.sample import uid_of
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
    fs.remove(fs.join(work, ASIDE))  # they name no sample, and are counted again
    rows = sum(_scrub_ledger(path, _strings(sorted(gone))) for path in ledger)
    _scrub_examples(build, gone)
    recounted(manifest, ledger).save(build)
    write_report(build)
    found = {"uids": len(named), "with_copies": len(gone), "ledger_rows": rows, "work_files": files, "listed": listed}
    emit(found if config.json else f"{build}: {counted(rows, 'ledger row')} and {counted(files, 'file')} of {work} scrubbed")
    say(f"{fs.join(work, LIST)}: {counted(listed, 'uid')} that builds with this work folder leave out")
    return 0


def _strings(texts: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(texts, pa.string())


def _scrub_ledger(path: str, gone: pa.Array) -> int:
    """Leave of the samples' rows in one part of the ledger the uid, where it came from, and that it was removed."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        table = pq.read_table(file)
    touched = pc.is_in(table["uid"], gone)
    copies = pc.is_in(table["reason"], _strings(COPIES))
    told = {
        "source_id": table["uid"],
        "decision": "dropped",
        "reason": REASON,
        "duplicate_of": "",
        "rank": -1,
        "shard": "",
        "caption_raw": "",
    }
    of = pc.binary_join_element_wise("copy of", table["duplicate_of"], " ")
    told["detail"] = pc.if_else(copies, of, pc.if_else(pc.equal(table["reason"], REASON), table["detail"], ""))
    for name, value in told.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.field(at), pc.if_else(touched, value, table[name]).cast(table.field(at).type))
    rows = pc.sum(touched).as_py() or 0
    if rows:
        with fs.atomic_write(path) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=65536)
    return int(rows)


def recounted(manifest: Manifest, ledger: list[str]) -> Manifest:
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
        listed = "captions" in parquet.schema_arrow.names
        touched, drop = set(), False
        for i in range(parquet.metadata.num_row_groups):
            table = parquet.read_row_group(i, ["source_id", "captions"] if listed else ["source_id"])
            touched |= {i} if any(_uids(table, gone, sources)) else set()
            drop = drop or (listed and _children(table, gone, sources))
        if touched and listed and not drop:
            with fs.atomic_write(path) as new, pq.ParquetWriter(new, parquet.schema_arrow, compression="zstd") as writer:
                for i in range(parquet.metadata.num_row_groups):  # row groups are tasks: they stay as they are
                    table = parquet.read_row_group(i)
                    scrubbed = _scrubbed(table, gone, sources, path.removesuffix(".parquet") + ".blob") if i in touched else table
                    writer.write_table(scrubbed, row_group_size=max(1, table.num_rows))
            return 1
    if drop or touched:
        fs.remove(path.removesuffix(".parquet") + ".blob")
        fs.remove(path)
    return int(drop or bool(touched))


def _uids(table: pa.Table, gone: set[str], sources: list[str]) -> list[str]:
    """Return for each record the uid under which it is one of the samples, or an empty string."""
    return [next((u for s in sources if (u := uid_of(s, source_id)) in gone), "") for source_id in table["source_id"].to_pylist()]


def _children(table: pa.Table, gone: set[str], sources: list[str]) -> bool:
    """Return whether a record's caption is itself one of the samples (`captions: each`)."""
    rows = zip(table["source_id"].to_pylist(), table["captions"].to_pylist(), strict=True)
    several = ((source_id, len(captions)) for source_id, captions in rows if len(captions) > 1)
    return any(uid_of(s, f"{source_id}#{k}") in gone for source_id, n in several for k in range(n) for s in sources)


def _scrubbed(table: pa.Table, gone: set[str], sources: list[str], blob: str) -> pa.Table:
    """Return records without what they say of the samples; pictures that lie in `blob`, beside the records, are overwritten."""
    import pyarrow as pa

    empty: dict[str, Any] = {"string": "", "list<string>": [], "int64": 0, "int32": 0}
    blank = {name: empty[kind] for name, kind in RECORDS if name not in ("source_id", "input", "row", "class_index", "class_name")}
    rows = []
    for row, uid in zip(table.to_pylist(), _uids(table, gone, sources), strict=True):
        if uid and row["path"] == blob and row["size"] > 0:
            with open(blob, "r+b") as file:
                file.seek(row["offset"])
                file.write(bytes(row["size"]))
        rows.append(row | blank | {"source_id": uid, "status": REASON} if uid else row)
    return pa.Table.from_pylist(rows, table.schema)
