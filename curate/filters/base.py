"""What a filter is: a module that measures columns once and refuses by an SQL condition over them.

A filter module has

    VERSION    raised whenever its columns change
    Options    a frozen dataclass of its options, each with a default
    MEASURE    the names of those options that shape the columns; all others are thresholds, free to change
    COLUMNS    ((name, type), …) in the words of `shards.schema.arrow_schema`; spelt `<filter>.<name>` in tables
    measurer(options) -> Callable[[Facts], tuple]    one value per column (None: not known)
    refuse(options) -> str     SQL that is true for a sample to be dropped; NULL keeps it
    detail(options) -> str     SQL that gives the ledger's detail, such as `'3 words'`

and may have

    files(options) -> list[str]    files that shape the columns though no option names them: their content is versioned
    prepare(options, con)      makes the tables that its SQL needs, on the DuckDB connection that decides

The reason in the ledger is the filter's name. Its docstring has four headings: what it does, why, example, options.
A filter without columns of its own may refuse by any column of `curate.table.MEASURED` (width, height, caption …).
"""

from __future__ import annotations

import builtins
from typing import NamedTuple

from shards.core.errors import UsageError


class Facts(NamedTuple):
    """What a filter may look at while measuring: captions, and the image's numbers.

    `content` is the original file, for digests; a filter never decodes it. It is empty where there is no image.
    """

    source: str
    caption: str
    captions: tuple[str, ...]
    caption_raw: str
    width: int
    height: int
    original_width: int
    original_height: int
    original_format: str
    bytes: int
    class_name: str
    url: str = ""
    content: builtins.bytes = b""


def outside(sql: str, least: float | None, most: float | None, least_name: str, most_name: str) -> str:
    """Return SQL that is true where a number lies outside of limits; None is no limit. NULL stays NULL.

    Raises:
        UsageError: see `check_limits`.
    """
    check_limits(least, most, least_name, most_name)
    tests = [f"{sql} < {least!r}"] if least else []
    tests += [f"{sql} > {most!r}"] if most is not None else []
    return f"({' OR '.join(tests) or 'FALSE'})"


def check_limits(least: float | None, most: float | None, least_name: str, most_name: str) -> None:
    """Refuse limits that cannot be meant.

    Raises:
        UsageError: a limit is negative, or nothing lies between the two.
    """
    for name, limit in ((least_name, least), (most_name, most)):
        if limit is not None and limit < 0:
            raise UsageError(f"{name}: found {limit}", "a number of at least 0")
    if least is not None and most is not None and least > most:
        raise UsageError(f"{least_name} {least} is above {most_name} {most}: nothing would be kept")


def share(name: str, value: float | None) -> None:
    """Refuse an option that is no share of a whole.

    Raises:
        UsageError: below 0, above 1, or no number.
    """
    if value is not None and not 0.0 <= value <= 1.0:
        raise UsageError(f"{name}: found {value}", "a number from 0 to 1")
