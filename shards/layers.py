"""Layers: what is learned about samples after the build (other captions, scores), beside the tars and never in them.

`layers/NAME/NNNNN.parquet` has one row per sample of `NNNNN.tar`, in its order, with the uid and the layer's columns;
null where nothing is known of a sample. `layer.json`, written last, says that the layer is whole. Wherever a column of the
sidecar can be named, `NAME.column` names one of a layer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from shards.clip_bpe import CONTEXT_LENGTH, tokenizer_facts
from shards.core import fs
from shards.core.config import digest
from shards.core.errors import RunError, UsageError, closest
from shards.manifest import Manifest, ShardEntry

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, INFO = "layers", "layer.json"
FORMAT, FORMAT_VERSION = "provender-layer", 1
NAME_RULE = re.compile(r"[a-z][a-z0-9_]{0,62}")  # of a layer: part of a column's name, and of a folder's
TOKENS = "tokens"  # the column of a layer that `curate layer tokens` writes


def check_name(name: str, taken: Iterable[str] = ()) -> None:
    """See that a name is a layer's: columns are named `NAME.COLUMN`, as those of sources and filters are.

    Args:
        name: the layer's.
        taken: names of the build's sources and filters that have columns.

    Raises:
        UsageError: it is none, or is taken.
    """
    if not NAME_RULE.fullmatch(name):
        raise UsageError(f"layer name {name!r}", "lower-case letters, digits and '_', a letter first")
    if name in taken:
        raise UsageError(f"layer name {name!r}", f"a name that no source or filter of this build has ({', '.join(sorted(taken))})")


def taken_names(manifest: Manifest) -> set[str]:
    """Return the names of sources and filters that have columns in a build's sidecars; none where it has no sidecars."""
    import pyarrow.parquet as pq

    first = manifest.shards[0]
    path = manifest.path_of(first, ".parquet")
    if not first.sidecar_sha256 or not fs.exists(path):
        return set()
    with fs.open_read(path) as file:
        return prefixes(pq.read_schema(file).names)


def prefixes(columns: Iterable[str]) -> set[str]:
    """Return what stands before the first dot of columns that have one."""
    return {column.partition(".")[0] for column in columns if "." in column}


def folder_of(folder: str, layer: str) -> str:
    """Return where a layer of the tars in a folder lies."""
    return fs.join(folder, FOLDER, layer)


def read_layers(folder: str) -> dict[str, dict[str, Any]]:
    """Return the whole layers of the tars in a folder, by name, each with what its layer.json says."""
    found: dict[str, dict[str, Any]] = {}
    if not fs.is_dir(fs.join(folder, FOLDER)):
        return found
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


def first_shards(manifest: Manifest) -> dict[str, ShardEntry]:
    """Return a shard of each folder that the tars, and so their layers, lie in, by folder: the first of the manifest there."""
    return {manifest.folder_of(entry): entry for entry in reversed(manifest.shards)}


def check_tokens(manifest: Manifest, layer: str, length: int) -> None:
    """See that a layer's tokens are what encoding the captions would give.

    Args:
        length: how many ids of a caption are asked for, at least 2.

    Raises:
        UsageError: there is no such layer, another tokenizer made it, or it has fewer ids of a caption.
    """
    ours = tokenizer_facts()
    for folder, entry in first_shards(manifest).items():
        tokens_of(manifest, entry, layer)
        theirs = read_layers(folder)[layer].get("tokenizer", {})
        differing = [key for key, value in ours.items() if theirs.get(key) != value]
        if differing:
            stated = ", ".join(f"{key} {theirs.get(key)}" for key in differing)
            allowed = ", ".join(f"{key} {ours[key]}" for key in differing)
            raise UsageError(f"{folder}: tokenizer of the layer {layer!r}: {stated}", allowed, f"curate layer tokens {folder} NAME")
    if length > CONTEXT_LENGTH:
        raise UsageError(f"a context length of {length} from the layer {layer!r}", f"{CONTEXT_LENGTH} or less: it has no more ids")


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
