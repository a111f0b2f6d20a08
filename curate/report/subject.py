"""What a report is about: the added-up statistics of one set or several, and a random sample of their samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curate.report import stats
from curate.report.concepts import ConceptList, default_lists
from shards.manifest import Manifest
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MOST = 5_000


@dataclass(frozen=True)
class Subject:
    """Sets seen together. A source is called by its label, the same everywhere on the page.

    `con`: a connection with the tables of `stats.add_up`, whose column `source` holds labels.
    `sources`: the labels, in the order of the sets and their recipes: the order of colours.
    `sample`: an honest random sample, at most `drawn["most"]` rows of each source, lowest ranks first, with the columns
    source (label), uid, caption, width, height, bytes, and `at`: the name of the sample's picture, for `pointers`.
    `drawn`: how the sample was drawn, in plain values for the JSON.
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


@contextlib.contextmanager
def open_subject(manifests: Sequence[Manifest], workers: int = 1, engine: str = "local") -> Iterator[Subject]:
    """Open what a report over these sets is about, counting the shards that were not counted yet."""
    (manifest,) = manifests
    with stats.open_statistics(manifest, workers, engine) as con:
        found = {s for (s,) in con.execute("SELECT source FROM others WHERE kind = 'samples'").fetchall()}
        sources = tuple(dict.fromkeys([*manifest.sources, *sorted(found)]))
        drawn: dict[str, object] = {"most": MOST}
        yield Subject(con, sources, draw(manifest), drawn, (manifest,), ({s: s for s in sources},))


def draw(manifest: Manifest) -> pa.Table:
    """Return the first rows in rank order, at most MOST of each source."""
    import pyarrow as pa

    columns = ("source", "uid", "caption", "width", "height", "bytes")
    parts = []
    for number, entry in enumerate(manifest.shards):
        with Shard(manifest, entry) as shard:
            rows = shard.sidecar(columns)
        at = pa.array([f"0/{number}/{i}" for i in range(rows.num_rows)], pa.string())
        parts.append(rows.append_column("at", at))
    if not parts:
        kinds = [pa.string()] * 3 + [pa.int32()] * 2 + [pa.int64(), pa.string()]
        return pa.table({name: pa.array([], kind) for name, kind in zip((*columns, "at"), kinds, strict=True)})
    return pa.concat_tables(parts)


def pointers(subject: Subject, names: Iterable[str]) -> dict[str, tuple[str, int, int]]:
    """Return (tar, offset, size) of the images of samples, by the name in `Subject.sample`'s column `at`: none where there is none."""
    wanted: dict[tuple[int, int], list[int]] = {}
    for name in names:
        number, entry, position = map(int, name.split("/"))
        wanted.setdefault((number, entry), []).append(position)
    found = {}
    for (number, entry), positions in wanted.items():
        manifest = subject.manifests[number]
        with Shard(manifest, manifest.shards[entry]) as shard:
            for position in positions:
                image = next((m for m in shard.groups[position] if m.ext.lower() in IMAGE_EXTENSIONS), None)
                if image is not None:
                    found[f"{number}/{entry}/{position}"] = (shard.path, image.offset, image.size)
    return found
