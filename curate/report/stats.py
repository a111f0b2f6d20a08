"""Statistics that add: a table of exact counts for each shard; tables are merged by adding up equal rows.

A row is (source, kind, text, value, count, captions). What is counted stands in `text` or in `value`, by kind:

- `word`: a word; `captions` is how many captions hold it. `bigram`: two words that follow each other, a space between them.
- `words`, `characters`: captions by length. `width`, `height`: images by pixels. All by exact value.
- `aspect` (width / height), `bytes`: images by value rounded to three digits, within 0.5% of the true one.
- `format`: images by the format they came in.
- `samples`: how many there are.

A shard's table lies in stats/NNNNN.parquet beside it and names the sidecar it was counted from: one that is out of date is
seen, and counted anew. So is a cut shard's, whose samples are not all in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.report import wordcount
from shards.core import fs
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FOLDER = "stats"
KEYS = ("source", "kind", "text", "value")
COUNTED = ("source", "caption", "width", "height", "bytes", "original_format")
VERSION = f"1, words {wordcount.VERSION}, Unicode {unicodedata.unidata_version}"
MEMORY_LIMIT = "1GB"


def schema() -> pa.Schema:
    """Return the columns of a table of statistics."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in KEYS[:3]]
    return pa.schema([*text, ("value", pa.float64()), ("count", pa.int64()), ("captions", pa.int64())])


def count_rows(rows: pa.Table) -> pa.Table:
    """Count samples: the rows of a sidecar, or of any table with some of the columns COUNTED; nulls are counted nowhere.

    Returns rows in the order of `ordered`, so that equal samples in any order have equal statistics.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    n, parts = rows.num_rows, [schema().empty_table()]
    sources = pc.fill_null(rows["source"], "") if "source" in rows.column_names else pa.chunked_array([pa.repeat("", n)])
    for source in pc.unique(sources):
        own = rows.filter(pc.equal(sources, source))
        parts += [part.set_column(0, "source", pa.repeat(source, part.num_rows)) for part in _of_source(own)]
    return ordered(pa.concat_tables(parts))


def _of_source(rows: pa.Table) -> Iterator[pa.Table]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    names = rows.column_names
    yield _table("samples", count=[rows.num_rows])
    if "caption" in names:
        yield from _of_captions(rows["caption"].drop_null())
    for name in ("width", "height"):
        if name in names:
            yield _histogram(name, rows[name].cast(pa.float64()))
    if "width" in names and "height" in names:
        known = rows.filter(pc.and_(pc.greater(rows["width"], 0), pc.greater(rows["height"], 0)))
        yield _histogram("aspect", pa.array(three_digits(np.asarray(known["width"], np.float64) / np.asarray(known["height"]))))
    if "bytes" in names:
        yield _histogram("bytes", pa.array(three_digits(np.asarray(rows["bytes"].drop_null(), np.float64))))
    if "original_format" in names:
        found = rows["original_format"].drop_null().value_counts()
        yield _table("format", text=found.field("values"), count=found.field("counts"))


def _of_captions(captions: pa.ChunkedArray) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = wordcount.count(captions)
    words = pa.array(found.words, pa.string())
    yield _table("word", text=words, count=found.count, captions=found.captions)
    first, second = words.take(pa.array(found.first)), words.take(pa.array(found.second))
    yield _table("bigram", text=pc.binary_join_element_wise(first, second, " "), count=found.pairs)
    yield _histogram("words", pa.array(found.lengths).cast(pa.float64()))
    yield _histogram("characters", pc.utf8_length(captions).cast(pa.float64()))


def _histogram(kind: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    found = values.drop_null().value_counts()
    return _table(kind, value=found.field("values"), count=found.field("counts"))


def _table(kind: str, **columns: Any) -> pa.Table:
    import pyarrow as pa

    n = len(columns["count"])
    columns["kind"] = pa.repeat(kind, n)
    arrays = [pa.nulls(n, f.type) if columns.get(f.name) is None else pa.array(columns[f.name]).cast(f.type) for f in schema()]
    return pa.table(arrays, schema=schema())


def three_digits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positive values rounded to three significant digits, off by 0.5% at most; others stay as they are."""
    import numpy as np

    positive = np.where(values > 0, values, 1.0)
    digits = 2 - np.floor(np.log10(positive)).astype(np.int64)
    up, down = 10.0 ** np.maximum(digits, 0), 10.0 ** np.maximum(-digits, 0)  # powers of ten that are exact: equal values stay equal
    return np.where(values > 0, np.round(positive * up / down) * down / up, values)


