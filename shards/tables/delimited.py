"""Text tables with a delimiter: which one, where the header is, and the cells of each row, whatever their quotes.

Comma, tab, semicolon or bar; a line `sep=;` and comments before the header are passed over, blanks around cells are none of
theirs. Quotes are doubled (RFC 4180) or escaped with a backslash. A quote that is never closed is a character: it costs no
other row. Without a header the columns are called 1, 2, 3 …
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from shards.tables.notes import note
from shards.tables.text import lines

MAX_CELL = 16 << 20
DELIMITERS = (",", "\t", ";", "|")
LONGEST_ROW = 200  # lines that one row may run over
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_URL = re.compile(r"\s*(https?://|data:image/)", re.IGNORECASE)
_IMAGE_NAME = re.compile(r'[^"<>]+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    `columns` has a name for each column, unlike all others; `header` is the number of the header's line, -1 where there is none;
    `start` is the number of the first line that belongs to the table. `padded` means that blanks stand around the cells.
    """

    delimiter: str
    columns: tuple[str, ...]
    header: int
    start: int
    padded: bool
    comments: bool


@dataclass(frozen=True)
class Line:
    """A row as it is written: its cells, none where they cannot be told apart; `ended` is whether its last line has an end."""

    cells: tuple[str, ...]
    text: str
    ended: bool
    problem: str = ""


def sniff(head: list[str], preferred: str = ",") -> Dialect:
    """Return how a table is written that begins with these lines.

    Args:
        preferred: the delimiter to take where several fit as well.
    """
    delimiter, start = "", 0
    while start < len(head) and (not head[start].strip() or _SEP_LINE.fullmatch(head[start].strip(" \r"))):
        if sep := _SEP_LINE.fullmatch(head[start].strip(" \r")):
            delimiter = sep[1]
        start += 1
    body = [i for i in range(start, len(head)) if head[i].strip() and not head[i].startswith("#")]
    hashes = [i for i in range(start, body[0] if body else len(head)) if head[i].startswith("#")]
    rows = [head[i] for i in body]
    delimiter = delimiter or _delimiter(rows, preferred)
    header = body[0] if body else start
    if rows and hashes and looks_like_data(cells_of(rows[0], delimiter)):
        named = cells_of(head[hashes[-1]].lstrip("#"), delimiter)
        if len(named) == len(cells_of(rows[0], delimiter)) > 1:
            header = hashes[-1]  # `# image,caption` over rows: a header that is written as a comment
    names = cells_of(head[header].lstrip("#") if header in hashes else head[header], delimiter) if header < len(head) else []
    padded = len(names) > 1 and all(name.startswith(" ") for name in names[1:])
    if looks_like_data(names):
        return Dialect(delimiter, tuple(str(i + 1) for i in range(len(names))), -1, start, padded, bool(hashes))
    return Dialect(delimiter, unlike(names), header, start, padded, bool(hashes))


def unlike(names: list[str]) -> tuple[str, ...]:
    """Return names without blanks around them, numbered where they repeat: text, text.1, text.2."""
    names_so_far: list[str] = []
    for name in (name.strip() for name in names):
        number, candidate = 0, name
        while candidate in names_so_far:
            number += 1
            candidate = f"{name}.{number}"
        names_so_far.append(candidate)
    return tuple(names_so_far)


def looks_like_data(cells: list[str]) -> bool:
    """Return whether cells are no names of columns: one is a web address, or an image's file name."""
    return any(_URL.match(cell) or _IMAGE_NAME.fullmatch(cell.strip()) for cell in cells)


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line by the csv module's rules; where its quotes are wrong, they are characters."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=False), [])
    except csv.Error:
        return line.split(delimiter)


def _delimiter(rows: list[str], preferred: str) -> str:
    """Return the delimiter whose cells agree in number over the first rows.

    Tabs that agree decide at once, since captions and names hold none; of the others the one with most columns does.
    """
    chosen, best = preferred, (False, 0.0)
    for delimiter in sorted(DELIMITERS, key=lambda candidate: (candidate != "\t", candidate != preferred)):
        widths = [len(cells_of(row, delimiter)) for row in rows[:50]]
        if not widths or widths[0] < 2:
            continue
        agreement = sum(width == widths[0] for width in widths) / len(widths)
        agrees = agreement >= 0.9  # a caption's own commas agree by chance in few rows
        if agrees and delimiter == "\t":
            return delimiter
        score = (agrees, widths[0] if agrees else agreement)
        if score > best:
            chosen, best = delimiter, score
    return chosen


def rows(path: str, dialect: Dialect) -> Iterator[Line]:
    """Yield each row below the header. Memory holds one row.

    Raises:
        TornFileError: a packed file is cut off.
    """
    width = len(dialect.columns)
    feed = _Feed(path, dialect.start if dialect.header < 0 else dialect.header)
    if dialect.header >= 0:
        _header(feed, dialect, width)
    for line in _records(feed, dialect, width):
        if not line.text.strip():
            continue
        if dialect.comments and line.text.startswith("#") and len(line.cells) != width:
            note("comment [line|lines] passed over", line.text)
            continue
        yield line


