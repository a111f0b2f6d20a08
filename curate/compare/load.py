"""Sets as narrow tables: ids as 128-bit numbers in DuckDB, histograms, and a random draw of captions.

What is held of a sample is some fifty bytes; its caption only where it is drawn. Texts are told apart by their md5.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.compare import MEASURES
from curate.compare.facts import facts
from curate.listing import connect, scalar
from shards.core import fs
from shards.core.console import Progress
from shards.core.errors import UsageError
from shards.core.notices import note
from shards.manifest import Manifest, read_manifest
from shards.sample import UID_RULE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.report.histograms import Histogram

LISTS = (".npy", ".txt", ".ids")
DRAWN = 50_000  # captions of a set that are compared word by word
MEMORY = "1500MB"  # of the database; the rest of a table goes to disk


@dataclass(frozen=True)
class Loaded:
    """One set. Its samples are the rows of the table `s{at}`: id, content and phash (null where not known), source, nth.

    `drawn`: uid and caption of at most DRAWN samples, those whose uid has the lowest md5 (little-endian), in that order.
    `histograms`: of the captions' words and characters and of the images' shorter side in pixels, over all samples.
    `native`: a list holds ids that are no uids: it is held against sets by their native ids, the column `native`.
    """

    at: int
    label: str
    samples: int
    manifest: Manifest | None = None
    native: bool = False
    drawn: pa.Table | None = None
    histograms: dict[str, Histogram] | None = None


def load(paths: tuple[str, ...], look: bool) -> tuple[Any, list[Loaded], list[str]]:
    """Read sets and lists of ids; returns the connection with their tables, the sets, and the sources' names by number.

    Raises:
        UsageError: a path is no set and no list of ids.
    """
    con = connect("")
    con.execute(f"SET memory_limit = '{MEMORY}'; SET preserve_insertion_order = false")
    from curate.report.subject import path_labels

    names = path_labels(paths)
    lists = {at: _load_list(con, at, names[at], path) for at, path in enumerate(paths) if path.endswith(LISTS)}
    native = any(one.native for one in lists.values())
    sources: list[str] = []
    found = [lists[at] if at in lists else _load_set(con, at, names[at], path, look, native, sources) for at, path in enumerate(paths)]
    return con, found, sources


def _load_list(con: Any, at: int, label: str, path: str) -> Loaded:
    import pyarrow as pa

    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}", "a list of ids, one on each line, or a .npy")
    ids = pa.table({"uid": pa.array(_npy_ids(path) if path.endswith(".npy") else _text_ids(path), pa.string())})
    con.register("rows", ids)
    con.execute(f"CREATE TABLE s{at} AS SELECT md5_number(uid) AS id FROM rows")
    native = bool(scalar(con, f"SELECT bool_or(NOT regexp_full_match(uid, '{UID_RULE.pattern}')) FROM rows"))
    con.unregister("rows")
    return Loaded(at, label, ids.num_rows, native=native)


def _npy_ids(path: str) -> list[str]:
    """Return the ids of a .npy: DataComp's pairs of 64 bits as hex, whole numbers in decimals."""
    import io

    import numpy as np

    from shards.uids import read_uids, unpack

    content = fs.read_bytes(path)
    if content.startswith(b"\x93NUMPY"):
        try:
            plain = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UsageError(f"{path}: {error}", "a .npy of whole numbers, or of dtype u8,u8") from error
        if plain.ndim == 1 and np.issubdtype(plain.dtype, np.integer):
            return plain.astype(str).tolist()
    return list(unpack(read_uids(path)))


def _text_ids(path: str) -> list[str]:
    return [line for raw in fs.read_text(path).splitlines() if (line := raw.strip())]


