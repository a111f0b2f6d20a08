"""The pictures of a page: thumbnails of examples that the build kept, and of samples in the shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from curate.report.examples import Pointer, read_examples, thumbnails
from curate.report.page import named
from curate.report.sections.ledger import example_id
from curate.report.stats.rows import image_of
from shards.core.notices import note
from shards.manifest import Manifest
from shards.reader import Shard

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
    return found | of_samples(subject.manifests, [name for name in wanted if not name.startswith("example/")], workers, engine)


def of_samples(manifests: Sequence[Manifest | None], names: Iterable[str], workers: int = 1, engine: str = "local") -> dict[str, bytes]:
    """Return the thumbnails (WebP) of samples by their names, see `pointers`; those that cannot be had are left out."""
    places = pointers(manifests, names)
    made = dict(thumbnails(sorted(set(places.values())), workers, engine))
    gone = [place for place in places.values() if not made.get(place)]
    where = f"such as one in {gone[0][0]}" if gone else ""
    note(len(gone), "[picture|pictures] of the page could not be read and [is|are] left out", where)
    return {name: picture for name, place in places.items() if (picture := made.get(place))}


def pointers(manifests: Sequence[Manifest | None], names: Iterable[str]) -> dict[str, Pointer]:
    """Return (tar, offset, size) of the images of samples by their names; a sample without an image is left out.

    Args:
        manifests: of the sets; a list of ids among them has none, and no name is of it.
        names: SET/SHARD/POSITION: the set among `manifests`, the shard in it, and the position among the shard's samples in use.
    """
    by_shard: dict[tuple[int, int], list[int]] = {}
    for at, number, position in (map(int, name.split("/")) for name in names):
        by_shard.setdefault((at, number), []).append(position)
    found: dict[str, Pointer] = {}
    for (at, number), positions in by_shard.items():
        manifest = manifests[at]
        assert manifest is not None
        with Shard(manifest, manifest.shards[number]) as shard:
            for position in positions:
                if image := image_of(shard.groups[position]):
                    found[f"{at}/{number}/{position}"] = (shard.path, image.offset, image.size)
    return found
