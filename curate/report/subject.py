"""What a report is about: the added-up statistics of one set or several, and a random sample of their samples."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curate.report import native, stats
from curate.report.concepts import ConceptList, default_lists, lists_with, read_list
from curate.report.draw import MOST, draw_native, draw_shards, joined
from curate.report.stats.rows import rows_of
from shards.core import fs
from shards.core.console import say
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError, UsageError
from shards.core.notices import note
from shards.index import survey
from shards.manifest import NAME, Manifest, read_manifest
from shards.reader import Shard

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from curate.recipe import SourceSpec

LOOKED = 100  # shards in which the spelling of a caption is looked for


@dataclass(frozen=True)
class Subject:
    """Sets seen together. A source is called by its label, the same everywhere on the page.

    `con`: a connection with the tables of `stats.open_sums`, whose column `source` holds labels.
    `sources`: the labels, in the order of the sets and their recipes: the order of colours.
    `sample`: an honest random sample, at most `drawn["most"]` rows of each source, lowest ranks first, with the columns
    source (label), uid, caption, width, height, bytes, and `at`: the name of the sample's picture, for `pictures.pointers`,
    null where there is none.
    `drawn`: how the sample was drawn, in plain values for the JSON: `most` rows of each source, `rows` in all, `order` in words.
    `manifests`: the sets that have shards; native metadata has none.
    `labels`: for each of `manifests`, its own names of sources and their labels.
    `concepts`: the lists of classes whose mentions are counted.
    """

    con: duckdb.DuckDBPyConnection
    sources: tuple[str, ...]
    sample: pa.Table
    drawn: dict[str, object]
    manifests: tuple[Manifest, ...]
    labels: tuple[dict[str, str], ...]
    concepts: tuple[ConceptList, ...] = field(default_factory=default_lists)


@dataclass(frozen=True)
class _Part:
    """A set or a source of native metadata: its files of statistics, the names of its sources, the folder it is called by."""

    paths: list[str]
    names: list[str]
    folder: str


@contextlib.contextmanager
def open_subject(
    sets: Sequence[Manifest | str],
    workers: int = 1,
    engine: str = "local",
    *,
    sources: Sequence[SourceSpec] = (),
    limit: int | None = None,
    concepts: Sequence[str] = (),
    work: str = "",
    most: int = MOST,
    bigrams: Sequence[str] | None = None,
) -> Iterator[Subject]:
    """Open what a report is about, counting what was not counted yet.

    Args:
        sets: manifests, or folders: builds, subsets, and any folder of tars, into which nothing is written.
        sources: native metadata, from `native.source_of` or a recipe; their captions are counted.
        limit: read only the first records of each of `sources`.
        concepts: files of concepts that are looked for besides the default ones.
        work: folder for the statistics of folders that are not ours, for the next time; without one they are counted each time.
        most: rows of the sample, of each source.
        bigrams: the only ones that matter, for a quick answer about words; see `stats.add`.

    Raises:
        UsageError: a folder has no tars, an input or a list is not there or cannot be used.
        RunError: samples could not be counted.
    """
    lists = lists_with(concepts)
    manifests = tuple(one if isinstance(one, Manifest) else read_set(one, workers, engine) for one in sets)
    with tempfile.TemporaryDirectory() as temporary, stats.open_sums() as con:
        aside = fs.join(work, stats.ASIDE) if work else temporary
        lost = "" if work else _foreign(manifests, sources)
        if lost:
            say(f"{lost}: counted for this report alone; --work DIR keeps what is counted for the next one")
        with _saying_what_is_kept(lost):
            files = [stats.parts(one, aside, workers, engine, beside=_is_ours(one)) for one in manifests]
            records = [native.count(one, aside, workers, engine, limit=limit, lists=tuple(concepts), most=most) for one in sources]
        parts = [_Part(paths, _sources(con, paths, list(one.sources)), one.folder) for one, paths in zip(manifests, files, strict=True)]
        parts += [_Part([r.path for r in counted], [one.name], one.input) for one, counted in zip(sources, records, strict=True)]
        for spec, part in zip(sources, parts[len(manifests) :], strict=True):
            if not stats.sources_of(con, part.paths):
                raise UsageError(f"{spec.input}: no record that the reader {spec.reader!r} can use", advice="curate list sources")
        labels = _labels(parts)
        for part, named in zip(parts, labels, strict=True):
            stats.add(con, part.paths, named, bigrams)
        if concepts:
            for one, named in zip(manifests, labels, strict=False):
                _add_concepts(con, one, named, tuple(concepts), workers, engine)
        counts = stats.totals(con, "samples")
        drawn = [draw_shards(one, at, named, counts, most) for at, (one, named) in enumerate(zip(manifests, labels, strict=False))]
        natives = zip(records, labels[len(manifests) :], strict=True)
        drawn += [draw_native([one.sample for one in found], named, most) for found, named in natives]
        sample, how = joined(drawn, most)
        names = tuple(label for named in labels for label in named.values())
        yield Subject(con, names, sample, how, manifests, tuple(labels[: len(manifests)]), lists)


def read_set(path: str, workers: int = 1, engine: str = "local") -> Manifest:
    """Return the manifest of a set; of a folder of tars that has none, what `shards index` would write: no file is.

    Raises:
        UsageError: neither a manifest nor a tar is there.
    """
    if path.endswith(".json") or fs.exists(fs.join(path, NAME)):
        return read_manifest(path)
    if not fs.is_dir(path):
        raise UsageError(f"no folder at {path!r}", "a build, a subset, or a folder of tars", "native metadata: --source and --input")
    manifest = survey(path, bad_files="skip", workers=workers, engine=engine)
    for name, why in manifest.notes.get("bad_files", {}).items():
        note(1, "[tar|tars] left out, or used as far as [it is|they are] whole", f"{name}: {why}")
    for kind, count in manifest.notes.get("notices", {}).items():
        note(count, kind, f"`shards index {path}` says which")
    return dataclasses.replace(manifest, builder="")


def _is_ours(manifest: Manifest) -> bool:
    """Return whether a set has a manifest on disk: then its statistics may lie beside its shards."""
    return bool(manifest.builder)


def _foreign(manifests: Sequence[Manifest], sources: Sequence[SourceSpec]) -> str:
    """Return, with commas, the folders and native files beside which nothing may be written."""
    return ", ".join([one.folder for one in manifests if not _is_ours(one)] + [one.input for one in sources])


@contextlib.contextmanager
def _saying_what_is_kept(lost: str) -> Iterator[None]:
    """Say at an interrupt what of the counting is kept; of `lost` nothing is."""
    try:
        yield
    except KeyboardInterrupt:
        say("what was counted is kept" + (f", but of {lost}: --work DIR keeps that, too" if lost else ""))
        raise


def _sources(con: duckdb.DuckDBPyConnection, paths: list[str], known: list[str]) -> list[str]:
    """Return the names of a set's sources: as its manifest lists them, then those that it does not."""
    return [*known, *sorted(stats.sources_of(con, paths) - set(known))]