def ordered(table: pa.Table) -> pa.Table:
    """Return rows by kind, source, text and value: equal statistics are equal tables then."""
    return table.sort_by([(name, "ascending") for name in ("kind", "source", "text", "value")]).combine_chunks()


def merged(tables: Iterable[pa.Table]) -> pa.Table:
    """Add up tables of statistics, all in memory; `open_statistics` is for many."""
    import pyarrow as pa

    together = pa.concat_tables([schema().empty_table(), *tables])
    added = together.group_by(list(KEYS)).aggregate([("count", "sum"), ("captions", "sum")])
    return ordered(added.rename_columns([*KEYS, "count", "captions"]).cast(schema()))


def path_of(manifest: Manifest, entry: ShardEntry) -> str:
    """Return where a shard's statistics lie: beside the shard, whichever set it belongs to."""
    return fs.join(manifest.folder_of(entry), FOLDER, entry.name.removesuffix(".tar") + ".parquet")


def write_statistics(path: str, table: pa.Table, sidecar: str = "") -> None:
    """Write a shard's statistics; equal ones give equal bytes.

    Args:
        table: from `count_rows` or `merged`: ordered. A row group holds one kind of one source: a reader skips the others.
        sidecar: sha256 of the sidecar that was counted.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    written = table.schema.with_metadata({"sidecar": sidecar, "version": VERSION})
    # Sorted text packs best as what it adds to the row before: half the size, and quicker to read, than a dictionary.
    coding: dict[str, Any] = {"use_dictionary": ["source", "kind", "value", "count"], "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    groups = np.asarray(pc.binary_join_element_wise(table["kind"], table["source"], "\0"))
    cuts = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), len(groups)] if len(groups) else []
    with pq.ParquetWriter(sink, written, compression="zstd", **coding) as writer:
        for start, stop in itertools.pairwise(cuts):
            writer.write_table(table.slice(start, stop - start).replace_schema_metadata(written.metadata))
    fs.write_bytes(path, sink.getvalue().to_pybytes())


def read_statistics(path: str, sidecar: str = "") -> pa.Table | None:
    """Return a shard's statistics; None where there are none, or they are of another sidecar or version."""
    import pyarrow.parquet as pq

    if not _is_current(path, sidecar):
        return None
    with fs.open_read(path) as file:
        return pq.ParquetFile(file).read().replace_schema_metadata(None)


def _is_current(path: str, sidecar: str) -> bool:
    import pyarrow.parquet as pq

    if not fs.exists(path):
        return False
    with fs.open_read(path) as file:
        found = pq.read_schema(file).metadata or {}
    return (found.get(b"sidecar"), found.get(b"version")) == (sidecar.encode(), VERSION.encode())


@dataclass(frozen=True)
class CountTask:
    """Count the samples in use of one shard, the only one of `manifest`, into a file."""

    manifest: Manifest
    target: str


def rows_of(manifest: Manifest, entry: ShardEntry) -> pa.Table:
    """Return the columns COUNTED of a shard's samples in use. A foreign shard has no sidecar: its captions are read from
    the tar, and its source is the set's only one, else ""."""
    import pyarrow as pa

    with Shard(manifest, entry) as shard:
        rows = shard.sidecar(COUNTED)
        if rows.num_columns:
            return rows
        captions = [
            shard.read(i, "txt").decode("utf-8", "replace") if any(m.ext == "txt" for m in group) else None
            for i, group in enumerate(shard.groups)
        ]
    source = next(iter(manifest.sources)) if len(manifest.sources) == 1 else ""
    return pa.table({"source": pa.repeat(source, len(captions)), "caption": pa.array(captions, pa.string())})


