"""Pass 1, measure: open every image once and write one row per input sample.

A task is a row group of records; its part is keyed by content (the records, the options that shape columns, the
versions of the code that fills them), so another recipe, seed or size reuses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from curate.captions import clean, template
from curate.captions.clean import Clean
from curate.config import FILTERS, SOURCES, filter_options
from curate.filters.base import Facts
from curate.hidden import DIGEST as HIDDEN_KEY
from curate.hidden import filters_digest
from curate.images import GRAY, VERSION, ImagePolicy, ImageRefusedError, open_image
from curate.listing import appended
from curate.recipe import Recipe, SourceSpec, content_of
from curate.sources.base import Pointer
from curate.table import POINTER, joined_digest, measured_schema, rows_digest, table_sha256
from shards import phash
from shards.core import fs, registry
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.plugins import PluginError
from shards.decoding import MAX_PIXELS
from shards.phash import LOW_INFORMATION
from shards.sample import uid_of
from shards.tables.values import storable

MAX_BYTES = 512 * 2**20
DIGEST_KEY = b"rows"
# What a read says of a file that is not there, or is none, whoever looks.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL}


@dataclasses.dataclass(frozen=True)
class MeasureTask:
    """Rows [start, stop) of one row group of a record file, measured for one source of a recipe."""

    records: str
    group: int
    start: int
    stop: int
    spec: SourceSpec
    clean: Clean | bool
    policy: ImagePolicy
    hash: str
    filters: tuple[dict[str, Any], ...]
    folder: str
    order: int
    patience: float = 120.0  # seconds that one sample may take
    hidden: str = ""  # digest of the filters whose samples must not be seen


@dataclasses.dataclass(frozen=True)
class Part:
    """A measured part on disk: its place in the table, its file, the `rows_digest` of what it says."""

    order: tuple[int, int]
    path: str
    digest: str
    rows: int


def columns_of(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """Return the columns that plug-ins add to the table: `<reader>.<name>` of sources, `<filter>.<name>` of filters."""
    native = dict(column for spec in recipe.sources for column in native_columns(spec))
    return (*native.items(), *filter_columns(recipe.filters))


def native_columns(spec: SourceSpec) -> tuple[tuple[str, str], ...]:
    """Return the native columns of a source that stay columns, as `<reader>.<name>`: its reader's own, and `keep_columns` as text."""
    by_reader = _own_columns(spec)
    kept = {name: "string" for name in spec.keep_columns if name not in by_reader}
    return tuple((f"{spec.reader}.{name}", kind) for name, kind in {**by_reader, **kept}.items())


def _own_columns(spec: SourceSpec) -> dict[str, str]:
    return dict(getattr(registry.get(SOURCES, spec.reader), "COLUMNS", ()))


def filter_columns(filters: tuple[dict[str, Any], ...]) -> tuple[tuple[str, str], ...]:
    """Return the columns that the filters of a recipe measure, as `<filter>.<name>`."""
    return tuple((f"{f['name']}.{name}", kind) for f in filters for name, kind in registry.get(FILTERS, f["name"]).COLUMNS)


def measure_key(task: MeasureTask) -> list[Any]:
    """Return everything besides the records that shapes a measured row."""
    return [
        task.spec.name, task.spec.captions, task.spec.empty, list(task.spec.template), [clean.VERSION, task.clean] if task.clean else None,
        native_columns(task.spec), POINTER, VERSION, phash.VERSIONS[task.hash], MAX_PIXELS, task.policy,
        [_shaping(spec) for spec in task.filters], DIGEST_KEY.decode(),
    ]  # fmt: skip


def _shaping(spec: dict[str, Any]) -> list[Any]:
    """Return what of a filter shapes its columns."""
    module, options = registry.get(FILTERS, spec["name"]), filter_options(spec)
    beside = [fs.sha256(path) for path in module.files(options)] if hasattr(module, "files") else []
    return [spec["name"], module.VERSION, [[name, content_of(getattr(options, name))] for name in module.MEASURE], beside]


_measurers: dict[str, Callable[[Facts], tuple[Any, ...]]] = {}


def _measurer(spec: dict[str, Any]) -> Callable[[Facts], tuple[Any, ...]]:
    """Return what measures a filter's columns: one for all tasks of a worker, since making one reads whole word lists."""
    key = digest(_shaping(spec))
    if key not in _measurers:
        _measurers[key] = registry.get(FILTERS, spec["name"]).measurer(filter_options(spec))
    return _measurers[key]