def _header(feed: _Feed, dialect: Dialect, width: int) -> None:
    """Pass over the header, which may run over several lines."""
    reader = csv.reader(feed, delimiter=dialect.delimiter, strict=True)
    try:
        cells = next(reader, [])
    except csv.Error:
        cells = []
    if len(feed.taken) > 1 and len(cells) != width:
        feed.only_first()
    feed.taken = []


class _Feed:
    """Gives the csv module lines one at a time, remembers which it took for a row, and takes back what it should not have."""

    def __init__(self, path: str, skip: int) -> None:
        self.source, self.back, self.taken = lines(path), deque[tuple[str, bool]](), list[tuple[str, bool]]()
        for _ in range(skip):
            next(self.source, None)

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= LONGEST_ROW:
            raise StopIteration
        self.taken.append(self.back.popleft() if self.back else next(self.source))
        return self.taken[-1][0] + "\n"

    def only_first(self) -> tuple[str, bool]:
        """Return the first line that was taken; the others are due again."""
        self.back.extendleft(reversed(self.taken[1:]))
        self.taken = self.taken[:1]
        return self.taken[0]

    def all_again(self) -> None:
        """Give back every line that was taken."""
        self.back.extendleft(reversed(self.taken))
        self.taken = []

    @property
    def text(self) -> str:
        """The lines that were taken, as one text."""
        return "\n".join(line for line, _ in self.taken)


def _records(feed: _Feed, dialect: Dialect, width: int) -> Iterator[Line]:
    """Yield each row: by doubled quotes, else by backslashes, else its first line alone with quotes as characters."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    reader = csv.reader(feed, delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.padded)
    while True:
        feed.taken = []
        try:
            cells = next(reader)
        except StopIteration:
            if not feed.taken:
                return
            cells = []
        except csv.Error:
            cells = []
        cells = _fitted(cells, width)
        plain = not cells and not feed.text.strip()  # a blank line
        if plain or (len(cells) == width and not _swallows(feed.taken, dialect.delimiter, width)):
            yield _line(cells, feed, dialect)
        elif '"' not in feed.text:
            yield _line(_fitted(feed.taken[0][0].split(dialect.delimiter), width) if len(cells) != width else cells, feed, dialect)
        else:
            yield _other(feed, dialect, width)
            reader = csv.reader(feed, delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.padded)


def _other(feed: _Feed, dialect: Dialect, width: int) -> Line:
    """Return a row whose quotes are not doubled."""
    feed.all_again()
    reader = csv.reader(feed, delimiter=dialect.delimiter, strict=True, skipinitialspace=True, escapechar="\\")
    try:
        cells = _fitted(next(reader), width)
    except (csv.Error, StopIteration):
        cells = []
    if len(cells) == width and not _swallows(feed.taken, dialect.delimiter, width):
        return _line(cells, feed, dialect)
    text, ended = feed.only_first()
    cells = text.split(dialect.delimiter)
    if len(cells) > width and cells[width - 1].lstrip().startswith('"'):
        cells = [*cells[: width - 1], dialect.delimiter.join(cells[width - 1 :])]  # an open quote holds all that follows
    cells = _fitted(cells, width)
    if len(cells) == width:
        note("[row|rows] with a stray quote, read as [it stands|they stand]", text)
        return _line([_unquoted(cell) for cell in cells], feed, dialect)
    return Line(tuple(cells), text, ended, "a quote that is not closed, or closed too early")


def _line(cells: list[str], feed: _Feed, dialect: Dialect) -> Line:
    stripped = tuple(cell.strip() for cell in cells) if dialect.padded else tuple(cells)
    return Line(stripped, feed.text, feed.taken[-1][1])


def _fitted(cells: list[str], width: int) -> list[str]:
    """Return cells without empty ones behind the last column, as spreadsheets leave them."""
    return cells[:width] if len(cells) > width and not any(cell.strip() for cell in cells[width:]) else cells


def _swallows(taken: list[tuple[str, bool]], delimiter: str, width: int) -> bool:
    """Return whether a row over several lines holds a line that is a row itself: a stray quote has swallowed it.

    A row is known by a web address or an image's name in the column where the first line has one. Tabs do not stand in
    captions: there a line with all its columns is a row.
    """
    if len(taken) < 2:
        return False
    place = _place(taken[0][0], delimiter)
    for line, _ in taken[1:]:
        if line.count(delimiter) < width - 1:
            continue
        if delimiter == "\t" or (place >= 0 and _place(line, delimiter) == place):
            return True
    return False


def _place(line: str, delimiter: str) -> int:
    """Return the number of the first cell that is a web address or an image's name, or -1; quotes are characters."""
    for i, cell in enumerate(line.split(delimiter)):
        text = cell.strip().strip('"')
        if _URL.match(text) or _IMAGE_NAME.fullmatch(text):
            return i
    return -1


def _unquoted(cell: str) -> str:
    text = cell.strip()
    whole = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "")
    return text[1:-1].replace('""', '"') if whole else cell
