"""What must not be seen: samples that a block list or another sensitive filter refuses, and those whose pages opted out.

Of such a sample the uid, the place in its native file, the reason and the list's name stay; captions, ids, URLs and pictures
leave ledger, examples, report and work folder. While a build runs its work folder has them still: what is not measured
cannot be refused. When it ends, `swept` empties the rows of measured parts, overwrites re-encoded pictures, and takes away
every other file that tells of them, listed records above all: the next build lists these inputs again.

Builds that share a work folder are not swept away under: the last one to end sweeps (`swept`).

An emptied part carries the digest of the filters that emptied it (`DIGEST`). A recipe with other ones measures it anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.config import FILTERS
from curate.listing import connect, sql_text
from curate.recipe import Recipe, content_of
from curate.removed import KEPT, blanks
from shards.core import fs, registry
from shards.core.config import digest
from shards.core.console import say
from shards.sample import uid_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from curate.measure import Part

USED = ".used"
DIGEST = b"hidden"  # in the metadata of a part whose rows were emptied


@dataclasses.dataclass(frozen=True)
class Hidden:
    """Samples that must not be seen: reason and detail by (uid, input, row), and their uids with those of their records."""

    verdicts: dict[tuple[str, str, int], tuple[str, str]]
    uids: frozenset[str]


def sensitive(filters: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return those filters of a recipe whose module says `SENSITIVE`."""
    return [spec for spec in filters if getattr(registry.get(FILTERS, spec["name"]), "SENSITIVE", False)]


def filters_digest(filters: tuple[dict[str, Any], ...]) -> str:
    """Return the digest of a recipe's sensitive filters, of their lists by content."""
    return digest([content_of(spec) for spec in sensitive(filters)])


def hide(con: duckdb.DuckDBPyConnection, recipe: Recipe) -> None:
    """Let the view `measured` say nothing of hidden samples; the table `hidden` names them. The table `samples` must be there."""
    from curate.fetch.secrecy import BLOCKED, TAKEN_DOWN
    from curate.fetch.web import OPTED_OUT

    reasons = ", ".join(sql_text(spec["name"]) for spec in sensitive(recipe.filters)) or "''"
    secret = " OR ".join(f"starts_with(s.detail, {sql_text(beginning)})" for beginning in (OPTED_OUT, BLOCKED, TAKEN_DOWN))
    con.execute(f"""
        CREATE TEMP TABLE hidden AS
        SELECT s.place, m.uid, m.image_id, m.input, m.row, s.refusal::VARCHAR AS reason, s.detail AS why
        FROM samples s JOIN measured m USING (place)
        WHERE s.refusal::VARCHAR IN ({reasons}) AND s.refusal <> '' OR s.refusal = 'failed_to_download' AND ({secret})
    """)
    if not con.execute("SELECT count(*) FROM hidden").fetchall()[0][0]:
        return
    values = blanks("hidden")
    gone = "place IN (SELECT place FROM hidden)"
    replaced = ", ".join(f"CASE WHEN {gone} THEN {value} ELSE {name} END AS {name}" for name, value in values.items())
    con.execute("ALTER VIEW measured RENAME TO measured_seen")
    con.execute(f"CREATE VIEW measured AS SELECT * REPLACE ({replaced}) FROM measured_seen")


@contextlib.contextmanager
def swept(recipe: Recipe, work: str) -> Iterator[list[Part]]:
    """Use a work folder, so that no other command sweeps it meanwhile; sweep it in the end, whatever happens in between.

    Yields:
        the measured parts that the end sweeps by: the block adds them once it has them. Without any, nothing is swept.
    """
    parts: list[Part] = []
    with contextlib.ExitStack() as stack:
        # Callbacks run in reverse: this command gives the folder back, and then asks for it alone.
        stack.callback(_sweep_alone, recipe, parts, work)
        if not fs.is_remote(work):
            fs.make_dirs(work)
            file = stack.enter_context(open(fs.join(work, USED), "ab"))
            with contextlib.suppress(OSError):  # a disk that knows no locks
                fcntl.flock(file, fcntl.LOCK_SH)
        yield parts


