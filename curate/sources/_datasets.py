"""Tables that `datasets` leaves on disk: which files make up a split, and their rows as Arrow batches.

Arrow files (streams as `datasets` writes them, and the random-access format) are mapped into memory: an image in them is
a byte range of the file. Parquet is read batch by batch. No pickle and no loading script is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.sources.base import Input, base_of, expand, list_inputs
from shards.core import fs
from shards.core.errors import TornFileError, UsageError, closest
from shards.tables.delimited import unlike

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".arrow", ".feather")
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")
ROWS = 64  # rows of a parquet batch: their images are in memory together
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream; the random-access format ends with its name
_EXPECTED = "a folder of save_to_disk, or parquet or Arrow files"


def inputs(pattern: str, split: str) -> list[Input]:
    """Return the files of one split in order, each with the number of its first row.

    Raises:
        UsageError: no such files, several splits and none named, or an indices mapping that was not flattened.
    """
    numbered, first = [], 0
    for file in _files(pattern, split):
        numbered.append(Input(file.path, file.name, first))
        first += rows_of(file.path)
    return numbered


def _files(pattern: str, split: str) -> list[Input]:
    folder = pattern.rstrip("/")
    if not fs.is_dir(folder) and any(map(fs.is_dir, expand(pattern))):
        base = base_of(pattern)
        parts = [(path, fs.relative(path, base)) for path in expand(pattern)]
        return [
            Input(file.path, f"{name}/{file.name}" if fs.is_dir(path) else name) for path, name in parts for file in _files(path, split)
        ]
    if not fs.is_dir(folder):
        return _of_split(list_inputs(pattern, SUFFIXES), split) if split else list_inputs(pattern, SUFFIXES)
    if fs.exists(fs.join(folder, "dataset_dict.json")):
        splits = _json(fs.join(folder, "dataset_dict.json")).get("splits") or []
        name = _chosen(folder, splits, split)
        return [Input(file.path, f"{name}/{file.name}") for file in _saved(fs.join(folder, name))]
    if fs.exists(fs.join(folder, "state.json")):
        return _saved(folder)
    # What `map` left beside its inputs would give every row twice.
    kept = [file for file in list_inputs(folder, SUFFIXES) if not file.name.rpartition("/")[2].startswith(("cache-", "tmp", "indices"))]
    if not kept:
        raise UsageError(f"{folder!r} holds only cached results of `map`", _EXPECTED)
    return _of_split(kept, split)


def _saved(folder: str) -> list[Input]:
    """Return the files of one saved split, as its state.json lists them."""
    state = _json(fs.join(folder, "state.json"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(f"{folder!r} has an indices mapping", "rows in their own order", "flatten_indices() before save_to_disk()")
    names = [str(entry.get("filename")) for entry in state.get("_data_files") or []]
    wrong = [n for n in names if "/" in n or not fs.exists(fs.join(folder, n))]
    if wrong or not names:
        raise UsageError(f"{folder!r}: state.json names {wrong[0] if wrong else 'no file'!r}", "the Arrow files beside it")
    return [Input(fs.join(folder, name), name) for name in names]


def _of_split(files: list[Input], split: str) -> list[Input]:
    words = {file.name: set(re.split(r"[^A-Za-z0-9]+", file.name)) for file in files}
    known = sorted({word for file_words in words.values() for word in file_words & set(SPLITS)})
    if not split and len(known) < 2:
        return files
    name = split if any(split in file_words for file_words in words.values()) else _chosen(files[0].path.rpartition("/")[0], known, split)
    return [file for file in files if name in words[file.name]]


def _chosen(folder: str, splits: list[str], split: str) -> str:
    if split in splits or (not split and len(splits) == 1):
        return split or splits[0]
    problem = f"{folder!r} has the splits {', '.join(splits) or '(none)'}" + (f", no {split!r}" if split else "")
    raise UsageError(problem, "one split", f"--split {splits[0]}" if splits else closest(split, splits))


def _json(path: str) -> dict[str, Any]:
    try:
        content = json.loads(fs.read_text(path))
    except ValueError as error:
        raise TornFileError(f"{path}: not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what pyarrow says of a torn file into our error."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise TornFileError(f"{path}: cut off, or no {path.rpartition('.')[2]} file: {str(error)[:200]}", _EXPECTED) from error


def schema_of(path: str) -> pa.Schema:
    """Return a file's columns.

    Raises:
        TornFileError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    with readable(path):
        if path.endswith(".parquet"):
            with fs.open_read(path) as file:
                return pq.read_schema(file)
        with _mapped(path) as source:
            return _ipc(source).schema


