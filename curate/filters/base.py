"""What a filter is: a module that measures columns once and refuses by an SQL condition over them.

A filter module has

    VERSION    raised whenever its columns change
    Options    a frozen dataclass of its options, each with a default
    MEASURE    the names of those options that shape the columns; all others are thresholds, free to change
    COLUMNS    ((name, kind), …), a kind being a word of `shards.schema.KINDS`: string, int32, int64, uint64, double, bool,
               list<string>; spelt `<filter>.<name>` in tables
    measurer(options) -> Callable[[Facts], tuple]    one value per column (None: not known)
    refuse(options) -> str     SQL that is true for a sample to be dropped; NULL keeps it. It is asked for before any work, too: what
                               it raises (UsageError) shows at once. The range of one number is declared with its option (least, most)
    detail(options) -> str     SQL that gives the ledger's detail, such as `'3 words'`

and may have

    SENSITIVE = True               what it refuses must not be seen (curate/hidden.py): asked first, and of a sample the uid,
                                   the reason and `detail` stay, which must name no more than a list
    files(options) -> list[str]    files that shape the columns though no option names them: their content is versioned
    note(options) -> str           one line said at the start of every build, where what an option means is easily missed
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
    """Refuse two limits, each within its option's own, between which nothing lies.

    Raises:
        UsageError: naming both.
    """
    if least is not None and most is not None and least > most:
        raise UsageError(f"{least_name} {least} is above {most_name} {most}: nothing would be kept")
