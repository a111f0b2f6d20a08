"""How every figure was made: definitions, seeds, versions, digests, recipes. A reader can recompute the page from it."""

from __future__ import annotations

import platform
import unicodedata
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from curate.report import stats
from curate.report.recipe import filter_line, flattened, read_recipe
from shards.manifest import Manifest

if TYPE_CHECKING:
    from curate.report.subject import Subject

PACKAGES = ("provender", "numpy", "scipy", "duckdb", "pyarrow", "py3langid", "open_clip_torch", "ftfy", "matplotlib")


def collect(subject: Subject) -> dict[str, Any]:
    """Return what was counted of each set, by which definitions, and with which versions."""
    packages = {name: version(name) for name in PACKAGES}
    return {
        "sets": [_of_set(manifest) for manifest in subject.manifests],
        "sample": subject.drawn,
        "statistics": stats.version(),
        "versions": {"python": platform.python_version(), "unicode": unicodedata.unidata_version, **packages},
    }


def figures(values: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """There is nothing to draw."""
    return {}


def _of_set(manifest: Manifest) -> dict[str, Any]:
    recipe = read_recipe(manifest.folder)
    return {
        "samples": manifest.samples,
        "shards": len(manifest.shards),
        "bytes": manifest.bytes,
        "members": list(manifest.members),
        "seed": manifest.seed,
        "builder": manifest.builder,
        "manifest": manifest.digest,
        "recipe_digest": manifest.recipe,
        "table": manifest.table,
        "filters": filter_line(recipe),
        "recipe": dict(flattened(recipe)),
    }