def _labels(parts: Sequence[_Part]) -> list[dict[str, str]]:
    """Return for each part its sources' labels: their names, with the folder's name before them where two parts have the same one.

    A source without a name is called as its folder is. What is still called as another is numbered.
    """
    folders = [label.removesuffix(".json") for label in path_labels([part.folder for part in parts])]
    names = Counter(name for part in parts for name in part.names)
    pairs = [(folder, name) for part, folder in zip(parts, folders, strict=True) for name in part.names]
    called = [name if name and names[name] == 1 else "/".join(filter(None, (folder, name))) for folder, name in pairs]
    labels = iter(numbered(called))
    return [{name: next(labels) for name in part.names} for part in parts]


def path_labels(paths: Sequence[str]) -> list[str]:
    """Return a name for each path: the shortest ending that tells it from the others; equal paths are numbered."""
    parts = [path.rstrip("/").removesuffix("/" + NAME).split("/") for path in paths]
    names = ["/".join(names_of_path) for names_of_path in parts]
    for length in range(1, max(map(len, parts), default=0)):
        short = ["/".join(names_of_path[-length:]) for names_of_path in parts]
        if len(set(short)) == len(set(names)):
            names = short
            break
    return numbered(names)


def numbered(names: Sequence[str]) -> list[str]:
    """Return names that are all different: those that come more than once have a number behind them."""
    total, seen, found = Counter(names), Counter[str](), list[str]()
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if total[name] > 1 else name)
    return found if len(set(found)) == len(found) else numbered(found)


@dataclass(frozen=True)
class _ConceptTask:
    """Count the classes of some lists in the captions of one shard, the only one of `manifest`."""

    manifest: Manifest
    lists: tuple[str, ...]


def count_own_concepts(task: _ConceptTask) -> Any:
    """Return what `stats.count_concepts` finds in a shard; runs in a worker."""
    with Shard(task.manifest, task.manifest.shards[0]) as shard:
        rows = rows_of(shard, ("source", "caption"))
    return stats.count_concepts(rows, tuple(map(read_list, task.lists)))


def _add_concepts(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, labels: dict[str, str], lists: tuple[str, ...], workers: int, engine: str
) -> None:
    """Look for the classes of more lists in the captions of a set: these counts are not kept."""
    tables = []
    tasks = [_ConceptTask(dataclasses.replace(manifest, shards=(entry,)), lists) for entry in manifest.shards]
    for outcome in map_unordered(count_own_concepts, tasks, workers=min(workers, len(tasks)), engine=engine):
        if not isinstance(outcome, Done):
            raise RunError(f"{outcome.spec.manifest.shards[0].path}: {outcome.reason} while its captions were searched")
        tables.append(outcome.result)
    rows = stats.merged(tables).to_pylist()
    if rows:
        con.executemany(
            "INSERT INTO others VALUES (?, ?, ?, NULL, ?, ?)",
            [(labels[row["source"] or ""], row["kind"], row["text"], row["count"], row["captions"]) for row in rows],
        )


def most_repeated(subject: Subject, source: str, most: int) -> list[dict[str, Any]]:
    """Return the captions that a source repeats most: `count`, exact, and `caption`, one of the spellings.

    A spelling that no shard has twice is looked up in the source's first LOOKED shards; a caption that is not there is left out.
    """
    rows = stats.most_repeated(subject.con, source, most)
    spelled = {key: text for key, _, text in rows if text is not None}
    missing = {key for key, _, text in rows if text is None}
    for manifest, named in zip(subject.manifests, subject.labels, strict=True):
        own = [name for name, label in named.items() if label == source]
        for entry in manifest.shards[:LOOKED] if own else ():
            if missing <= spelled.keys():
                break
            with Shard(manifest, entry) as shard:
                found = stats.spellings(rows_of(shard, ("source", "caption")), own[0], missing)
            spelled = found | spelled
    note(len(missing - spelled.keys()), f"repeated [caption|captions] left out: not spelt in the first {LOOKED} shards", f"source {source}")
    return [{"caption": spelled[key], "count": count} for key, count, _ in rows if key in spelled]
