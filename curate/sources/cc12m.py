"""Conceptual Captions 12M: its official TSV, url⇥caption.

A sample's id is its URL, a line feed, and its caption as published. `<PERSON>` stays as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curate.sources import _tsv
from curate.sources.base import Input, Record

VERSION = 2
IMAGES = "pool"


@dataclass(frozen=True)
class Options:
    """No options: the layout is sniffed."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the TSV files; one whose columns are another source's is refused."""
    return _tsv.inputs(pattern, "cc12m")


def layout(input: Input, options: Options) -> str:
    """Return the layout of a file in a few words."""
    return f"headerless TSV: {'⇥'.join(_tsv.layout(input.path, 'cc12m'))}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per line."""
    return _tsv.read(input.path, input.name, "cc12m")
