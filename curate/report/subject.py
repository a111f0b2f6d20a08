"""What a report is about: the added-up statistics of one set or several, and a random sample of their samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.manifest import Manifest

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True)
class Subject:
    """Sets seen together. A source is called by its label, the same everywhere on the page.

    `con`: a connection with the tables of `stats.add_up`, whose column `source` holds labels.
    `sources`: the labels, in the order of the sets and their recipes: the order of colours.
    `sample`: an honest random sample, at most `drawn["most"]` rows of each source, lowest ranks first, with the columns
    source (label), uid, caption, width, height, bytes, and `at`: the name of the sample's picture, for `read_picture`.
    `drawn`: how the sample was drawn, in plain values for the JSON.
    `manifests`: the sets that have shards; native metadata has none.
    `labels`: for each of `manifests`, its own names of sources and their labels.
    """

    con: duckdb.DuckDBPyConnection
    sources: tuple[str, ...]
    sample: pa.Table
    drawn: dict[str, object]
    manifests: tuple[Manifest, ...]
    labels: tuple[dict[str, str], ...]
