"""`curate layer`: lay columns beside a build's tars: other captions, scores, whatever a file says of its uids; or CLIP tokens.

The file is CSV, TSV, JSON lines or parquet with a column of uids. It is joined to the build once and kept in shard order
(`shards.layers`), so that readers take it row by row; the tars stay as they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from curate.listing import connect, scalar, sql_text
from curate.tokens import add_tokens
from shards import layers
from shards.clip_bpe import CONTEXT_LENGTH, tokenizer_facts
from shards.core import fs
from shards.core.config import MOST_WORKERS, digest, option
from shards.core.console import Progress, emit, say, table
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError, closest
from shards.core.notices import note
from shards.manifest import NAME, Manifest, read_manifest
from shards.reader import Shard
from shards.uids import uids_in

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
UNCERTAIN = ("caption", "captions", "text")  # columns that stay text even if every value looks like a number


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """Add a layer to a build, or list its layers."""

    action: Literal["add", "tokens", "list"] = option(
        help="add: lay a file's columns beside the build; tokens: lay its captions' CLIP tokens there; list: what lies there",
        positional=True,
    )
    build: str = option(help="the build's folder", positional=True)
    name: str = option("", "the layer's name: its columns are NAME.COLUMN", positional=True)
    file: str = option("", "add: CSV, TSV, JSON lines or parquet, with a column of uids and others", positional=True)
    key: str = option("uid", "the file's column of uids", metavar="COLUMN")
    many: bool = option(False, "a uid may have several rows: every column becomes a list, in the file's order")
    overwrite: bool = option(False, "replace a layer of that name")
    workers: int = option(0, "tokens: worker processes (default: one per core)", least=0, most=MOST_WORKERS)
    engine: str = option("local", "tokens: where tasks run")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print JSON")

    @property
    def folder(self) -> str:
        """The folder that is written; none where layers are listed."""
        return "" if self.action == "list" else self.build.removesuffix(NAME)


def layer(config: LayerConfig) -> int:
    """Run `curate layer add`, `curate layer tokens` or `curate layer list`."""
    manifest = read_manifest(config.build)
    if config.action == "list":
        return _list(manifest, config.json)
    if config.action == "tokens":
        if config.file:
            raise UsageError(f"a file {config.file!r} for a layer of tokens", "BUILD and NAME alone", "curate layer add takes files")
        about = lay_tokens(manifest, config.name, config.workers, config.engine, overwrite=config.overwrite)
    else:
        _check_file(config)
        _check_build(manifest, config.name)
        stated = {"source": fs.sha256(config.file), "key": config.key, "many": config.many, "tars": _tars(manifest)}
        write = lambda: add_layer(manifest, config.name, config.file, config.key, many=config.many)
        about = _lay(manifest, config.name, stated, write, overwrite=config.overwrite)
    emit(about if config.json else f"{config.name}: {', '.join(about['columns'])} for {about['samples']:,} of {manifest.samples:,} samples")
    note(about["unknown"], "[uid of the file is|uids of the file are] not in the build", config.file)
    where = f"null in the columns of {layers.folder_of(manifest.folder, config.name)}"
    note(about["without"], "[sample has|samples have] no row in the layer", where)
    cut = "[caption has|captions have] more tokens than the layer holds: [its end is|their ends are] left out"
    note(about.get("cut", 0), cut, f"{CONTEXT_LENGTH} tokens each")
    return 0


def lay_tokens(manifest: Manifest, name: str, workers: int = 0, engine: str = "local", *, overwrite: bool = False) -> dict[str, Any]:
    """Lay the CLIP tokens of a build's captions beside it, unless they are there, and return what `layer.json` says.

    Args:
        manifest: of a build that owns its tars.
        name: the layer's name.
        workers: processes; 0: one per core.

    Raises:
        UsageError: the name is no layer's or is taken, or the tars are another build's.
        RunError: a shard does not hold what the manifest says.
    """
    _check_build(manifest, name)
    stated = {"tokenizer": tokenizer_facts(), "tars": _tars(manifest)}
    write = lambda: add_tokens(manifest, name, workers or default_workers(), engine)
    return _lay(manifest, name, stated, write, overwrite=overwrite)


def _lay(manifest: Manifest, name: str, stated: Any, write: Callable[[], dict[str, Any]], *, overwrite: bool) -> dict[str, Any]:
    """Write a layer unless one of the same statement is there, `layer.json` last; returns what that says."""
    there = layers.read_layers(manifest.folder).get(name)
    if there is not None and there["digest"] == digest(stated):
        say(f"{name}: this layer is there already, nothing to do")
        return there
    if there is not None and not overwrite:
        raise UsageError(f"{manifest.folder!r} has another layer {name!r}", "another name", "--overwrite replaces it")
    about = write() | {"digest": digest(stated)}
    fs.write_text(fs.join(layers.folder_of(manifest.folder, name), layers.INFO), json.dumps(about, indent=1) + "\n")
    return about


def add_layer(manifest: Manifest, name: str, path: str, key: str, *, many: bool) -> dict[str, Any]:
    """Write a layer's files, all but `layer.json`, and return what that is to say.

    Raises:
        UsageError: the file is of another kind, has no such column, a uid twice, or nothing for any sample.
    """
    import pyarrow.parquet as pq

    folder = layers.folder_of(manifest.folder, name)
    con = connect("")
    columns = _load(con, path, key, many=many)
    con.register("shards_", _uids(manifest))
    con.execute("CREATE TABLE samples AS SELECT * FROM shards_")
    known = scalar(con, "SELECT count(*) FROM samples JOIN given USING (uid)")
    unknown = scalar(con, "SELECT count(*) FROM given ANTI JOIN samples USING (uid)")
    if not known:
        raise UsageError(f"{path}: none of its {unknown:,} uids is in the build", "uids of this build", "shards uids BUILD prints them")
    fs.remove(folder)
    fs.make_dirs(folder)
    chosen = ", ".join(f'g."{c}"' for c in columns)
    rows = con.sql(f"SELECT s.shard, s.uid, {chosen} FROM samples s LEFT JOIN given g USING (uid) ORDER BY s.shard, s.position")
    for number, part in _by_shard(rows.to_arrow_reader(65536)):
        stem = manifest.shards[number].name.removesuffix(".tar")
        with fs.atomic_write(fs.join(folder, f"{stem}.parquet")) as file:
            pq.write_table(part, file, compression="zstd")
    con.close()
    about = {"format": layers.FORMAT, "format_version": layers.FORMAT_VERSION, "columns": columns}
    return about | {"samples": known, "without": manifest.samples - known, "unknown": unknown}


def _load(con: Any, path: str, key: str, *, many: bool) -> list[str]:
    """Read the file into the table `given`, one row per uid, and return its columns besides the uid."""
    import duckdb

    try:
        # Columns whose text must not be taken for numbers are named to the reader, so their names are asked for first.
        names = con.sql(f"SELECT * FROM {_reader(path, ())} LIMIT 0").columns
        reader = _reader(path, [c for c in names if c in (key, *UNCERTAIN)])
        con.execute(f"CREATE TABLE file AS SELECT *, row_number() OVER () AS nth_ FROM {reader}")
    except duckdb.Error as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}", "a header, then a row for each uid") from error
    if key not in names:
        raise UsageError(f"{path}: no column {key!r}", ", ".join(names), closest(key, names) or "--key COLUMN names the uids")
    columns = [c for c in names if c != key]
    if not columns or "uid" in columns:
        raise UsageError(f"{path}: columns {', '.join(names)}", "the uids and at least one other, none of them named uid")
    uid, values = f'lower(trim(CAST("{key}" AS VARCHAR)))', ", ".join(f'"{c}"' for c in columns)
    if many:
        values = ", ".join(f'list("{c}" ORDER BY nth_) AS "{c}"' for c in columns)
        con.execute(f"CREATE TABLE given AS SELECT {uid} AS uid, {values} FROM file GROUP BY 1")
        return columns
    con.execute(f"CREATE TABLE given AS SELECT {uid} AS uid, {values} FROM file")
    twice = con.execute("SELECT uid, count(*) FROM given GROUP BY 1 HAVING count(*) > 1 ORDER BY uid LIMIT 1").fetchall()
    if twice:
        raise UsageError(f"{path}: uid {twice[0][0]} has {twice[0][1]} rows", "one row for each uid", "--many keeps them all, as lists")
    return columns


def _reader(path: str, text: Sequence[str]) -> str:
    """Return the table function that reads a file by its name's ending."""
    lower = path.lower().removesuffix(".gz")
    if lower.endswith(".parquet"):
        return f"read_parquet({sql_text(path)})"
    types = ", ".join(f"{sql_text(c)}: 'VARCHAR'" for c in text)
    if lower.endswith((".jsonl", ".ndjson", ".json")):
        return f"read_json({sql_text(path)}, format = 'auto', sample_size = -1)"
    delimiter = "delim = '\\t', quote = ''" if lower.endswith(".tsv") else "delim = ',', quote = '\"'"
    kinds = "auto_type_candidates = ['BIGINT', 'DOUBLE', 'VARCHAR'], sample_size = -1"
    return f"read_csv({sql_text(path)}, header = true, {delimiter}, {kinds}" + (f", types = {{{types}}})" if types else ")")