def rows_of(path: str) -> int:
    """Return how many rows can be read of a file: of a torn one, those before the cut."""
    import pyarrow.parquet as pq

    count = 0
    try:
        with readable(path):
            if path.endswith(".parquet"):
                with fs.open_read(path) as file:
                    return int(pq.read_metadata(file).num_rows)
            with _mapped(path) as source:
                for batch in _of_ipc(_ipc(source)):
                    count += batch.num_rows
    except TornFileError:
        pass  # `read` meets it again, where --bad-files decides
    return count


def batches(path: str, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Yield a file's rows, and the range of addresses that the file is mapped to (0, 0 if it is not).

    Columns whose names repeat are called as `unlike` calls them.

    Raises:
        TornFileError: the file is cut off; batches before the cut were yielded.
    """
    import pyarrow.parquet as pq

    with readable(path):
        if path.endswith(".parquet"):
            with fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                native = dict(zip(unlike(names), names, strict=True))
                for batch in parquet.iter_batches(ROWS, columns=list(dict.fromkeys(native[column] for column in columns))):
                    yield _unlike(batch).select(columns), 0, 0
            return
        with _mapped(path) as source:
            mapped = (0, 0)
            if not fs.is_remote(path):
                whole = source.read_buffer()
                mapped = (whole.address, whole.address + whole.size)
                source.seek(0)
            for batch in _of_ipc(_ipc(source)):
                yield _unlike(batch).select(columns), *mapped
            _check_end(source)


def _unlike(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.rename_columns(list(unlike(batch.schema.names)))


@contextmanager
def _mapped(path: str) -> Iterator[Any]:
    import pyarrow as pa

    if fs.is_remote(path):
        with fs.open_read(path) as file:
            yield pa.PythonFile(file)
        return
    with pa.memory_map(path) as source:
        yield source


def _ipc(source: Any) -> Any:
    import pyarrow as pa

    magic = source.read(6)
    source.seek(0)
    return pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)


def _of_ipc(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader


def _check_end(source: Any) -> None:
    """Refuse a stream without the marker that its writer leaves at its end: it was cut between two batches.

    Raises:
        EOFError: the marker is not there.
    """
    source.seek(max(0, source.size() - len(_END)))
    if not source.read(len(_END)).endswith((_END, b"ARROW1")):
        raise EOFError("the stream has no end")


def ranges(column: pa.Array, start: int, stop: int) -> list[tuple[int, int] | None] | None:
    """Return (offset, size) in the mapped file of each value of a binary column, None for nulls.

    Returns None where the values do not lie in the file as they are: it is compressed, or not mapped.
    """
    import numpy as np
    import pyarrow as pa

    wide = {pa.binary(): np.int32, pa.large_binary(): np.int64}.get(column.type)
    if wide is None or not stop:
        return None
    _, ends, data = column.buffers()
    if data is None or not start <= data.address <= data.address + data.size <= stop:
        return None
    edges = np.frombuffer(ends, wide)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    there = column.is_valid().to_pylist()
    places = (edges[:-1] + data.address - start).tolist()
    return [(at, size) if ok else None for at, size, ok in zip(places, np.diff(edges).tolist(), there, strict=True)]
