"""Before measuring: native files become records on disk, joined to their image pool.

One parquet file per input (and one per joined source) in row groups: a row group is one task of the measure pass. They
double from 32 records to 512, so that a small input keeps all workers busy and a large one makes few files. Files are
keyed by content, so an input that has not changed is not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from curate.config import SOURCES, source_options
from curate.recipe import Recipe, SourceSpec
from curate.sources.base import Input, Pointer, Record
from curate.table import records_schema
from shards.core import fs, registry
from shards.core.config import digest
from shards.core.console import say
from shards.core.engine import Done, map_unordered
from shards.core.engines.local import threads_of
from shards.core.errors import RunError, TornFileError, UsageError, closest
from shards.core.notices import note
from shards.tables.notes import noting
from shards.tables.values import worded

FIRST_PART, PART = 32, 512
MEMORY = "4GB"  # of a database; what does not fit goes to disk


@dataclass(frozen=True)
class ListTask:
    """Read one native file into one parquet file of records."""

    spec: SourceSpec
    input: Input
    target: str
    limit: int | None
    skip_bad: bool


def identity(path: str, *, by_content: bool) -> str:
    """Return what tells one version of an input from another: of a metadata file its sha256, of an image container or
    a folder the names, sizes and modification times."""
    if not fs.is_dir(path):
        return fs.sha256(path) if by_content else digest(fs.identity(path))
    digest_so_far = hashlib.sha256()
    for name in fs.walk(path):
        try:
            size, changed = fs.identity(fs.join(path, name))[1:]
        except OSError:  # a link to nothing
            size, changed = -1, -1
        digest_so_far.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return digest_so_far.hexdigest()


def list_records(recipe: Recipe, spec: SourceSpec, work: str, workers: int, engine: str) -> tuple[list[str], list[str]]:
    """Return the record files of one source, in input order, and the names of inputs that were torn (`bad_files: skip`).

    The layout that the source has recognised is said on stderr.

    Raises:
        TornFileError: an input is torn and the recipe says stop.
    """
    module = registry.get(SOURCES, spec.reader)
    options = source_options(spec)
    fs.make_dirs(fs.join(work, "records"))
    tasks = []
    inputs = module.inputs(spec.input, options)
    check_kept(spec, inputs)
    for input in inputs:
        further = module.beside(input, options) if hasattr(module, "beside") else []
        version = [identity(path, by_content=module.IMAGES == "pool") for path in (input.path, *further)]
        key = digest(
            [
                spec.reader,
                module.VERSION,
                options,
                FIRST_PART,
                PART,
                input.path,
                input.name,
                input.first,
                recipe.limit,
                recipe.bad_files,
                version,
            ]
        )
        tasks.append(ListTask(spec, input, fs.join(work, "records", f"{key}.parquet"), recipe.limit, recipe.bad_files == "skip"))
    missing = [t for t in tasks if not fs.exists(t.target)]
    for outcome in map_unordered(list_input, missing, workers=min(workers, len(missing)), engine=engine):
        if not isinstance(outcome, Done):
            raise RunError(f"{outcome.spec.input.path}: {outcome.reason} while its records were read")
    files = [t.target for t in tasks]
    if layout := layout_of(files):
        kind = "folder" if fs.is_dir(tasks[0].input.path) else "file"
        say(f"{spec.name}: {len(tasks):,} {kind}{'s' if len(tasks) > 1 else ''}, {layout}")
    for task in tasks:
        for kind, number, example in json.loads(_noted(task.target, b"notes") or "[]"):
            note(number, kind, f"first in {spec.name}'s {task.input.name}, {example}")
    return files, [t.input.name for t in tasks if _noted(t.target, b"torn") == "1"]


def check_kept(spec: SourceSpec, inputs: list[Input]) -> None:
    """Refuse a column to be kept that a native file does not have, where its reader can tell.

    Raises:
        UsageError: naming the columns that there are.
    """
    module, options = registry.get(SOURCES, spec.reader), source_options(spec)
    if not spec.keep_columns or not hasattr(module, "columns"):
        return
    by_reader = [name for name, _ in getattr(module, "COLUMNS", ())]
    for input in inputs:
        there = [*module.columns(input, options), *by_reader]
        for name in spec.keep_columns:
            if name not in there:
                problem = f"{input.path}: no further column {name!r} to keep"
                raise UsageError(problem, ", ".join(there) or "no column besides those that are read anyway", closest(name, there))


def layout_of(files: list[str]) -> str:
    """Return the native layouts of what was listed, in the words of its source; how many inputs have each, where there are several."""
    layouts = Counter(_noted(path, b"layout") for path in files)
    del layouts[""]
    if len(layouts) == 1 and layouts.total() == len(files):
        return next(iter(layouts))
    return ", ".join(f"{layout} ({count:,})" for layout, count in layouts.items())


def _noted(path: str, key: bytes) -> str:
    """Return what `list_input` noted about an input beside its records."""
    import pyarrow.parquet as pq

    with fs.open_read(path) as file:
        return (pq.read_metadata(file).metadata or {}).get(key, b"").decode()


def list_input(task: ListTask) -> int:
    """Write the records of one input; runs in a worker. Returns how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, torn = 0, False
    with (
        fs.atomic_write(task.target) as file,
        pq.ParquetWriter(file, records_schema(), compression="zstd") as writer,
        appended(task.target.removesuffix(".parquet") + ".blob") as keep,
    ):
        with noting() as notes:
            for rows in in_parts(_rows(task, keep)):
                torn = torn or rows[-1]["status"] == "torn_input"
                count += len(rows)
                writer.write_table(pa.Table.from_pylist(rows, schema=records_schema()), row_group_size=PART)
        noted = json.dumps([[kind, number, notes.examples[kind]] for kind, number in notes.counts.items()])
        writer.add_key_value_metadata({"torn": "1" if torn else "0", "layout": _layout(task), "notes": noted})
    return count