def _uids(manifest: Manifest) -> pa.Table:
    """Return shard, position in the tar and uid of all samples, those out of use too: a layer's rows are the tar's."""
    import pyarrow as pa

    tables = []
    with Progress("uids", len(manifest.shards), "shards") as progress:
        for number, entry in enumerate(manifest.shards):
            with Shard(manifest, dataclasses.replace(entry, use=None)) as shard:
                uids = uids_in(shard)
            used = set(entry.positions().tolist())
            uids_in_use = [uid if i in used else "" for i, uid in enumerate(uids)]  # what was taken down gets no row of its own again
            positions = pa.array(range(len(uids)), pa.int32())
            tables.append(
                pa.table({"shard": pa.repeat(pa.scalar(number, pa.int32()), len(uids)), "position": positions, "uid": uids_in_use})
            )
            progress.add()
    return pa.concat_tables(tables)


def _by_shard(batches: Any) -> Iterator[tuple[int, pa.Table]]:
    """Cut a stream of rows in shard order into (number of the shard, its rows without that number)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pending: list[pa.Table] = []
    current = -1
    for batch in batches:
        piece = pa.Table.from_batches([batch])
        for number in pc.unique(piece["shard"]).to_pylist():
            if number != current and pending:
                yield current, pa.concat_tables(pending).combine_chunks()
                pending = []
            current = number
            pending.append(piece.filter(pc.equal(piece["shard"], number)).drop_columns(["shard"]))
    if pending:
        yield current, pa.concat_tables(pending).combine_chunks()


def _tars(manifest: Manifest) -> list[str]:
    return [entry.sha256 for entry in manifest.shards]


def _check_file(config: LayerConfig) -> None:
    if not config.name or not config.file:
        raise UsageError("a layer needs a name and a file", "curate layer add BUILD NAME FILE")
    layers.check_name(config.name)
    if not fs.exists(config.file):
        raise UsageError(f"no file at {config.file!r}")
    if not config.file.lower().endswith(_KINDS):
        raise UsageError(f"{config.file}: of which kind?", ", ".join(_KINDS))


def _check_build(manifest: Manifest, name: str) -> None:
    if not all(entry.own for entry in manifest.shards):
        raise UsageError(f"the tars of {manifest.folder!r} lie in other folders", "the build that owns them; its subsets see its layers")
    layers.check_name(name, layers.taken_names(manifest))


def _list(manifest: Manifest, as_json: bool) -> int:
    by_name = {
        name: about
        for folder in dict.fromkeys(map(manifest.folder_of, manifest.shards))
        for name, about in layers.read_layers(folder).items()
    }
    if as_json:
        emit(by_name)
    elif by_name:
        rows = [(name, ", ".join(a["columns"]), a["samples"], a["without"], a["unknown"]) for name, a in by_name.items()]
        emit(table(("layer", "columns", "samples", "without", "uids not in the build"), rows))
    else:
        say(f"{manifest.folder}: no layers")
    return 0