def measure(recipe: Recipe, listed: list[tuple[SourceSpec, list[str]]], work: str, workers: int, engine: str) -> list[Part]:
    """Measure all records of all sources; returns the parts in table order. What is on disk already is not redone."""
    folder = fs.join(work, "measured")
    fs.make_dirs(folder)
    tasks = list(_tasks(recipe, listed, folder))
    total = sum(t.stop - t.start for t in tasks)
    parts: dict[int, list[Part]] = {}
    with Progress("measure", total) as progress:
        for outcome in map_unordered(measure_part, tasks, workers=min(workers, max(1, len(tasks))), engine=engine, split=pieces):
            task = outcome.spec
            part = outcome.result if isinstance(outcome, Done) else quarantine(task, outcome.reason)
            parts.setdefault(task.order, []).append(part)
            progress.add(part.rows)
    return [part for order in sorted(parts) for part in sorted(parts[order], key=lambda p: p.order)]


def _tasks(recipe: Recipe, listed: list[tuple[SourceSpec, list[str]]], folder: str) -> Iterator[MeasureTask]:
    import pyarrow.parquet as pq

    order = 0
    kind, hidden = hash_kind(recipe), filters_digest(recipe.filters)
    for spec, files in listed:
        for path in files:
            with fs.open_read(path) as file:
                metadata = pq.ParquetFile(file).metadata
                sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            for group, rows in enumerate(sizes):
                if rows:
                    task = MeasureTask(path, group, 0, rows, spec, recipe.clean, recipe.image_policy, kind, recipe.filters, folder, order)
                    yield dataclasses.replace(task, hidden=hidden)
                    order += 1


