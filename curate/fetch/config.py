"""The flags of `curate fetch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from curate.sources.base import several
from shards.core.config import MOST_WORKERS, option


@dataclass(frozen=True)
class FetchConfig:
    """What is fetched, into where, and what one download may take."""

    source: str = option(help="a reader of native metadata with URLs: see `curate list sources`")
    input: tuple[str, ...] = option(help="native files: paths, folders, or quoted globs of either", metavar="PATH")
    output: str = option(help="the pool: a local folder, made or resumed")
    name: str = option("", "the source's name in the recipe; ranks follow from it (default: the reader's)")
    seed: int = option(0, "seed of the ranks: URLs go out in the order of the builds with this seed")
    image_size: int | None = option(None, "resize while fetching, to upright sRGB JPEGs (default: original bytes)", least=1)
    resize_mode: Literal["keep_ratio_largest", "keep_ratio", "center_crop", "border"] = option(
        "keep_ratio_largest", "img2dataset's resize mode, with --image-size"
    )
    resize_only_if_bigger: bool = option(True, "leave smaller images at their size, with --image-size")
    enough: int | None = option(None, "stop once this many records have an image that a build can use (whole shards)", least=1)
    retry_failed: bool = option(False, "ask again for the URLs that failed, but not those that opted out")
    contact: str = option("", "an address of yours in the user agent, so that hosts can reach you", metavar="URL|MAIL")
    per_host: int = option(4, "connections at a time to one host, over all workers", least=1, most=1000)
    retries: int = option(2, "times that a URL is asked again in this run, after a reset or an answer such as 429 or 503", least=0, most=20)
    longest_wait: float = option(30.0, "the most seconds that a host's Retry-After is waited for", least=0)
    blocklist_hosts: str = option("", "hosts, and those under them, that are not asked; one on a line", metavar="FILE")
    blocklist_urls: str = option("", "URLs that are not asked for; one on a line", metavar="FILE")
    removed: str = option("", "uids that were taken down, such as a work folder's removed.txt: not asked for", metavar="FILE")
    allow_private_hosts: bool = option(
        False, "fetch from private, loopback and link-local addresses too; what these gave nothing for needs --retry-failed"
    )
    timeout: float = option(20.0, "seconds of wall clock for one image, redirects included", above=0)
    max_bytes: int = option(32 * 2**20, "largest image file", least=1)
    threads: int = option(128, "downloads at a time in each worker", least=1, most=MOST_WORKERS)
    workers: int = option(0, "worker processes (default: one per core)", least=0, most=MOST_WORKERS)
    samples_per_shard: int = option(10_000, "URLs in a shard of the pool", least=1)
    plugin: tuple[str, ...] = option((), "files of Python, one of which is the source: docs/plugins.md", metavar="FILE.py")
    strict: bool = option(False, "exit 1 where a URL gave no image")
    limit: int | None = option(None, "read only the first N records", least=1)
    json: bool = option(False, "print the summary as JSON")
    extra: dict[str, Any] = option({})

    @property
    def pattern(self) -> str:
        """The one pattern that names all of `input`."""
        return several(self.input)

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
