"""The flags of `curate fetch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shards.core.config import option


@dataclass(frozen=True)
class FetchConfig:
    """What is fetched, into where, and what one download may take."""

    source: str = option(help="a reader of native metadata with URLs: see `curate list sources`")
    input: str = option(help="native files: a path, a folder, or a glob in quotes")
    output: str = option(help="the pool: a local folder, made or resumed")
    name: str = option("", "the source's name in the recipe; ranks follow from it (default: the reader's)")
    seed: int = option(0, "seed of the ranks: URLs go out in the order of the builds with this seed")
    image_size: int | None = option(None, "resize while fetching, as img2dataset does (default: original bytes)")
    resize_mode: Literal["keep_ratio_largest", "keep_ratio", "center_crop", "border"] = option(
        "keep_ratio_largest", "img2dataset's resize mode, with --image-size"
    )
    resize_only_if_bigger: bool = option(True, "leave smaller images at their size, with --image-size")
    enough: int | None = option(None, "stop once this many images are there (whole shards)")
    retry_failed: bool = option(False, "ask again for the URLs that failed, but not those that opted out")
    allow_private_hosts: bool = option(False, "fetch from private, loopback and link-local addresses too")
    timeout: float = option(20.0, "seconds of wall clock for one image, redirects included")
    max_bytes: int = option(32 * 2**20, "largest image file")
    threads: int = option(128, "downloads at a time in each worker")
    workers: int = option(0, "worker processes (default: one per core)")
    samples_per_shard: int = option(10_000, "URLs in a shard of the pool")
    limit: int | None = option(None, "read only the first N records")
    json: bool = option(False, "print the summary as JSON")
    extra: dict[str, Any] = option({})

    @property
    def source_name(self) -> str:
        """The name from which uids and ranks follow."""
        return self.name or self.source

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change between two runs into one pool."""
        resize = [self.image_size, self.resize_mode, self.resize_only_if_bigger] if self.image_size else None
        return {
            "source": self.source,
            "name": self.source_name,
            "seed": self.seed,
            "resize": resize,
            "samples_per_shard": self.samples_per_shard,
        }