def pieces(task: MeasureTask) -> list[MeasureTask]:
    """Divide a task whose worker died into up to eight; a single row is not divided. Few levels: a hang costs its patience at each."""
    rows = task.stop - task.start
    cuts = [task.start + rows * i // min(8, rows) for i in range(min(8, rows) + 1)]
    return [dataclasses.replace(task, start=a, stop=b) for a, b in itertools.pairwise(cuts)] if rows > 1 else []


def measure_part(task: MeasureTask, killed: str = "") -> Part:
    """Measure one task's rows unless its part is there already; runs in a worker.

    `killed` says why a row that kills its worker is written down unopened.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fs.open_read(task.records) as file:
        records = pq.ParquetFile(file).read_row_group(task.group).slice(task.start, task.stop - task.start)
    key = digest([table_sha256(records), measure_key(task), killed])
    stem = fs.join(task.folder, key)
    order = (task.order, task.start)
    if fs.exists(stem + ".parquet"):
        with fs.open_read(stem + ".parquet") as file:
            parquet = pq.ParquetFile(file)
            noted = parquet.schema_arrow.metadata or {}
            # Rows that other lists emptied are measured anew: these lists may let them stand.
            if noted.get(HIDDEN_KEY, task.hidden.encode()) == task.hidden.encode():
                return Part(order, stem + ".parquet", noted[DIGEST_KEY].decode(), parquet.metadata.num_rows)
    with appended(stem + ".blob") as keep, _watch(task.patience) as watch:
        measured = _Measurer(task, keep, killed)
        rows = [row for record in records.to_pylist() if watch() for row in measured.rows(record)]
    schema = measured_schema((*native_columns(task.spec), *filter_columns(task.filters)))
    table = pa.Table.from_pylist(rows, schema=schema)
    found_digest = rows_digest(table.drop_columns([name for name, _ in POINTER]))
    with fs.atomic_write(stem + ".parquet") as file:
        pq.write_table(table.replace_schema_metadata({DIGEST_KEY: found_digest.encode()}), file, compression="zstd")
    return Part(order, stem + ".parquet", found_digest, len(rows))


def describe(task: MeasureTask, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the measured rows of records as far as their words go; no image is opened."""
    measured = _Measurer(task, None, "unopened")
    for record in records:
        for row in measured.rows(record):
            yield row | {"status": record["status"], "detail": record["detail"]}


def _kept(value: Any) -> str | None:
    """Return a native value as the text that a kept column holds; None where there is none."""
    return None if value is None else storable(value)


@contextlib.contextmanager
def _watch(seconds: float) -> Iterator[Callable[[], bool]]:
    """Yield a function to be called before each sample; a worker that does not call it again within `seconds` is ended by SIGALRM.

    A decoder that hangs is inside a library, where nothing but a signal reaches it. Only workers are ended so.
    """
    worker = multiprocessing.parent_process() is not None

    def watch() -> bool:
        if worker:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        return True

    try:
        yield watch
    finally:
        if worker:
            signal.setitimer(signal.ITIMER_REAL, 0)


def quarantine(task: MeasureTask, reason: str) -> Part:
    """Write down the one sample that killed its worker, without opening it again."""
    hung = reason.endswith(signal.SIGALRM.name)
    return measure_part(task, killed=f"took longer than {task.patience:g} s" if hung else reason)


class _Measurer:
    """Turns records into measured rows; `keep` stores an encoded image and says where it lies."""

    def __init__(self, task: MeasureTask, keep: Callable[[bytes], Pointer] | None, killed: str) -> None:
        self.task, self.keep, self.killed = task, keep, killed
        self.clean = clean.cleaner(task.clean if isinstance(task.clean, Clean) else Clean() if task.clean else None)
        self.native = [(name, name.partition(".")[2]) for name, _ in native_columns(task.spec)]
        self.kept = set(task.spec.keep_columns) - _own_columns(task.spec).keys()
        self.filters: list[tuple[str, tuple[tuple[str, str], ...], Callable[[Facts], tuple[Any, ...]]]] = []
        for spec in task.filters:
            module = registry.get(FILTERS, spec["name"])
            if module.COLUMNS:
                self.filters.append((spec["name"], module.COLUMNS, _measurer(spec)))

    def rows(self, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the measured row of a record, or one per caption where the recipe says `each`."""
        source, source_id = self.task.spec.name, record["source_id"]
        image_id = uid_of(source, source_id)
        raws, cleaned = self._captions(record, image_id)
        image, content = self._image(record)
        values = json.loads(record["meta"]) if self.native and record["meta"] else {}
        if self.task.spec.template:
            values["template"] = template.choose(self.task.spec.template, image_id)
        common = {
            **{column: _kept(values.get(name)) if name in self.kept else values.get(name) for column, name in self.native},
            "image_id": image_id, "source": source, "input": record["input"], "row": record["row"],
            "url": record["urls"][0] if record["urls"] else "", "class_index": record["class_index"],
            "class_name": record["class_name"], "licence": record["licence"], "meta": record["meta"], **image,
        }  # fmt: skip
        if self.task.spec.captions == "each" and len(cleaned) > 1:
            for k, (raw, text) in enumerate(zip(raws, cleaned, strict=True)):
                child = f"{source_id}#{k}"
                yield self._finish(common | {"uid": uid_of(source, child), "source_id": child}, raw, text, [text], content)
        else:
            chosen = _choose(self.task.spec.captions, cleaned, image_id)
            first_raw = record["captions"][0] if record["captions"] else ""
            raw, text = (raws[chosen], cleaned[chosen]) if cleaned else (first_raw, "")
            yield self._finish(common | {"uid": image_id, "source_id": source_id}, raw, text, cleaned, content)

    def _captions(self, record: dict[str, Any], uid: str) -> tuple[list[str], list[str]]:
        """Return the raw and the clean captions that are not empty, each clean one once; none at all where the recipe
        drops samples whose first caption is emptied."""
        captions = record["captions"]
        if self.task.spec.template and record["class_name"]:
            captions = [template.fill(self.task.spec.template, record["class_name"], uid)]
        raws: list[str] = []
        texts: list[str] = []
        for raw in captions:
            text = self.clean(raw)
            if not text and not texts and self.task.spec.empty == "drop":
                return [], []
            if text and text not in texts:
                raws.append(raw)
                texts.append(text)
        return raws, texts

    def _image(self, record: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the image columns with the pointer, and the original bytes; a refused image keeps the pointer to its original bytes."""
        import xxhash

        sizes = dict.fromkeys(("width", "height", "original_width", "original_height"), 0)
        row: dict[str, Any] = {
            **sizes,
            "original_format": "",
            "bytes": 0,
            "sha256": "",
            "original_sha256": "",
            "phash": 0,
            "information": 0.0,
            "colours": "",
            "colour": 0.0,
            "frames": 0,
            "xxh3": 0,
        }
        row |= {k: record[k] for k in ("status", "detail", "path", "offset", "size")}
        if self.killed:
            return row | {"status": "worker_killed", "detail": self.killed}, b""
        if row["status"] or not row["path"]:
            return row | {"status": row["status"] or "image_missing"}, b""
        try:
            content = self._read(row)
        except OSError as error:
            if error.errno not in _ABSENT and not isinstance(error, FileNotFoundError):
                raise  # a disk or a mount that fails is no property of the sample: it must not become one
            return row | {"status": "image_missing", "detail": error.strerror or type(error).__name__}, b""
        except ImageRefusedError as refused:
            return row | {"status": refused.reason, "detail": refused.detail}, b""
        row |= {"size": len(content), "original_sha256": hashlib.sha256(content).hexdigest()}
        try:
            opened = open_image(content, self.task.policy, self.task.hash)
        except ImageRefusedError as refused:
            return row | {"status": refused.reason, "detail": refused.detail}, content
        if opened.encoded is not None:
            assert self.keep is not None
            row |= vars(self.keep(opened.encoded))
        same = opened.encoded is None
        row["sha256"] = row["original_sha256"] if same else hashlib.sha256(opened.encoded or b"").hexdigest()
        row |= {"bytes": row["size"], "xxh3": xxhash.xxh3_64_intdigest(opened.encoded or content)}
        row |= {"detail": opened.warning}  # of a picture that is kept: what was passed over
        return row | {k: v for k, v in vars(opened).items() if k not in ("encoded", "warning")}, content

    @staticmethod
    def _read(row: dict[str, Any]) -> bytes:
        size = row["size"] if row["size"] >= 0 else fs.size(row["path"])
        if size > MAX_BYTES:
            raise ImageRefusedError("too_large", f"{size:,} bytes; at most {MAX_BYTES:,}")
        content = fs.read_range(row["path"], row["offset"], size)
        if len(content) != size:
            raise ImageRefusedError("undecodable", f"{len(content)} of {size} bytes are there")
        return content

    def _finish(self, row: dict[str, Any], raw: str, text: str, captions: list[str], content: bytes) -> dict[str, Any]:
        row |= {"caption_raw": raw, "caption": text, "captions": captions}
        facts = Facts(
            row["source"], text, tuple(captions), raw, row["width"], row["height"], row["original_width"], row["original_height"],
            row["original_format"], row["bytes"], row["class_name"], row["url"], content,
        )  # fmt: skip
        for name, columns, values_of in self.filters:
            try:
                values = values_of(facts)
            except PluginError as error:
                raise error.at(f"for the sample {row['source_id']!r} of {row['source']}") from error
            row |= {f"{name}.{column}": value for (column, _), value in zip(columns, values, strict=True)}
        return row


def _choose(policy: str, captions: list[str], uid: str) -> int:
    """Return which caption a sample gets."""
    if policy == "longest" and captions:
        return max(range(len(captions)), key=lambda i: (len(captions[i]), -i))
    if policy == "sampled" and captions:
        return int.from_bytes(hashlib.sha256(f"caption:{uid}".encode()).digest()[:8], "big") % len(captions)
    return 0


def table_digest(parts: list[Part]) -> str:
    """Return the digest of the whole measured table: what its rows say in their order, not where their bytes lie, nor how
    they were cut into parts."""
    return digest([sum(part.rows for part in parts), joined_digest((part.digest, part.rows) for part in parts)])


def low_information() -> str:
    """Return the SQL condition for an image whose hash says too little for a near match."""
    return f"information < {LOW_INFORMATION}"


def is_gray() -> str:
    """Return the SQL condition for an image without colours."""
    return f"colour < {GRAY}"


def hash_kind(recipe: Recipe) -> str:
    """Return the kind of pHash of a recipe: the default one where no near duplicates are looked for."""
    return recipe.dedup.near.hash if recipe.dedup.near else phash.DEFAULT


def codecs(recipe: Recipe) -> dict[str, str]:
    """Return the versions of what decodes and hashes, for the manifest."""
    import numpy
    import PIL
    import scipy
    import simplejpeg
    from PIL import features

    return {
        "pillow": PIL.__version__,
        "libjpeg-turbo": str(features.version_feature("libjpeg_turbo")),
        "simplejpeg": simplejpeg.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "phash": phash.VERSIONS[hash_kind(recipe)],
    }
