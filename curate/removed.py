"""The samples that a work folder's builds leave out: `removed.txt`, a uid on each line, and what decisions see of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.table import MEASURED
from shards.core import fs

if TYPE_CHECKING:
    import duckdb

LIST = "removed.txt"
REASON = "removed"
KEPT = ("uid", "image_id", "source", "input", "row", "class_index", "class_name")
_BLANK = {"string": "''", "list<string>": "[]", "uint64": "0", "int32": "0", "int64": "0", "double": "0.0"}


def read_list(work: str) -> set[str]:
    """Return the uids that builds with this work folder leave out."""
    path = fs.join(work, LIST) if work else ""
    return set(fs.read_text(path).split()) if path and fs.exists(path) else set()


def add_to_list(work: str, uids: set[str]) -> int:
    """Add uids to the list of removed samples; return how many stand there now."""
    with fs.locked(work, f".{LIST}{fs.LOCK}"):  # two take-downs at once would lose one of their lists
        all_of_them = sorted(uids | read_list(work))
        fs.write_text(fs.join(work, LIST), "".join(f"{uid}\n" for uid in all_of_them))
    return len(all_of_them)


def blanks(status: str) -> dict[str, str]:
    """Return, as SQL, what each column of the measured table says of a sample that must not be seen; the others stay."""
    values = {name: _BLANK[kind] for name, kind in MEASURED if name not in KEPT}
    return values | {"source_id": "uid", "status": f"'{status}'", "path": "''", '"offset"': "0", "size": "0"}


def hide_removed(con: duckdb.DuckDBPyConnection, work: str) -> None:
    """Let the view `measured` say nothing of removed samples but their uid, where they stood, and the status `removed`.

    A measured part may know them still: a later recipe measures anew what the native files say.
    """
    import pyarrow as pa

    uids = sorted(read_list(work))
    if not uids:
        return
    con.register("removed_uids", pa.table({"uid": uids}))
    con.execute("CREATE TEMP TABLE removed AS SELECT uid FROM removed_uids")
    con.unregister("removed_uids")
    values = blanks(REASON)
    gone = "uid IN (SELECT uid FROM removed)"
    replaced = ", ".join(f"CASE WHEN {gone} THEN {value} ELSE {name} END AS {name}" for name, value in values.items())
    con.execute("ALTER VIEW measured RENAME TO measured_whole")
    con.execute(f"CREATE VIEW measured AS SELECT * REPLACE ({replaced}) FROM measured_whole")
