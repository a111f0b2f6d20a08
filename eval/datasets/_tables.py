"""Tables with images in them, as Hugging Face keeps them: folders of `save_to_disk`, and parquet files of the hub.

A parquet file is compressed, so an image in it is no byte range. When the first image is asked for, all of them are copied
once into a temporary file that has no name and is gone with the process; from there each is read by its place.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import RunError, TornFileError, UsageError
from shards.folders import is_visible

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIX = ".parquet"
_LOOKED_INTO = 16  # subfolders that are looked into for parquet files: the hub has `data/`, or one folder for each configuration
_ROWS = 64  # images that are in memory together


def is_saved(path: str) -> bool:
    """Return whether a path is a folder that `save_to_disk` wrote."""
    return any(fs.exists(fs.join(path, name)) for name in ("state.json", "dataset_dict.json"))


def files_of(path: str) -> list[str]:
    """Return the parquet files that a path means: itself, those of a pattern, or those in a folder and its subfolders, sorted."""
    if path.endswith(_SUFFIX):
        try:
            return [file for file in fs.find(path) if file.endswith(_SUFFIX)]
        except UsageError:
            return []
    if not fs.is_dir(path):
        return []
    names = [name for name in fs.names(path) if is_visible(name)]
    found = [fs.join(path, name) for name in names if name.endswith(_SUFFIX)]
    folders = [fs.join(path, name) for name in names if "." not in name and fs.is_dir(fs.join(path, name))]
    for folder in folders[:_LOOKED_INTO]:
        found += [fs.join(folder, name) for name in fs.names(folder) if name.endswith(_SUFFIX) and is_visible(name)]
    return sorted(found)


def has_images(path: str) -> bool:
    """Return whether a parquet file has a column of bytes; one that cannot be read is taken to have: who loads it tells why."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.types as t

    try:
        with fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
            kinds = parquet.schema_arrow.types
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return True
    inner = [kind.field("bytes").type if t.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind for kind in kinds]
    return any(t.is_binary(kind) or t.is_large_binary(kind) for kind in inner)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what pyarrow and `datasets` say of a torn file into our error.

    Raises:
        TornFileError: a file is cut off, absent, or of another kind.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise TornFileError(f"{path}: cut off, or no table: {why}", "whole files, as `datasets` or the hub wrote them") from error


class Parquet:
    """Parquet files of one schema as rows; images are copied out once, at the first read."""

    def __init__(self, files: Sequence[str]) -> None:
        """Read the files' schemas and numbers of rows.

        Raises:
            TornFileError: a file cannot be read.
            UsageError: the files have different columns.
        """
        import pyarrow.parquet as pq

        self.files = tuple(files)
        self.rows: list[int] = []
        self.schema: pa.Schema = None
        for path in files:
            with readable(path), fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
                self.rows.append(parquet.metadata.num_rows)
                schema = parquet.schema_arrow
            if self.schema is None:
                self.schema = schema
            elif schema.names != self.schema.names:
                found = f"{path}: columns {', '.join(schema.names)}; {files[0]} has {', '.join(self.schema.names)}"
                raise UsageError(found, "files of one data set", "--data with a pattern in quotes that names the files of one")
        self._lock = threading.Lock()
        self._places: list[tuple[int, int]] = []
        self._copy: IO[bytes] | None = None

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """What `datasets` notes of the columns; empty in a file of other origin."""
        try:
            found = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        except (ValueError, KeyError, TypeError):
            return {}
        return {name: value for name, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}

    def values(self, column: str) -> list[Any]:
        """Return a column of all files."""
        import pyarrow.parquet as pq

        found: list[Any] = []
        for path in self.files:
            with readable(path), fs.open_read(path) as file:
                found += pq.read_table(file, columns=[column])[column].to_pylist()
        return found

    def image(self, column: str, row: int) -> bytes:
        """Return the image of a row.

        Raises:
            RunError: the row has none, or the copy ends too early.
            TornFileError: a file cannot be read.
        """
        with self._lock:
            if self._copy is None:
                self._copy = self._copied(column)
        offset, size = self._places[row]
        if not size:
            raise RunError(f"row {row} has no image")
        content = os.pread(self._copy.fileno(), size, offset)
        if len(content) != size:
            raise RunError(f"row {row}: {len(content)} of {size} bytes")
        return content

    def _copied(self, column: str) -> IO[bytes]:
        copy = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this object
        weakref.finalize(self, copy.close)
        offset = 0
        for number, cell in enumerate(self._cells(column)):
            content = _bytes_of(cell, self.files[0], number)
            copy.write(content)
            self._places.append((offset, len(content)))
            offset += len(content)
        copy.flush()
        return copy

    def _cells(self, column: str) -> Iterator[Any]:
        import pyarrow.parquet as pq

        for path in self.files:
            with readable(path), fs.open_read(path) as file, pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_ROWS, columns=[column]):
                    yield from batch.column(0).to_pylist()


def _bytes_of(cell: Any, table: str, row: int) -> bytes:
    """Return a cell's image: its bytes, or those of the file beside the table that it names; nothing where it has neither."""
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, dict):
        return b""
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    name = cell.get("path") or ""
    path = fs.join(table.rpartition("/")[0] or ".", name)
    within = name and "://" not in name and ".." not in name.split("/") and not name.startswith("/")
    return fs.read_bytes(path) if within and fs.exists(path) else b""