def _layout(task: ListTask) -> str:
    """Return what the source calls the input's layout; nothing where it has no word for it, or the input is torn early."""
    module = registry.get(SOURCES, task.spec.reader)
    with contextlib.suppress(TornFileError):
        return module.layout(task.input, source_options(task.spec)) if hasattr(module, "layout") else ""
    return ""


@contextlib.contextmanager
def appended(path: str) -> Iterator[Callable[[bytes], Pointer]]:
    """Yield a function that appends an image to the file at `path`; without images there is no file."""
    with contextlib.ExitStack() as stack:
        opened: list[IO[bytes]] = []

        def keep(content: bytes) -> Pointer:
            file = opened[0] if opened else stack.enter_context(fs.atomic_write(path))
            opened[:] = [file]
            pointer = Pointer(path, file.tell(), len(content))
            file.write(content)
            return pointer

        yield keep


def in_parts(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists of 32, 64, 128, 256, 512, 512, … and the rest."""
    size = FIRST_PART
    while part := list(itertools.islice(rows, size)):
        yield part
        size = min(2 * size, PART)


def _rows(task: ListTask, keep: Callable[[bytes], Pointer]) -> Iterator[dict[str, Any]]:
    module = registry.get(SOURCES, task.spec.reader)
    stamps: dict[str, str] = {}
    last = -1
    try:
        for record in module.read(task.input, source_options(task.spec)):
            if task.limit is not None and last + 1 >= task.limit:
                return
            last += 1
            if record.content:
                record = replace(record, image=keep(record.content), content=b"")
                stamps[record.image.path] = "kept"  # its name is that of its input's content
            yield record_row(record, task.input.name, stamps)
    except TornFileError as error:
        if not task.skip_bad:
            error.advice = error.advice or "repair the file, or --bad-files skip to use its whole samples"
            raise
        torn = Record(f"{task.input.name}#torn", (), last + 1, status="torn_input", detail=error.found)
        yield record_row(torn, task.input.name, stamps)


def record_row(record: Record, name: str, stamps: dict[str, str]) -> dict[str, Any]:
    """Return a record as a row of `curate.table.RECORDS`; `stamps` remembers the versions of shared containers."""
    pointer, status, detail = record.image, record.status, record.detail
    if pointer and not status and (problem := _no_file(pointer)):
        pointer, status, detail = None, "image_missing", problem
    return {
        "source_id": _utf8(record.source_id),
        "input": name,
        "row": record.row,
        "captions": [_utf8(worded(c)) for c in record.captions],
        "urls": list(dict.fromkeys(url.strip() for url in record.urls)),
        "path": pointer.path if pointer else "",
        "offset": pointer.offset if pointer else 0,
        "size": pointer.size if pointer else 0,
        "stamp": _stamp(pointer.path, stamps) if pointer else "",
        "class_index": record.class_index,
        "class_name": record.class_name,
        "licence": record.licence,
        "status": status,
        "detail": _utf8(detail),
        "meta": record.meta,
    }


def _no_file(pointer: Pointer) -> str:
    """Say why there is nothing to read at a place: opening a pipe would wait for ever."""
    if pointer.size >= 0 or fs.is_remote(pointer.path):
        return ""
    try:
        mode = os.stat(pointer.path).st_mode
    except OSError as error:
        return "a link to nothing" if os.path.islink(pointer.path) else f"no file there: {error.strerror}"
    return "" if stat.S_ISREG(mode) else "no regular file"


def _utf8(text: str) -> str:
    """Lone surrogates (bytes that were no UTF-8) cannot be stored; they become the replacement character."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _stamp(path: str, stamps: dict[str, str]) -> str:
    if path not in stamps:
        if len(stamps) > 100_000:  # one file per image: remembering them all would grow with the input
            stamps.clear()
        try:
            stamps[path] = " ".join(map(str, fs.identity(path)[1:]))
        except OSError:
            stamps[path] = "absent"
    return stamps[path]


def join_pool(files: list[str], pool: str, work: str, name: str) -> list[str]:
    """Join the records of one source to a fetched pool, on source_id, else on the URL; returns the joined file.

    A row of the pool that may keep neither (who opted out, say) is found by its uid, which follows from the source's name.

    Of several fetched URLs of a record the one with the lowest `url_index` that succeeded wins, the latest of equals.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool_file = _pool_file(pool, work)
    target = fs.join(work, "records", digest(["join-3", files, pool_file, name]) + ".parquet")
    if fs.exists(target):
        return [target]
    con = connect(work)
    con.execute(_JOIN.format(files=sql_list(files), pool=sql_text(pool_file), name=sql_text(name)))
    with fs.atomic_write(target) as file, pq.ParquetWriter(file, records_schema(), compression="zstd") as writer:
        batches = con.sql("SELECT * EXCLUDE (file_index, position) FROM joined ORDER BY file_index, position").to_arrow_reader(PART)
        for rows in in_parts(row for batch in batches for row in batch.to_pylist()):
            writer.write_table(pa.Table.from_pylist(rows, schema=records_schema()), row_group_size=PART)
    con.close()
    return [target]


_JOIN = """
CREATE TEMP TABLE pool AS SELECT *, row_number() OVER () AS nth FROM read_parquet({pool});
CREATE TEMP TABLE records AS
  SELECT r.*, list_position({files}, filename) AS file_index, file_row_number AS position
  FROM read_parquet({files}, filename = true, file_row_number = true) r;
CREATE TEMP TABLE by_id AS
  SELECT source_id AS k, arg_min(pool, (status <> 'success', url_index, -nth)) AS p FROM pool WHERE source_id <> '' GROUP BY ALL;
CREATE TEMP TABLE by_url AS
  SELECT url AS k, arg_min(pool, (status <> 'success', -nth)) AS p FROM pool WHERE source_id = '' AND uid = '' GROUP BY ALL;
CREATE TEMP TABLE by_uid AS
  SELECT uid AS k, arg_min(pool, (status <> 'success', url_index, -nth)) AS p FROM pool WHERE source_id = '' AND uid <> '' GROUP BY ALL;
CREATE TEMP TABLE of_url AS
  SELECT file_index, position, arg_min(p, (p.status <> 'success', i)) AS p
  FROM (SELECT file_index, position, unnest(urls) AS url, generate_subscripts(urls, 1) AS i FROM records) u
  JOIN by_url ON by_url.k = u.url GROUP BY ALL;
CREATE TEMP TABLE joined AS
  SELECT r.source_id, r.input, r.row, r.captions, r.urls,
    CASE WHEN r.path <> '' THEN r.path WHEN p.status = 'success' THEN p.path ELSE '' END AS path,
    CASE WHEN r.path <> '' THEN r."offset" WHEN p.status = 'success' THEN p.offset ELSE 0 END AS offset,
    CASE WHEN r.path <> '' THEN r.size WHEN p.status = 'success' THEN p.size ELSE 0 END AS size,
    CASE WHEN r.path <> '' THEN r.stamp ELSE coalesce(p.stamp, '') END AS stamp, r.class_index, r.class_name, r.licence,
    CASE WHEN r.status <> '' OR r.path <> '' THEN r.status WHEN p IS NULL THEN 'image_missing'
         WHEN p.status = 'success' THEN '' ELSE p.status END AS status,
    CASE WHEN r.status <> '' THEN r.detail WHEN p IS NULL THEN 'not in the pool' ELSE coalesce(p.detail, '') END AS detail,
    r.meta, r.file_index, r.position
  FROM (SELECT r.*, coalesce(by_id.p, of_url.p, by_uid.p) AS p FROM records r
        LEFT JOIN by_id ON by_id.k = r.source_id LEFT JOIN of_url USING (file_index, position)
        LEFT JOIN by_uid ON by_uid.k = CASE WHEN regexp_full_match(r.source_id, '[0-9a-f]{{32}}') THEN r.source_id
                                            ELSE left(sha256(concat({name}, chr(0), r.source_id)), 32) END) r;
"""


def _pool_file(pool: str, work: str) -> str:
    """Write the pool's rows to a parquet file keyed by the pool's content, and return its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.fetch.pool import read_pool

    target = fs.join(work, "records", digest(["pool-3", identity(pool, by_content=False)]) + ".parquet")
    if fs.exists(target):
        return target
    fields = ("source_id", "url", "url_index", "status", "detail", "uid", "path", "offset", "size", "stamp")
    kinds = {"url_index": pa.int32(), "offset": pa.int64(), "size": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in fields])
    stamps: dict[str, str] = {}
    with fs.atomic_write(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for pooled in read_pool(pool):
            image = {
                "path": pooled.tar,
                "offset": pooled.offset,
                "size": pooled.size,
                "stamp": _stamp(pooled.tar, stamps) if pooled.tar else "",
            }
            rows.append({**{k: getattr(pooled, k) for k in fields[:6]}, **image})
            if len(rows) == 16384:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return target


def connect(work: str, threads: int = 0) -> Any:
    """Return an in-memory DuckDB connection of bounded memory, which spills into a folder of its own in the work folder."""
    import duckdb

    con = duckdb.connect()
    spill = spill_folder(work) if not fs.is_remote(work) else ""
    con.execute(f"SET temp_directory = {sql_text(spill)}; SET threads = {threads_of(threads)}")
    con.execute(f"SET memory_limit = '{MEMORY}'")
    con.execute("SET preserve_insertion_order = true; SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    return con


def spill_folder(work: str) -> str:
    """Return a new name for a folder to spill into, and remove those that killed builds have left: untouched for a day."""
    for name in fs.names(work) if work else []:
        path = fs.join(work, name)
        if name.startswith("spill-") and time.time() - os.path.getmtime(path) > 86_400:
            fs.remove(path)
    return fs.join(work or tempfile.gettempdir(), f"spill-{uuid.uuid4().hex}")


def scalar(con: Any, query: str) -> Any:
    """Return the one value of a query, leaving no result open on the connection."""
    return con.execute(query).fetchall()[0][0]


def sql_text(text: str) -> str:
    """Return text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def sql_list(texts: list[str]) -> str:
    """Return texts as an SQL list literal."""
    return "[" + ", ".join(map(sql_text, texts)) + "]"
