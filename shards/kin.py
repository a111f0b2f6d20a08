"""Sets beside a build: subsets over its tars, and sets whose own tars hold copies of its samples.

A set is beside a build if its folder lies in the folder that the build's lies in, or in the build's own: where people put
their subsets. Others are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from shards.core import fs
from shards.core.errors import ProvenderError
from shards.manifest import HOLDOUT, NAME, SIZES, Manifest, read_manifest
from shards.reader import Shard
from shards.uids import UidSet, unpack


def beside(folder: str) -> Iterator[Manifest]:
    """Yield the sets beside the one in `folder`, its own held-out samples left out; what cannot be read is passed over."""
    home = folder.rstrip("/") or "/"
    around = home.rpartition("/")[0] or ("/" if home.startswith("/") else ".")
    places = [fs.join(around, name) for name in fs.names(around)] if fs.is_dir(around) else []
    places = [place for place in places if _name(place) != _name(home)]
    places += [fs.join(place, HOLDOUT) for place in places]
    places += [fs.join(home, name) for name in fs.names(home) if name != HOLDOUT]
    for place in places:
        try:
            if fs.exists(fs.join(place, NAME)):
                yield read_manifest(place)
        except (ProvenderError, OSError):
            continue


def copies_beside(folder: str, uids: UidSet) -> dict[str, list[str]]:
    """Return the folders of sets beside a build whose own tars hold some of these uids, each with those."""
    held: dict[str, list[str]] = {}
    for manifest in beside(folder):
        listed = UidSet(uids.uids)  # it remembers what it met
        try:
            for entry in manifest.shards:
                if entry.own and entry.sidecar_sha256:  # keys of other people's tars are no uids
                    with Shard(manifest, entry) as shard:
                        listed.holds(shard)
        except (ProvenderError, OSError):
            continue
        if listed.met.any():
            held[manifest.folder] = list(unpack(listed.uids[listed.met]))
    return held


def renew_sizes(folder: str) -> int:
    """Write sizes.json anew in the sets beside a build that use its tars, where it counts samples that were taken down.

    Returns:
        How many were written.
    """
    renewed = 0
    for manifest in beside(folder):
        path = fs.join(manifest.folder, SIZES)
        if not fs.exists(path) or not _uses_tars_of(manifest, folder):
            continue
        sizes = manifest.sizes_json()
        if fs.read_text(path) != sizes:
            fs.write_text(path, sizes)
            renewed += 1
    return renewed


def _uses_tars_of(manifest: Manifest, folder: str) -> bool:
    homes = {manifest.folder_of(entry) for entry in manifest.shards if not entry.own}
    return any(fs.relative(home, folder) in (".", HOLDOUT) for home in homes if not fs.is_remote(home))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
