"""What a fetch's worker is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from curate.fetch.web import Limits


@dataclass(frozen=True)
class Task:
    """One shard: the pool (a local folder), the shard's number, and how it is downloaded."""

    pool: str
    shard: int
    limits: Limits
    threads: int
    samples_per_shard: int
    image_size: int | None
    resize_mode: str
    resize_only_if_bigger: bool


@dataclass(frozen=True)
class Fetched:
    """A shard that is in the pool."""

    shard: int
    urls: int
    successes: int
