"""Layers: what is learned about samples after the build (other captions, scores), beside the tars and never in them.

`layers/NAME/NNNNN.parquet` has one row per sample of `NNNNN.tar`, in its order, with the uid and the layer's columns;
null where nothing is known of a sample. `layer.json`, written last, says that the layer is whole. Wherever a column of the
sidecar can be named, `NAME.column` names one of a layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.config import digest
from shards.core.errors import RunError, UsageError, closest
from shards.manifest import Manifest, ShardEntry

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, INFO = "layers", "layer.json"
FORMAT, FORMAT_VERSION = "provender-layer", 1
TOKENS = "tokens"  # the column of a layer that `curate layer tokens` writes


def folder_of(folder: str, layer: str) -> str:
    """Return where a layer of the tars in a folder lies."""
    return fs.join(folder, FOLDER, layer)


def read_layers(folder: str) -> dict[str, dict[str, Any]]:
    """Return the whole layers of the tars in a folder, by name, each with what its layer.json says."""
    found = {}
    for name in fs.names(fs.join(folder, FOLDER)):
        path = fs.join(folder_of(folder, name), INFO)
        if fs.exists(path):
            found[name] = json.loads(fs.read_text(path))
    return found


def columns_of(folder: str) -> dict[str, pa.DataType]:
    """Return the columns of all layers of the tars in a folder: {`LAYER.column`: type}."""
    return {f"{layer}.{f.name}": f.type for layer in read_layers(folder) for f in _schema(folder, layer) if f.name != "uid"}


def read_column(manifest: Manifest, entry: ShardEntry, name: str) -> pa.ChunkedArray | pa.Array | None:
    """Return one layer column (`LAYER.column`) of a whole shard, null where the layer has no file for it; None if there is none.

    Raises:
        RunError: the layer's file is of another shard than the manifest's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    layer, _, column = name.partition(".")
    folder = manifest.folder_of(entry)
    if not column or not fs.exists(fs.join(folder_of(folder, layer), INFO)):
        return None
    schema = _schema(folder, layer)
    if column not in schema.names or column == "uid":
        return None
    path = path_of(manifest, entry, layer)
    if not fs.exists(path):
        return pa.nulls(entry.samples, schema.field(column).type)
    with fs.open_read(path) as file:
        found = pq.read_table(file, columns=[column])
    if found.num_rows != entry.samples:
        raise RunError(f"{path}: {found.num_rows} rows", f"{entry.samples}, one per sample of {entry.name}", "curate layer add --overwrite")
    return found[column]


def captions_of(manifest: Manifest, entry: ShardEntry, layer: str) -> pa.Array:
    """Return the captions that a layer has for each sample of a whole shard, as lists; null or empty where it has none.

    Raises:
        UsageError: there is no such layer, or it has no column `captions` or `caption`.
    """
    import pyarrow as pa

    for name in ("captions", "caption"):
        found = read_column(manifest, entry, f"{layer}.{name}")
        if found is not None:
            rows = found.to_pylist()
            texts = [[row] if isinstance(row, str) else row for row in rows]
            return pa.array([[t for t in row if t] if row else None for row in texts], pa.list_(pa.string()))
    known = [name for name, about in read_layers(manifest.folder_of(entry)).items() if {"caption", "captions"} & set(about["columns"])]
    raise UsageError(f"{manifest.folder}: no captions in a layer {layer!r}", ", ".join(known) or "none has any", closest(layer, known))


def tokens_of(manifest: Manifest, entry: ShardEntry, layer: str) -> pa.ListArray:
    """Return the CLIP tokens that a layer has for each sample of a whole shard, list<uint16>.

    A list holds the start token, the caption's ids and the end token, cut to 77, without padding; null where there is no caption.

    Raises:
        UsageError: there is no such layer, or it has no tokens.
        RunError: the layer's file is of another shard than the manifest's.
    """
    import pyarrow as pa

    column = read_column(manifest, entry, f"{layer}.{TOKENS}")
    if column is not None and pa.types.is_list(column.type) and column.type.value_type == pa.uint16():
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    known = [name for name, about in read_layers(manifest.folder_of(entry)).items() if "tokenizer" in about]
    advice = closest(layer, known) or f"curate layer tokens {manifest.folder_of(entry)} NAME"
    raise UsageError(f"{manifest.folder}: no tokens in a layer {layer!r}", ", ".join(known) or "none has any", advice)


def digest_of(manifest: Manifest, layer: str) -> str:
    """Return what tells one content of a layer from another; its parts lie beside the tars, maybe in several folders."""
    folders = sorted({manifest.folder_of(entry) for entry in manifest.shards})
    return digest([read_layers(folder).get(layer, {}).get("digest") for folder in folders])


def path_of(manifest: Manifest, entry: ShardEntry, layer: str) -> str:
    """Return the file that holds a shard's rows of a layer."""
    return fs.join(folder_of(manifest.folder_of(entry), layer), entry.name.removesuffix(".tar") + ".parquet")


def copy_layers(pieces: Sequence[tuple[Manifest, ShardEntry]], folder: str, name: str) -> None:
    """Write the layers' rows of the samples in use of some shards as those of the shard `name` in another folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sources = dict.fromkeys(manifest.folder_of(entry) for manifest, entry in pieces)
    for layer in dict.fromkeys(layer for source in sources for layer in read_layers(source)):
        tables = [_rows(manifest, entry, layer) for manifest, entry in pieces]
        table = pa.concat_tables(tables, promote_options="default")
        fs.make_dirs(folder_of(folder, layer))
        with fs.atomic_write(fs.join(folder_of(folder, layer), f"{name}.parquet")) as file:
            pq.write_table(table, file, compression="zstd")


def copy_infos(sources: Sequence[str], folder: str) -> None:
    """Let the layers that `copy_layers` wrote into a folder be whole: the first source of each states it."""
    for source in reversed(sources):
        for layer in read_layers(source):
            if fs.exists(folder_of(folder, layer)):
                fs.write_bytes(fs.join(folder_of(folder, layer), INFO), fs.read_bytes(fs.join(folder_of(source, layer), INFO)))


def _rows(manifest: Manifest, entry: ShardEntry, layer: str) -> pa.Table:
    """Return a layer's rows of the samples in use, at least their uids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path_of(manifest, entry, layer)
    if fs.exists(path):
        with fs.open_read(path) as file:
            return pq.read_table(file).take(pa.array(entry.positions()))
    return pa.table({"uid": pa.nulls(entry.used, pa.string())})


def _schema(folder: str, layer: str) -> pa.Schema:
    import pyarrow.parquet as pq

    inside = folder_of(folder, layer)
    first = next(name for name in fs.names(inside) if name.endswith(".parquet"))
    with fs.open_read(fs.join(inside, first)) as file:
        return pq.read_schema(file)
