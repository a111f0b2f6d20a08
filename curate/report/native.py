"""Native metadata as the subject of a report: captions alone, as default cleaning leaves them, read by a source's reader."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate import plugins
from curate.captions import clean
from curate.config import RECIPES, SOURCES, in_full, plugin_files, source_options, source_values
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
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered, prepare
from shards.core.errors import RunError, TornFileError, UsageError
from shards.core.notices import note
from shards.sample import rank_key
from shards.tables.notes import noting
from shards.tally import Tally

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2
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
    """`path`: the statistics; `sample`: the records of the lowest ranks; `notes`: kind, count and example of what was passed over."""

    path: str
    sample: str
    notes: tuple[tuple[str, int, str], ...] = ()


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
    values = recipes.read(recipe, RECIPES)
    plugins.use_all(plugin_files(values))
    specs = tuple(in_full(load(SourceSpec, value, f"sources[{i}]")) for i, value in enumerate(values.get("sources", [])))
    if not specs or len({spec.name for spec in specs}) < len(specs):
        raise UsageError(f"{recipe}: sources {', '.join(spec.name for spec in specs) or 'missing'}", "sources, each with a name of its own")
    return specs


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
    counted: list[Counted] = []
    prepare([WARM], engine=engine)
    with Progress(f"read {spec.name}", len(tasks), "files") as progress:
        for outcome in map_unordered(count_records, tasks, workers=min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(f"{outcome.spec.inputs[0].path}: {outcome.reason} while its captions were counted")
            counted.append(outcome.result)
            progress.add()
    counted.sort(key=lambda result: result.path)
    for kind, number, example in (noted for result in counted for noted in result.notes):
        note(number, kind, f"first in {spec.name}'s {example}")
    return counted


def count_records(task: CountTask) -> Counted:
    """Count the records of some files unless that was done; runs in a worker."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sample = task.target.removesuffix(".parquet") + "-sample.parquet"
    if fs.exists(sample) and stats.is_current(task.target, task.key):
        with fs.open_read(sample) as file:
            noted = (pq.read_schema(file).metadata or {}).get(b"notes", b"[]")
        return Counted(task.target, sample, tuple((kind, count, example) for kind, count, example in json.loads(noted)))
    tally = Tally()
    tables: list[pa.Table] = []
    drawn: list[tuple[int, str, str]] = []
    rows = _rows(task, tally)
    with noting() as changed:
        while batch := list(itertools.islice(rows, BATCH)):
            captions = pa.array([row["caption"] or None for row in batch], pa.string())
            tables.append(_count(pa.table({"source": [task.spec.name] * len(batch), "caption": captions}), task.lists))
            tables = [stats.merged(tables)] if len(tables) == TABLES else tables
            drawn += [(rank_key(0, row["uid"]), row["uid"], row["caption"]) for row in batch if row["caption"]]
            drawn = sorted(drawn)[: task.most]
    tally.merge(changed, task.inputs[0].name if len(task.inputs) == 1 else "files")
    columns = [[task.spec.name] * len(drawn), [uid for _, uid, _ in drawn], [caption for *_, caption in drawn]]
    table = pa.table([pa.array(column, pa.string()) for column in columns], list(SAMPLED))
    notes = tuple((kind, count, tally.examples[kind]) for kind, count in tally.counts.items())
    with fs.atomic_write(sample) as file:
        pq.write_table(table.replace_schema_metadata({"notes": json.dumps(notes)}), file, compression="zstd")
    stats.write_statistics(task.target, stats.merged(tables), task.key)
    return Counted(task.target, sample, notes)


def _count(table: pa.Table, lists: tuple[str, ...]) -> pa.Table:
    found = stats.count_rows(table)
    return stats.merged([found, stats.count_concepts(table, tuple(map(concepts.read_list, lists)))]) if lists else found


def _rows(task: CountTask, tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the records as samples of a build, as far as their words go; what the source itself calls unusable is counted alone."""
    unmeasured = MeasureTask("", 0, 0, 0, task.spec, True, ImagePolicy(), "reference", (), "", 0)
    records = itertools.islice(_records(task, tally), task.limit)
    yield from describe(unmeasured, _usable(records, tally))


def _usable(records: Iterator[dict[str, Any]], tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the records that the source does not call unusable, and count the others by reason."""
    for record in records:
        if record["status"]:
            tally.add(f"records left out: {record['status']}", f"{record['input']}, record {record['row'] + 1}")
        else:
            yield record


def _records(task: CountTask, tally: Tally) -> Iterator[dict[str, Any]]:
    module, options = registry.get(SOURCES, task.spec.reader), source_options(task.spec)
    stamps: dict[str, str] = {}
    for input in task.inputs:
        try:
            for record in module.read(input, options):
                bare = dataclasses.replace(record, image=None, content=b"") if record.image or record.content else record
                yield record_row(bare, input.name, stamps)
        except TornFileError as error:
            torn = f"{input.name}: {error.found}".replace("\n", " ")
            tally.add("native [file|files] torn, of which only whole records are counted", torn)
