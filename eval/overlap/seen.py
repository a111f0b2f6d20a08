"""What an evaluation knows of test images that are training images, too: which builds to look into, what was found, what rows say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.config import EvalConfig
from eval.features import Encoded
from eval.overlap import page
from eval.overlap.search import counts, matches
from shards.core.config import digest
from shards.core.console import say, warn
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest, read_written

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples

_DIGITS = 12


@dataclass(frozen=True, eq=False)
class Seen:
    """The test images that training data hold, too.

    Attributes:
        contents: sha256 (hex, ASCII bytes) of these images, (n,).
        settings: what rows say of it.
    """

    contents: np.ndarray
    settings: dict[str, Any]

    def left_of(self, test: Encoded) -> Encoded:
        """Return the test images that are left, less their features, with the digest of these images."""
        import numpy as np

        examples = test.examples.take(np.flatnonzero(~np.isin(test.examples.hashes, self.contents)))
        return Encoded(examples, np.zeros((0, 0), np.float32), examples.digest, test.undecodable)


def builds_of(config: EvalConfig, loaded: Any) -> list[Manifest]:
    """Return the builds of `--pretrain`.

    Raises:
        UsageError: one is not what the checkpoint was trained on.
    """
    trained_on = {str(manifest["digest"]) for manifest in loaded.manifests}
    builds = []
    reached = set()
    for path in config.pretrain:
        build = read_manifest(path)
        digests = {build.digest, read_written(path).digest}  # a take-down after the training changes the first
        if trained_on and not digests & trained_on:
            allowed = "builds with the digests " + ", ".join(sorted(name[:_DIGITS] for name in trained_on))
            raise UsageError(f"--pretrain {path}: digest {build.digest[:_DIGITS]}, which the checkpoint was not trained on", allowed)
        reached |= digests & trained_on
        builds.append(build)
    if builds and len(reached) < len(trained_on):
        named = f"{len(reached)} of the {len(trained_on)} builds that the checkpoint was trained on"
        warn(f"--pretrain names {named}; the others are not searched")
    return builds


def check(config: EvalConfig, trains: bool) -> None:
    """Refuse `--without-overlap` where nothing is known that test images could be in.

    Args:
        trains: the protocol trains on labelled images.

    Raises:
        UsageError: so it is.
    """
    if config.without_overlap and not config.pretrain and not trains:
        raise UsageError("--without-overlap: no training data to compare with", "--pretrain BUILD, or a protocol that trains")


def search(config: EvalConfig, test: Examples, builds: Sequence[Manifest], trained_on: Sequence[Examples]) -> Seen | None:
    """Look for the test images in training data, and write the page of pairs; None where there is nothing to look into.

    Args:
        trained_on: labelled sets that the protocol trains on; searched with `--without-overlap` alone.
    """
    import numpy as np

    sets = trained_on if config.without_overlap else ()
    if not builds and not sets:
        if config.without_overlap:
            say(f"{test.name}: training and test images are halves of one set, which share none: no rows without overlap")
        return None
    found = matches(test, builds, sets)
    counted = counts(found)
    contents = test.hashes[np.array([match.place for match in found], dtype=np.int64)]
    names = [*(build.folder for build in builds), *(examples.name for examples in sets)]
    settings: dict[str, Any] = {"seen": counted, "searched": [*(build.digest for build in builds), *(examples.digest for examples in sets)]}
    parts = ", ".join(f"{count} by {kind}" if kind != "near" else f"{count} nearly" for kind, count in counted.items())
    if found:
        pictures = page.write(config.results, test, found, names, digest([settings, sorted(contents.astype(str).tolist())]))
        warn(f"{len(found)} of {len(test)} test images of {test.name} are in the training data ({parts}): {pictures}")
    else:
        say(f"{test.name}: none of {len(test)} test images is in the training data that were searched")
    return Seen(contents, settings)
