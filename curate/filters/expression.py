"""Keep samples by an SQL condition over any measured column.

What it does: drops samples for which the condition is false; where a column's value is not known (NULL), they stay.
Why: native scores (similarity, NSFW, watermark), licences or sizes can be combined without a filter for each.
Example: `filters: [{name: expression, keep: "laion.similarity > 0.3 AND width >= 200"}]`.
Options: keep (columns of the measured table; those of sources and filters are spelt READER.NAME and FILTER.NAME).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curate.filters.base import Facts
from shards import expression
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Options:
    """The condition. Without one, nothing is dropped."""

    keep: str = option("", "SQL condition that kept samples meet, such as 'width >= 2 * height'", metavar="SQL")

    def __post_init__(self) -> None:
        """Refuse what is no condition before anything is measured."""
        if self.keep:
            expression.parse(self.keep)


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the condition reads what others measure."""
    return lambda facts: ()


def prepare(options: Options, con: Any) -> None:
    """Refuse a condition over columns that this recipe does not measure."""
    if options.keep:
        schema = con.sql("SELECT * EXCLUDE (place) FROM measured LIMIT 0").to_arrow_table().schema
        expression.Filter(expression.parse(options.keep), schema)


def refuse(options: Options) -> str:
    """Return SQL that is true where the condition is false."""
    return f"NOT ({expression.parse(options.keep).sql})" if options.keep else "FALSE"


def detail(options: Options) -> str:
    """Return SQL for the values of the columns that the condition reads, such as `width 120, height 90`."""
    columns = expression.parse(options.keep).columns if options.keep else ()
    values = [f"""'{c.replace("'", "''")} ' || coalesce("{c.replace('"', '""')}"::VARCHAR, 'unknown')""" for c in columns]
    return f"left(concat_ws(', ', {', '.join(values)}), 200)" if values else "''"