def _sweep_alone(recipe: Recipe, parts: list[Part], work: str) -> int:
    """Take hidden samples out of a work folder; return the number of files that were changed or taken away.

    Nothing is done while another process uses the folder: it sweeps when it ends.
    """
    hidden = _find(recipe, parts, work) if parts else Hidden({}, frozenset())
    if not hidden.verdicts:
        return 0
    if fs.is_remote(work):
        return _sweep(recipe, hidden, work)
    with open(fs.join(work, USED), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            count = len(hidden.verdicts)
            say(f"{work}: another command is using it; it still has {count:,} samples that must not be seen: run this again")
            return 0
        except OSError:  # a disk that knows no locks
            pass
        return _sweep(recipe, hidden, work)


def _sweep(recipe: Recipe, hidden: Hidden, work: str) -> int:
    version, sources = filters_digest(recipe.filters), [spec.name for spec in recipe.sources]
    changed = 0
    for name in fs.walk(work):
        path = fs.join(work, name)
        if not name.endswith(".parquet"):
            continue
        if name.startswith(("measured/", "embedded/")):
            changed += _empty(path, hidden, version)
        elif _tells(path, hidden, sources):
            fs.remove(path.removesuffix(".parquet") + ".blob")
            fs.remove(path)
            changed += 1
    return changed


def _find(recipe: Recipe, parts: list[Part], work: str) -> Hidden:
    """Return the hidden samples of measured parts."""
    from curate.decide.load import load_samples

    con = connect(work)
    load_samples(con, recipe, parts, work)
    rows = con.execute("SELECT uid, image_id, input, row, reason, why FROM hidden").fetchall()
    con.close()
    verdicts = {(uid, name, row): (reason, why) for uid, _, name, row, reason, why in rows}
    return Hidden(verdicts, frozenset(uid for row in rows for uid in row[:2]))


def _empty(path: str, hidden: Hidden, version: str) -> bool:
    """Empty the rows of hidden samples in a measured part, and their pictures and embeddings beside it."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        metadata = parquet.schema_arrow.metadata or {}
        if metadata.get(DIGEST) == version.encode():
            return False
        uids = parquet.read(["uid"])["uid"]
        if not pc.any(pc.is_in(uids, pa.array(sorted(hidden.uids), pa.string()))).as_py():
            return False
        table = parquet.read()
    rows = table.to_pylist()
    gone = [at for at, row in enumerate(rows) if (row["uid"], row["input"], row["row"]) in hidden.verdicts]
    if not gone:
        return False
    stem = path.removesuffix(".parquet")
    for at in gone:
        row = rows[at]
        _overwrite(stem + ".blob", row)
        reason, why = hidden.verdicts[row["uid"], row["input"], row["row"]]
        rows[at] = _empty_row(row, table.schema) | {"status": reason, "detail": why}
    for beside in (stem + ".images.npy", stem + ".texts.npy"):
        _zero_rows(beside, gone)
    emptied = pa.Table.from_pylist(rows, table.schema.with_metadata(metadata | {DIGEST: version.encode()}))
    with fs.atomic_write(path) as new:
        pq.write_table(emptied, new, compression="zstd")
    return True


def _empty_row(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Return a measured row that says which sample it is, and no more; columns of plug-ins are not known any more."""
    import pyarrow as pa

    values: dict[str, Any] = {}
    for field in schema:
        if field.name in KEPT:
            values[field.name] = row[field.name]
        elif "." in field.name:
            values[field.name] = None
        elif pa.types.is_string(field.type):
            values[field.name] = ""
        else:
            values[field.name] = [] if pa.types.is_list(field.type) else 0
    return values | {"source_id": row["uid"]}


def _overwrite(blob: str, row: dict[str, Any]) -> None:
    """Overwrite the picture of a row with zeros if it lies in the part's own file of re-encoded pictures."""
    if row["path"] == blob and fs.exists(blob):
        with open(blob, "r+b") as file:
            file.seek(row["offset"])
            file.write(bytes(row["size"]))


def _zero_rows(path: str, rows: list[int]) -> None:
    import numpy as np

    if os.path.exists(path):
        array = np.load(path, mmap_mode="r+", allow_pickle=False)
        array[rows] = 0
        array.flush()


def _tells(path: str, hidden: Hidden, sources: list[str]) -> bool:
    """Return whether another file of a work folder has rows of hidden samples, or may have: a fetched pool knows its URLs alone."""
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        if "url_index" in names:
            return True
        uid_columns = [name for name in ("uid", "image_id", "key") if name in names]
        if any(not hidden.uids.isdisjoint(parquet.read([name])[name].to_pylist()) for name in uid_columns):
            return True
        ids = parquet.read(["source_id"])["source_id"].to_pylist() if "source_id" in names and not uid_columns else []
    return any(uid_of(source, id) in hidden.uids for id in ids for source in sources)
