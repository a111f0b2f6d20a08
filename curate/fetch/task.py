"""What a fetch's worker is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from curate.fetch.secrecy import Lists
from curate.fetch.web import Limits


@dataclass(frozen=True)
class Task:
    """One shard: the pool (a local folder), the shard's number, and how it is downloaded.

    `prove` has every picture decoded to its last row, so that a success is one that a build can use.
    """

    pool: str
    shard: int
    source_name: str
    limits: Limits
    lists: Lists
    prove: bool
    threads: int
    samples_per_shard: int
    image_size: int | None
    resize_mode: str
    resize_only_if_bigger: bool


@dataclass(frozen=True)
class Fetched:
    """A shard that is in the pool: its URLs, the records with a picture, and how many pictures an interrupted run had fetched."""

    shard: int
    urls: int
    usable: int
    kept: int