def count_shard(task: CountTask) -> str:
    """Count one shard; runs in a worker. Returns where the statistics are."""
    entry = task.manifest.shards[0]
    write_statistics(task.target, count_rows(rows_of(task.manifest, entry)), entry.sidecar_sha256)
    return task.target


def parts(manifest: Manifest, aside: str, workers: int = 1, engine: str = "local") -> list[str]:
    """Return a file of statistics for each shard of a set, and count those that have none.

    What is counted of the set's own whole shards stays beside them; of cut shards, and of other sets' shards, it goes `aside`.

    Raises:
        RunError: a shard cannot be counted.
    """
    paths, tasks = [], []
    for number, entry in enumerate(manifest.shards):
        path = path_of(manifest, entry)
        if entry.use is None and _is_current(path, entry.sidecar_sha256):
            paths.append(path)
            continue
        keep = entry.own and entry.use is None and bool(entry.sidecar_sha256)
        alone = dataclasses.replace(manifest, shards=(entry,))
        tasks.append(CountTask(alone, path if keep else fs.join(aside, f"{number:05d}.parquet")))
    for folder in {task.target.rpartition("/")[0] for task in tasks}:
        fs.make_dirs(folder)
    for outcome in map_unordered(count_shard, tasks, workers=min(workers, len(tasks)), engine=engine):
        if not isinstance(outcome, Done):
            raise RunError(f"{outcome.spec.manifest.shards[0].path}: {outcome.reason} while its captions were counted")
        paths.append(outcome.result)
    return paths


@contextlib.contextmanager
def open_statistics(manifest: Manifest, workers: int = 1, engine: str = "local") -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection to a set's statistics, all shards added up; see `add_up` for its tables."""
    with tempfile.TemporaryDirectory() as aside, add_up(parts(manifest, aside, workers, engine)) as con:
        yield con


@contextlib.contextmanager
def add_up(paths: list[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Add up files of statistics, and open a connection with the sums; what exceeds MEMORY_LIMIT goes to disk.

    Its tables: `words` (source, word, count, captions), `bigrams` (source, bigram, count), and `others`
    (source, kind, text, value, count, captions): all other kinds. All are exact, as the files are.
    """
    import duckdb
    import fsspec

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET preserve_insertion_order = false; SET parquet_metadata_cache = true")
        con.execute(f"SET temp_directory = '{spill.replace(chr(39), chr(39) * 2)}'")
        con.execute("CREATE TABLE words (source VARCHAR, word VARCHAR, count BIGINT, captions BIGINT)")
        con.execute("CREATE TABLE bigrams (source VARCHAR, bigram VARCHAR, count BIGINT)")
        con.execute("CREATE TABLE others (source VARCHAR, kind VARCHAR, text VARCHAR, value DOUBLE, count BIGINT, captions BIGINT)")
        for protocol in sorted({path.partition("://")[0] for path in paths if fs.is_remote(path)}):
            con.register_filesystem(fsspec.filesystem(protocol))
        if paths:
            _sum(con, paths)
        yield con


def _sum(con: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    """Fill the tables. A source at a time, since a key of one text is half the work and memory."""
    where = "kind NOT IN ('word', 'bigram')"
    others = f"SELECT source, kind, text, value, sum(count), sum(captions) FROM read_parquet($paths) WHERE {where} GROUP BY ALL"
    con.execute(f"INSERT INTO others {others}", {"paths": paths})
    for (source,) in con.execute("SELECT source FROM others WHERE kind = 'samples' ORDER BY source").fetchall():
        given = {"paths": paths, "source": source}
        for table, kind, sums in (("words", "word", "sum(count), sum(captions)"), ("bigrams", "bigram", "sum(count)")):
            where = f"kind = '{kind}' AND source = $source"
            con.execute(f"INSERT INTO {table} SELECT $source, text, {sums} FROM read_parquet($paths) WHERE {where} GROUP BY text", given)
