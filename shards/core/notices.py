"""What a command dropped, replaced, passed over or did not find: one line per kind at its end.

Code that meets such a thing calls `note`; `shards.core.cli` prints the lines once the command is through, on stderr, and makes
the exit code 1 where the command's configuration has `strict` set. Counts of workers come back with their results: only
the supervisor notes them.
"""

from __future__ import annotations

from shards.core.console import inflected, say

_counts: dict[str, int] = {}
_places: dict[str, str] = {}


def note(count: int, what: str, where: str = "") -> None:
    """Count `count` more of a kind of thing; 0 is nothing.

    Args:
        what: the kind, as it stands behind its count: `dropped as undecodable`, `[URL|URLs] gave no image` (see `console.inflected`).
        where: the place to look, or an example; the first one given for a kind stays.
    """
    if count > 0:
        _counts[what] = _counts.get(what, 0) + count
        _places.setdefault(what, where)


def lines() -> list[str]:
    """Return such as `24 dropped as undecodable: see out/ledger`, a line for each kind, in the order in which kinds were met."""
    return [_line(count, what, _places[what]) for what, count in _counts.items()]


def _line(count: int, what: str, place: str) -> str:
    return f"{count:,} {inflected(count, what)}" + (f": {place}" if place else "")


def clear() -> None:
    """Start anew: the notices of an earlier command of this process are not this one's."""
    _counts.clear()
    _places.clear()


def close(*, strict: bool) -> int:
    """Print all lines and start anew; return the exit code that they ask for: 1 where `strict` is set and there is any line."""
    noted = lines()
    for line in noted:
        say(line)
    if noted and strict:
        say("--strict: exit code 1 for the above")
    clear()
    return 1 if noted and strict else 0
