"""stdout is data, stderr is talk. The only module that prints."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def emit(value: Any) -> None:
    """Write one piece of data to stdout: text as it is, anything else as JSON."""
    print(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1), flush=True)


def say(message: str) -> None:
    """Write one line of talk to stderr."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Write a warning to stderr."""
    say(f"warning: {message}")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an aligned text table; numbers stand to the right."""
    cells = [[str(c) for c in header], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in cells[1:] if row[i]) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True


class Progress:
    """Count work with rate and ETA: one live line on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, what: str, total: int | None = None, unit: str = "samples") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        self._next = self.started + (0.2 if self.live else 10.0)

    def add(self, n: int = 1) -> None:
        """Count n more units as done."""
        self.done += n
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (0.2 if self.live else 10.0)
            self._show("\r" if self.live else "")

    def close(self) -> None:
        """Print the last line."""
        self._show("\r" if self.live else "", end="\n")

    def _show(self, start: str, end: str = "") -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / seconds
        of = f" / {self.total:,}" if self.total is not None else ""
        left = ""
        if self.total and rate > 0 and self.done < self.total:
            left = f", {duration((self.total - self.done) / rate)} left"
        line = f"{self.what}: {self.done:,}{of} {self.unit}, {rate:,.0f}/s{left}"
        if self.live:
            print(f"{start}{line:<78}", end=end, file=sys.stderr, flush=True)
        else:
            say(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return seconds as `47 s`, `3 min 10 s` or `2 h 5 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep what libraries warn of on the root logger to themselves: open_clip, that a model built without weights has none."""
    import logging

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
