"""The pictures of a page: thumbnails of examples that the build kept, and of samples in the shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.report.examples import read_examples, thumbnails
from curate.report.page import named
from curate.report.sections.ledger import example_id
from curate.report.subject import pointers

if TYPE_CHECKING:
    from curate.report.subject import Subject


def gather(subject: Subject, values: Any, workers: int = 1, engine: str = "local") -> dict[str, bytes]:
    """Return the thumbnails (WebP) of all pictures that rows of `values` name; those that cannot be had are left out."""
    wanted = dict.fromkeys(name for _, name in named(values))
    found: dict[str, bytes] = {}
    for at, manifest in enumerate(subject.manifests):
        for nr, row in enumerate(read_examples(manifest.folder)):
            if (name := example_id(at, nr)) in wanted and row["thumbnail"]:
                found[name] = row["thumbnail"]
    places = pointers(subject, [name for name in wanted if not name.startswith("example/")])
    made = dict(thumbnails(sorted(set(places.values())), workers, engine))
    return found | {name: picture for name, place in places.items() if (picture := made.get(place))}
