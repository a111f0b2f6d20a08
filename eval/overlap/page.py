"""The page that shows test images beside the training images that they were found as: no script, no request."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.overlap.near import RADIUS
from eval.overlap.search import NEAR, Match, counts
from shards.core import fs
from shards.core.errors import ProvenderError
from shards.upright import open_image, upright_rgb

if TYPE_CHECKING:
    from eval.datasets.base import Examples

SUFFIX = ".overlap"
MOST_SHOWN = 200
_SIDE, _QUALITY = 160, 80  # pixels of a thumbnail's longest side: about 6 kB, so that 400 of them stay below 3 MB


def write(results: str, test: Examples, found: Sequence[Match], training: Sequence[str], digest: str) -> str:
    """Write the page into a folder beside the table of results, and return its path; equal overlaps give equal bytes.

    Args:
        training: what the training data are called.
        digest: of the overlap; the file is named for it.
    """
    import jinja2

    folder = results.removesuffix(".jsonl") + SUFFIX
    path = fs.join(folder, f"{digest[:16]}.html")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    environment.globals.update(number=lambda value: f"{value:,}")
    text = environment.get_template("page.html").render(
        style=(Path(__file__).parent / "style.css").read_text(encoding="utf-8"),
        name=fs.printable(test.name),
        total=len(test),
        found=len(found),
        counts=counts(found),
        radius=RADIUS,
        training=[fs.printable(name) for name in training],
        pairs=[_pair(test, match) for match in found[:MOST_SHOWN]],
    )
    fs.make_dirs(folder)
    fs.write_text(path, text)
    return path


def _pair(test: Examples, match: Match) -> dict[str, Any]:
    return {
        "id": fs.printable(test.ids[match.place]),
        "label": fs.printable(test.classes[test.labels[match.place]]),
        "test": _thumbnail(lambda: test.read(match.place)),
        "training": _thumbnail(match.picture),
        "where": fs.printable(match.where),
        "how": f"hashes {match.bits} bits apart" if match.how == NEAR else match.how,
    }


def _thumbnail(read: Any) -> str:
    """Return a picture as a data URI; empty where it cannot be read."""
    try:
        image = upright_rgb(open_image(read()))
    except (OSError, ProvenderError, ValueError):
        return ""
    image.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
