"""Counts by kind, each with the first example: what was passed over or looks wrong, told in one line per kind."""

from __future__ import annotations

from collections.abc import Iterator

from shards.core import fs
from shards.core.console import inflected
from shards.core.notices import note

REPEATED_KEYS = "[key that stands|keys that stand] for several samples (a sample is then known by its tar and place, not by its key)"


class Tally:
    """How often each kind of thing was met, and where first. Kinds keep the order in which they came."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count `count` more of a kind; only the kind's first example is kept."""
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.examples.setdefault(kind, fs.printable(example))

    def merge(self, other: Tally, place: str) -> None:
        """Add the counts of another tally; `place` is where its examples lie, such as the name of a tar."""
        for kind, count in other.counts.items():
            self.add(kind, f"{place}: {other.examples[kind]}", count)

    def lines(self) -> Iterator[str]:
        """Yield such as `3 symbolic links, such as 00000.tar: b001.jpg`, a line for each kind."""
        for kind, count in self.counts.items():
            yield f"{count:,} {inflected(count, kind)}, such as {self.examples[kind]}"

    def note(self) -> None:
        """Have each kind told at the end of the command."""
        for kind, count in self.counts.items():
            note(count, kind, f"such as {self.examples[kind]}")

    def __bool__(self) -> bool:
        return bool(self.counts)
