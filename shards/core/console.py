"""stdout is data, stderr is talk. The only module that prints."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# What a terminal obeys or hides instead of showing it: control characters, line and paragraph ends, marks that turn the order of
# writing, and tags (U+E0000 and on), which are text that nobody sees.
_UNSEEN = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f"
_COMMANDS, _NOT_IN_JSON = re.compile(f"[\x00-\x1f{_UNSEEN}]"), re.compile(f"[{_UNSEEN}]")
_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"  # blank for nothing; the second where stdout cannot say the first
_EIGHTHS = " ▏▎▍▌▋▊▉█", " ...:::##"


def emit(value: Any) -> None:
    """Write one piece of data to stdout: text as it is, anything else as JSON. What stdout cannot say is escaped."""
    if isinstance(value, str):
        encoding = sys.stdout.encoding or "utf-8"
        print(value if value.isascii() else value.encode(encoding, "backslashreplace").decode(encoding), flush=True)
        return
    text = json.dumps(value, ensure_ascii=not _says("€ü"), indent=1)
    print(text if text.isascii() else _NOT_IN_JSON.sub(_in_json, text), flush=True)


def _in_json(match: re.Match[str]) -> str:
    """Return a character as JSON escapes it; those beyond 16 bits as two."""
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


_muted = 0  # blocks of `muted` that are entered


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Let `say` and `warn` say nothing for a while: one of a hundred equal trainings has no news. Progress lines stay."""
    global _muted
    _muted += 1
    try:
        yield
    finally:
        _muted -= 1


def say(message: str) -> None:
    """Write one line of talk to stderr."""
    if _muted:
        return
    print("\n".join(map(visible, message.split("\n"))), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Write a warning to stderr."""
    say(f"warning: {message}")


def _says(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def visible(text: str) -> str:
    """Return a text of others as one line that commands no terminal: what would is shown, as ␛ or `\\u202e`."""
    return _COMMANDS.sub(_shown, text) if not text.isprintable() else text


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if _says("␛"):
        if code < 0x20:
            return chr(0x2400 + code)
        if code == 0x7F:
            return "␡"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_CHOICE = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]")


def inflected(number: int, template: str) -> str:
    """Return a template in the number of its count: of each `[one|many]` in it the first word where `number` is 1, else the second."""
    return _CHOICE.sub(lambda match: match[1] if number == 1 else match[2], template)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 shard`, `2,000 shards`; `plural` is the noun's where it takes more than an `s`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text fills: two for a wide East Asian character, none for a mark on another one."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(c: str) -> int:
    if (unicodedata.category(c) in ("Mn", "Me", "Cf") and c != "\xad") or "\u1160" <= c <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return a text, or as much of its beginning as fills `width` columns with `…` (`~`) behind it."""
    if width_of(text) <= width:
        return text
    end, room = 0, width - 1
    while end < len(text) and room >= _columns(text[end]):
        room -= _columns(text[end])
        end += 1
    return text[:end] + ellipsis() if width > 0 else ""


def ellipsis() -> str:
    """Return the sign for what was cut off: `…`, or `~` where stdout cannot say it."""
    return "…" if _says("…") else "~"


def terminal_width() -> int:
    """Return how many columns stdout has: the terminal's, or COLUMNS, or 80."""
    return shutil.get_terminal_size((80, 24)).columns


def coloured() -> bool:
    """Return whether stdout may be coloured: it is a terminal, and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Painted(str):
    """A table's cell in a style: `style` holds the numbers of ANSI's SGR (`1` bold, `38;5;74` a colour)."""

    style = ""


def painted(text: str, style: str) -> Painted:
    """Return a text that `table` paints; without a style, plain."""
    cell = Painted(text)
    cell.style = style
    return cell


def paint(text: str, style: str) -> str:
    """Return a text between the codes that switch a style on and off; without a style, as it is."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], width: int | None = None) -> str:
    """Return an aligned text table; numbers stand to the right, None is blank. No cell's text can break it or command the terminal.

    Args:
        width: columns to stay within: the widest columns of text are cut for it.
    """
    cells = [[_cell(c) for c in row] for row in (header, *rows)]
    widths = [max(width_of(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in cells[1:] if row[i]) for i in range(len(header))]
    if width is not None:
        _narrow(widths, [i for i, n in enumerate(numeric) if not n], width)
    lines = ["  ".join(map(_padded, row, widths, numeric)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _narrow(widths: list[int], texts: list[int], width: int) -> None:
    """Take columns from the widest texts, one at a time, until all fit or none is left to take."""
    for _ in range(sum(widths) + 2 * (len(widths) - 1) - width):
        widest = max(texts, key=lambda i: widths[i], default=-1)
        if widest < 0 or widths[widest] <= 4:
            return
        widths[widest] -= 1


def _padded(cell: str, width: int, right: bool) -> str:
    text = cut(cell, width)
    space = " " * (width - width_of(text))
    text = paint(text, getattr(cell, "style", ""))
    return space + text if right else text + space


def _cell(value: Any) -> str:
    if isinstance(value, Painted):
        return painted(visible(value), value.style)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else visible(str(value))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").lstrip("<>").rstrip("%"))
    except ValueError:
        return False
    return True


def sparkline(counts: Iterable[float]) -> str:
    """Return a histogram on one line, a character for each count, scaled to the largest.

    Blank is zero; whatever is more has at least the lowest bar.
    """
    values, levels = list(counts), _BARS[not _says(_BARS[0])]
    most = max(values, default=0)
    return "".join(levels[math.ceil(8 * v / most) if most else 0] for v in values)


def bar(share: float, width: int) -> str:
    """Return a bar that fills `share` (0 to 1) of `width` columns, to an eighth of one; only 0 is empty, and only 1 full."""
    levels = _EIGHTHS[not _says(_EIGHTHS[0])]
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    if 0 < share < 1 and width:
        eighths = min(max(eighths, 1), 8 * width - 1)
    whole, rest = divmod(eighths, 8)
    return levels[8] * whole + (levels[rest] if rest else "")


class Progress:
    """Count work with rate and ETA: one live line on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, what: str, total: int | None = None, unit: str = "samples", done: int = 0) -> None:
        """Begin to count.

        Args:
            done: units that an earlier run has done; the rate is that of this one.
        """
        self.what, self.total, self.unit = what, total, unit
        self.done = self._before = done
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
        rate = (self.done - self._before) / seconds
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
