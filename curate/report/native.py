"""Native metadata as the subject of a report: captions alone, as default cleaning leaves them, read by a source's reader."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.captions import clean
from curate.config import RECIPES, SOURCES, in_full, source_options, source_values
from curate.images import ImagePolicy
from curate.listing import identity, record_row
from curate.measure import MeasureTask, describe
from curate.recipe import SourceSpec
from curate.report import concepts, stats
from curate.report.draw import MOST
from curate.report.stats.files import WARM
from curate.sources.base import Input
from shards.core import fs, recipes, registry
from shards.core.config import digest, dump, load
from shards.core.console import Progress, warn
from shards.core.engine import Done, map_unordered, prepare
from shards.core.errors import RunError, TornFileError, UsageError
from shards.sample import rank_key

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
BATCH = 10_000  # records that are counted together
TABLES = 16  # counted, before they are added up
SAMPLED = ("source", "uid", "caption")


@dataclass(frozen=True)
class CountTask:
    """Count the records of some files into `target`, and draw `most` of them beside it."""

    spec: SourceSpec
    inputs: tuple[Input, ...]
    limit: int | None
    lists: tuple[str, ...]
    most: int
    target: str
    key: str


@dataclass(frozen=True)
class Counted:
    """`path`: the statistics; `sample`: the records of the lowest ranks; `torn`: what is said of a file that is cut off."""

    path: str
    sample: str
    torn: tuple[str, ...] = ()


def source_of(reader: str, input: str, extra: Mapping[str, Any]) -> SourceSpec:
    """Return a source as a recipe would have it, for its captions alone: it needs no images.

    Args:
        extra: the reader's own options, as flags give them.

    Raises:
        UsageError: an unknown reader or option, or no input.
    """
    registry.get(SOURCES, reader)
    if not input:
        raise UsageError(f"--source {reader}: no input", "--input PATH: native files, a folder, or a quoted glob")
    return in_full(SourceSpec(reader=reader, input=input, options=source_values(reader, extra)))


def sources_of(recipe: str) -> tuple[SourceSpec, ...]:
    """Return the sources of a recipe (a file, or the name of one that comes along) for their captions alone.

    Raises:
        UsageError: no such recipe, or none with sources of different names.
    """
    values = recipes.read(recipe, RECIPES).get("sources", [])
    found = tuple(in_full(load(SourceSpec, one, f"sources[{i}]")) for i, one in enumerate(values))
    if not found or len({one.name for one in found}) < len(found):
        raise UsageError(f"{recipe}: sources {', '.join(one.name for one in found) or 'missing'}", "sources, each with a name of its own")
    return found


def count(
    spec: SourceSpec, aside: str, workers: int, engine: str, *, limit: int | None = None, lists: tuple[str, ...] = (), most: int = MOST
) -> list[Counted]:
    """Count a source's records, a task for each of its files; what lies `aside` already is taken from there.

    Args:
        limit: read only the first records: all in one task.
        lists: files of concepts that are counted besides the default ones.
        most: records to draw: those whose rank by seed 0 is lowest.

    Raises:
        UsageError: no such input.
        RunError: a worker died.
    """
    module, options = registry.get(SOURCES, spec.reader), source_options(spec)
    inputs = module.inputs(spec.input, options)
    fs.make_dirs(aside)
    tasks = []
    for some in [tuple(inputs)] if limit is not None else [(one,) for one in inputs]:
        paths = [path for one in some for path in (one.path, *(module.beside(one, options) if hasattr(module, "beside") else []))]
        content = [identity(path, by_content=module.IMAGES == "pool") for path in paths]
        about: list[Any] = [VERSION, spec.name, spec.reader, module.VERSION, dump(options), clean.VERSION, stats.version(), most, limit]
        about += [spec.captions, spec.empty, list(spec.template)]
        key = digest([*about, [fs.sha256(path) for path in lists], [one.name for one in some], content])
        tasks.append(CountTask(spec, some, limit, lists, most, fs.join(aside, f"{key[:32]}.parquet"), key))
    found = []
    prepare([WARM], engine=engine)
    with Progress(f"read {spec.name}", len(tasks), "files") as progress:
        for outcome in map_unordered(count_records, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"{outcome.spec.inputs[0].path}: {outcome.reason} while its captions were counted")
            found.append(outcome.result)
            progress.add()
    for torn in (torn for one in found for torn in one.torn):
        warn(f"the rest of {torn}")
    return sorted(found, key=lambda one: one.path)


def count_records(task: CountTask) -> Counted:
    """Count the records of some files unless that was done; runs in a worker."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sample = task.target.removesuffix(".parquet") + "-sample.parquet"
    if fs.exists(sample) and stats.is_current(task.target, task.key):
        with fs.open_read(sample) as file:
            noted = (pq.read_schema(file).metadata or {}).get(b"torn", b"").decode()
        return Counted(task.target, sample, tuple(noted.split("\n")) if noted else ())
    torn: list[str] = []
    tables: list[pa.Table] = []
    drawn: list[tuple[int, str, str]] = []
    rows = _rows(task, torn)
    while batch := list(itertools.islice(rows, BATCH)):
        captions = pa.array([row["caption"] or None for row in batch], pa.string())
        tables.append(_count(pa.table({"source": [task.spec.name] * len(batch), "caption": captions}), task.lists))
        tables = [stats.merged(tables)] if len(tables) == TABLES else tables
        drawn += [(rank_key(0, row["uid"]), row["uid"], row["caption"]) for row in batch if row["caption"]]
        drawn = sorted(drawn)[: task.most]
    columns = [[task.spec.name] * len(drawn), [uid for _, uid, _ in drawn], [caption for *_, caption in drawn]]
    table = pa.table([pa.array(column, pa.string()) for column in columns], list(SAMPLED))
    with fs.atomic_write(sample) as file:
        pq.write_table(table.replace_schema_metadata({"torn": "\n".join(torn)}), file, compression="zstd")
    stats.write_statistics(task.target, stats.merged(tables), task.key)
    return Counted(task.target, sample, tuple(torn))


def _count(table: pa.Table, lists: tuple[str, ...]) -> pa.Table:
    found = stats.count_rows(table)
    return stats.merged([found, stats.count_concepts(table, tuple(map(concepts.read_list, lists)))]) if lists else found


def _rows(task: CountTask, torn: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the records as samples of a build, as far as their words go; what the source itself calls unusable is left out."""
    unmeasured = MeasureTask("", 0, 0, 0, task.spec, True, ImagePolicy(), "reference", (), "", 0)
    records = itertools.islice(_records(task, torn), task.limit)
    yield from describe(unmeasured, (record for record in records if not record["status"]))


def _records(task: CountTask, torn: list[str]) -> Iterator[dict[str, Any]]:
    module, options = registry.get(SOURCES, task.spec.reader), source_options(task.spec)
    stamps: dict[str, str] = {}
    for one in task.inputs:
        try:
            for record in module.read(one, options):
                bare = dataclasses.replace(record, image=None, content=b"") if record.image or record.content else record
                yield record_row(bare, one.name, stamps)
        except TornFileError as error:
            torn.append(f"{one.name}: {error.found}".replace("\n", " "))