def _load_set(con: Any, at: int, label: str, path: str, look: bool, native: bool, sources: list[str]) -> Loaded:
    manifest = read_manifest(path)
    con.execute(f"CREATE TABLE s{at} (id UHUGEINT, content UHUGEINT, phash UBIGINT, source USMALLINT, nth UINTEGER, native UHUGEINT)")
    if not native:
        con.execute(f"ALTER TABLE s{at} DROP COLUMN native")
    con.execute(f"CREATE TABLE d{at} (id UHUGEINT, nth UINTEGER, uid VARCHAR, caption VARCHAR)")
    counters: dict[str, Counter[int]] = {name: Counter() for name in MEASURES}
    seen, highest = 0, 2**128 - 1
    without: Counter[str] = Counter()
    with Progress(f"read {path}", manifest.samples) as progress:
        for rows in facts(manifest, look=look):
            _insert(con, at, rows, seen, native, sources)
            highest = _draw(con, at, seen, highest)
            con.unregister("rows")
            for name, values in _measured(rows).items():
                _count(counters[name], values)
            without.update(_not_comparable(rows))
            seen += rows.num_rows
            progress.add(rows.num_rows)
    drawn = con.sql(f"SELECT uid, caption FROM d{at} ORDER BY id, nth LIMIT {DRAWN}").to_arrow_table()
    con.execute(f"DROP TABLE d{at}")
    for what, count in without.items():
        note(count, what, f"such as those of {path}")
    histograms = {name: _histogram(counter) for name, counter in counters.items() if counter}
    return Loaded(at, label, seen, manifest, drawn=drawn, histograms=histograms)


def _not_comparable(rows: pa.Table) -> dict[str, int]:
    """Return how many samples of a shard are compared by less than ids, bytes and pictures, by kind."""
    import numpy as np

    no_bytes = np.asarray(rows["content"]) == ""
    no_picture = (np.asarray(rows["phash"]) == "") & ~no_bytes
    return {
        "samples compared without their images: none there, or not opened": int(no_bytes.sum()),
        "images without a pHash, compared by their bytes alone": int(no_picture.sum()),
    }


def _insert(con: Any, at: int, rows: pa.Table, seen: int, native: bool, sources: list[str]) -> None:
    """Add the rows of a shard to a set's table; `rows` stays registered."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sources += [name for name in pc.unique(rows["source"]).to_pylist() if name not in sources]
    numbers = pc.index_in(rows["source"], pa.array(sources, pa.string())).cast(pa.uint16())
    rows = rows.select(["uid", "source_id", "content", "phash", "caption"]).append_column("number", numbers)
    con.register("rows", rows.append_column("nth", pa.array(range(seen, seen + rows.num_rows), pa.uint32())))
    con.execute(f"""
        INSERT INTO s{at} SELECT md5_number(uid), md5_number(nullif(content, '')), ('0x' || nullif(phash, ''))::UBIGINT, number, nth
        {", md5_number(nullif(source_id, ''))" if native else ""} FROM rows""")


def _draw(con: Any, at: int, seen: int, highest: int) -> int:
    """Keep the captions of the lowest ids; returns the id above which none is needed any more."""
    con.execute(f"INSERT INTO d{at} SELECT md5_number(uid) AS id, nth, uid, caption FROM rows WHERE id <= {highest}::UHUGEINT")
    if scalar(con, f"SELECT count(*) FROM d{at}") <= 4 * DRAWN:
        return highest
    con.execute(f"CREATE OR REPLACE TABLE d{at} AS FROM d{at} ORDER BY id, nth LIMIT {DRAWN}")
    return int(scalar(con, f"SELECT max(id)::VARCHAR FROM d{at}"))


def _measured(rows: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Return the measures of a shard's samples; images of unknown size are left out."""
    import numpy as np
    import pyarrow.compute as pc

    from curate.report import wordcount

    side = np.minimum(np.asarray(rows["width"]), np.asarray(rows["height"]))
    characters = np.asarray(pc.utf8_length(rows["caption"]))
    return {"words": wordcount.count(rows["caption"]).lengths, "characters": characters, "side": side[side > 0]}


def _count(counter: Counter[int], values: NDArray[np.int64]) -> None:
    import numpy as np

    different, counts = np.unique(values, return_counts=True)
    counter.update(dict(zip(different.tolist(), counts.tolist(), strict=True)))


def _histogram(counter: Counter[int]) -> Histogram:
    import numpy as np

    from curate.report.histograms import Histogram

    values = sorted(counter)
    return Histogram(np.array(values, np.float64), np.array([counter[v] for v in values], np.int64))
