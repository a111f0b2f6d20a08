"""What may leave nothing in a pool but its uid and why: URLs on a block list, samples taken down, and who opted out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curate.fetch.web import OPTED_OUT
from shards.core import fs
from shards.core.errors import UsageError
from shards.sample import uid_of

BLOCKED, TAKEN_DOWN = "blocked: ", "taken down: "
_CONTENT = ("source_id", "url", "caption")  # many sources' ids are made of URL and caption


def is_secret(detail: str) -> bool:
    """Return whether a row's detail says that its URL, caption and id may not be kept."""
    return detail.startswith((OPTED_OUT, BLOCKED, TAKEN_DOWN))


def hide(row: dict[str, Any]) -> None:
    """Empty in a row what may not be kept."""
    row.update((name, "") for name in _CONTENT if name in row)


@dataclass(frozen=True)
class Lists:
    """The files of URLs, of hosts, and of uids that are not fetched; an empty path is no list."""

    urls: str = ""
    hosts: str = ""
    removed: str = ""


@dataclass(frozen=True)
class Barred:
    """What the lists hold."""

    lists: Lists
    urls: frozenset[str]
    hosts: frozenset[str]
    uids: frozenset[str]

    def why_url(self, url: str) -> str:
        """Return the detail of a URL that stands on a list, or whose host or a domain above it does; else an empty text."""
        if self.urls and url.strip() in self.urls:
            return BLOCKED + os.path.basename(self.lists.urls)
        if not self.hosts:
            return ""
        from curate.filters.blocklist import host_of

        parts = host_of(url).split(".")
        above = {".".join(parts[i:]) for i in range(len(parts))}
        return "" if self.hosts.isdisjoint(above) else BLOCKED + os.path.basename(self.lists.hosts)

    def why(self, uid: str, url: str) -> str:
        """Return the detail of a sample that was taken down, or whose URL is blocked; else an empty text."""
        return TAKEN_DOWN + os.path.basename(self.lists.removed) if uid in self.uids else self.why_url(url)

    def why_row(self, row: dict[str, Any], source_name: str) -> str:
        """Return the detail of a row of the input or of an account; an account that knows no uid yet is an older one."""
        return self.why(row.get("uid") or uid_of(source_name, row["source_id"]), row["url"])

    @property
    def is_any(self) -> bool:
        """Whether anything stands on a list."""
        return bool(self.urls or self.hosts or self.uids)

    @property
    def hops(self) -> Callable[[str], str] | None:
        """What is asked before each hop of a download; None where nothing is listed."""
        return self.why_url if self.urls or self.hosts else None


def read_lists(lists: Lists) -> Barred:
    """Read the lists: text with an entry on each line, where what follows a blank is a comment; uids also as DataComp's .npy.

    Raises:
        UsageError: a file is not there, or its uids are none.
    """
    hosts = frozenset(entry.lower().strip(".") for entry in _entries(lists.hosts))
    return Barred(lists, frozenset(_entries(lists.urls)), hosts, _uids(lists.removed))


def _entries(path: str) -> list[str]:
    if not path:
        return []
    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no file at {path!r}", "a UTF-8 file with an entry on each line")
    return [line.split()[0] for line in fs.read_text(path).splitlines() if line.strip() and not line.startswith("#")]


def _uids(path: str) -> frozenset[str]:
    if not path:
        return frozenset()
    from shards.uids import read_uid_file, unpack

    return frozenset(unpack(read_uid_file(path).uids))
