"""Some images of a build as a build of their own, over the same tars: what a few-shot training reads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shards.core import fs
from shards.manifest import Manifest
from shards.subset import moved_or_cut

if TYPE_CHECKING:
    import numpy as np


def write_subset(parent: Manifest, positions: np.ndarray, folder: str) -> str:
    """Write a manifest that uses the samples at these positions alone, and return its folder. No image is copied.

    Args:
        positions: in the order in which a reader of the parent meets its samples, (n,), each once.
    """
    import numpy as np

    fs.make_dirs(folder)
    wanted = np.sort(positions)
    chosen = []
    before = 0
    for entry in parent.shards:
        inside = wanted[(wanted >= before) & (wanted < before + entry.used)] - before
        if len(inside):
            chosen.append(entry.cut(entry.positions()[inside]))
        before += entry.used
    shards = moved_or_cut([(parent, entry) for entry in chosen], folder)
    part = dataclasses.replace(
        parent,
        samples=sum(entry.used for entry in shards),
        bytes=sum(entry.bytes for entry in shards),
        shards=tuple(shards),
        parents=({"manifest": parent.digest, "samples": parent.samples},),
        folder=folder,
    )
    part.save(folder)
    return folder
