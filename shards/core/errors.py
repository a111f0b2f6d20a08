"""What can go wrong, and what the shell is told.

    ProvenderError         found, allowed, advice; the base of everything we raise on purpose
    ├── UsageError         exit 2: cannot be done as written (flag, key, path, column, layout, too few samples)
    └── RunError           exit 1: a fault while running
        └── TornFileError  exit 1: an input file that is cut off or unreadable

A sample that cannot be used is never an exception: it becomes a row with a reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProvenderError(Exception):
    """An error in three parts: what was found, what is allowed, what to do about it."""

    exit_code = 1

    def __init__(self, found: str, allowed: str = "", advice: str = "") -> None:
        super().__init__(found)
        self.found, self.allowed, self.advice = found, allowed, advice

    def __str__(self) -> str:
        lines = [self.found]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.advice:
            lines.append(f"  try: {self.advice}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Exceptions cross process borders by pickle, which must keep all three parts.
        return type(self), (self.found, self.allowed, self.advice)


class UsageError(ProvenderError):
    """The request cannot be met as it is written; nothing was written."""

    exit_code = 2


class RunError(ProvenderError):
    """A fault while running; what is on disk is either whole or absent."""


class TornFileError(RunError):
    """An input file ends too early or cannot be parsed."""


def shortened(value: object) -> str:
    """Return a value for a message, as Python writes it: 120 characters of it at most."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as `did you mean 'redcaps'?`, or an empty string."""
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else ""
