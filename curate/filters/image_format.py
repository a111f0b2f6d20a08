"""Drop images by the format of the file that was found.

What it does: compares the file's format, told from its content and never from its name, with what you allow or deny.
Why: GIF and PNG on the web are mostly icons, charts and screenshots; a set of photos may want JPEG and WebP alone.
Example: `filters: [{name: image_format, allow: [JPEG, WEBP]}]` (an MPO, as some phones write, is a JPEG here).
Options: allow (all others go), deny (these go).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts
from shards.core.config import option
from shards.core.errors import UsageError, closest

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS: tuple[tuple[str, str], ...] = ()
_ALIASES = {"JPG": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000", "APNG": "PNG", "MPO": "JPEG"}


@dataclass(frozen=True)
class Options:
    """Formats in Pillow's words, in any case: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF …"""

    allow: tuple[str, ...] = option((), "formats to keep; all others go")
    deny: tuple[str, ...] = option((), "formats to drop")

    def __post_init__(self) -> None:
        """Refuse a name that is no format before anything is measured."""
        _formats((*self.allow, *self.deny))


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the format stands in the table."""
    return lambda facts: ()


def refuse(options: Options) -> str:
    """Return SQL that is true for a format that is not allowed, or denied; an unknown one is kept."""
    tests = [f"{_FORMAT} NOT IN {_sql(options.allow)}"] if options.allow else []
    tests += [f"{_FORMAT} IN {_sql(options.deny)}"] if options.deny else []
    return " OR ".join(tests) or "FALSE"


def detail(options: Options) -> str:
    """Return SQL for the format."""
    return "original_format"


_FORMAT = "CASE original_format WHEN 'MPO' THEN 'JPEG' WHEN '' THEN NULL ELSE original_format END"


def _sql(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in _formats(names)) + ")"


def _formats(names: tuple[str, ...]) -> list[str]:
    """Return names as Pillow spells them."""
    if not names:
        return []
    from PIL import Image

    Image.init()
    found = [_ALIASES.get(name.upper(), name.upper()) for name in names]
    for name in found:
        if name not in Image.OPEN:
            raise UsageError(f"image_format: no format {name!r}", ", ".join(sorted(Image.OPEN)), closest(name, list(Image.OPEN)))
    return found
