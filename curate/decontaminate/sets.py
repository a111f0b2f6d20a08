"""Test sets: their images wherever they lie, hashed in all views once, and kept in the work folder by content."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from curate.decontaminate import plant, views
from curate.decontaminate.plant import KINDS
from curate.decontaminate.views import VIEWS
from curate.images import VERSION as IMAGES_VERSION
from curate.images import ImagePolicy, ImageRefusedError, open_image
from curate.sources.base import list_inputs
from shards import tar
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.errors import UsageError
from shards.image_names import is_image
from shards.manifest import NAME, Manifest, read_manifest
from shards.phash import LOW_INFORMATION, VERSIONS
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Pointer = tuple[str, int, int]

PLANTED = 100  # images of a set from which copies are planted, one of each kind
BATCH = 32


@dataclasses.dataclass(frozen=True)
class ExcludedSet:
    """A test set whose images must not be in a build.

    Attributes:
        name: the last part of its path, unique among the sets.
        names: its images, by their paths within the set.
        pointers: where their bytes lie: (path, offset, size), size -1 for a whole file.
        sha256: of each image's bytes, "" where they could not be read.
        status: "" or why an image could not be read.
        usable: whether its hash says enough for a near match; equal bytes count for all.
        views: hashes, shape (images, views); the first view is the image as it is.
        planted: hashes of planted copies, shape (copies, kinds); 0 where a copy holds too little information.
        vectors, copies: files of the images' and of the planted copies' embeddings, where the recipe asks for them.
    """

    name: str
    names: list[str]
    pointers: list[Pointer]
    sha256: list[str]
    status: list[str]
    usable: NDArray[np.bool_]
    views: NDArray[np.uint64]
    planted: NDArray[np.uint64]
    vectors: str = ""
    copies: str = ""

    @property
    def chosen(self) -> list[int]:
        """The images from which copies are planted, in the order of `planted`."""
        return [i for i in sorted(_chosen(self.names)) if not self.status[i]]

    @property
    def digest(self) -> str:
        """The digest of what the set holds: its images' names and bytes."""
        return digest(list(zip(self.names, self.sha256, strict=True)))


def version(sets: list[ExcludedSet]) -> str:
    """Return what a build's outcome depends on: what the sets hold, their names, and the views."""
    return digest([views.VERSION, VIEWS, [[s.name, s.digest, s.views.shape[1]] for s in sets]])


@dataclasses.dataclass(frozen=True)
class HashTask:
    """Some images of a set, to be hashed; of the planted ones copies, too."""

    start: int
    pointers: tuple[Pointer, ...]
    planted: frozenset[int]
    kind: str
    policy: ImagePolicy
    views: bool


def open_sets(
    paths: tuple[str, ...], kind: str, policy: ImagePolicy, with_views: bool, work: str, workers: int, engine: str
) -> list[ExcludedSet]:
    """Return the test sets at the paths; what the work folder knows already is not hashed again.

    Args:
        paths: folders of images or tars, globs, or manifests of builds.
        kind: the build's pHash: reference, scaled or fast.
        policy: what an image becomes in the build.

    Raises:
        UsageError: nothing at a path, or no image there.
    """
    return [
        _open_set(name, path, HashTask(0, (), frozenset(), kind, policy, with_views), work, workers, engine)
        for name, path in zip(_unique_names(paths), paths, strict=True)
    ]


def _unique_names(paths: tuple[str, ...]) -> list[str]:
    names = [path.removesuffix("/" + NAME).rstrip("/").rpartition("/")[2] for path in paths]
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _open_set(name: str, path: str, how: HashTask, work: str, workers: int, engine: str) -> ExcludedSet:
    import numpy as np
    import pyarrow.parquet as pq

    listed, identity = list_images(path)
    names, pointers = [n for n, _ in listed], [p for _, p in listed]
    code = [views.VERSION, VIEWS, plant.VERSION, plant.KINDS, PLANTED, IMAGES_VERSION, VERSIONS[how.kind]]
    key = digest([code, how.policy, how.views, names, identity])
    target = fs.join(work, "excluded", f"{key}.parquet")
    if not fs.exists(target):
        fs.make_dirs(fs.join(work, "excluded"))
        rows = _hash(name, names, pointers, how, workers, engine)
        with fs.atomic_write(target) as file:
            pq.write_table(rows, file, compression="zstd")
    with fs.open_read(target) as file:
        table = pq.read_table(file)
    seen, copies = (table[column].combine_chunks().flatten().to_numpy() for column in ("views", "planted"))
    matrix = np.column_stack([table["phash"].to_numpy(), seen.reshape(len(names), -1)])
    planted = copies.reshape(-1, len(KINDS))
    sha256, status = table["sha256"].to_pylist(), table["status"].to_pylist()
    return ExcludedSet(name, names, pointers, sha256, status, np.asarray(table["usable"].to_pylist(), bool), matrix, planted)


def list_images(path: str) -> tuple[list[tuple[str, Pointer]], list[Any]]:
    """Return the images at a path, (name within the set, pointer), and what tells one version of their files from another."""
    inside = fs.join(path, NAME)
    if path.endswith(NAME) or (fs.is_dir(path) and fs.exists(inside)):
        return _of_build(read_manifest(path))
    try:
        files = list_inputs(path)
    except UsageError:
        raise UsageError(f"no test set at {path!r}", "a folder of images, plain tars, or a build", "--exclude-near PATH") from None
    listed: list[tuple[str, Pointer]] = []
    used = []
    for file in files:
        if is_image(file.path):
            listed.append((_utf8(file.name), (file.path, 0, -1)))
        elif file.path.endswith(".tar"):
            with fs.open_read(file.path) as opened:
                members = [m for m in tar.walk(opened, file.path) if is_image(m.name)]
            listed += [(_utf8(f"{file.name}/{m.name}"), (file.path, m.offset, m.size)) for m in members]
        else:
            continue
        used.append(file.path)
    if not listed:
        raise UsageError(f"no image in the test set {path!r}", "a folder of images, plain tars, or a build")
    return listed, [fs.identity(file)[1:] for file in used]


def _utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _of_build(manifest: Manifest) -> tuple[list[tuple[str, Pointer]], list[Any]]:
    listed, versions = [], []
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            versions.append(fs.identity(shard.path)[1:])
            members = [m for group in shard.groups for m in group if is_image(m.name)]
            listed += [(f"{entry.path}/{m.name}", (shard.path, m.offset, m.size)) for m in members]
    if not listed:
        raise UsageError(f"no image in the build {manifest.folder!r}", "a folder of images, plain tars, or a build")
    return listed, versions


def _hash(name: str, names: list[str], pointers: list[Pointer], how: HashTask, workers: int, engine: str) -> pa.Table:
    """Hash all images of a set; one that kills its worker becomes a row that says so."""
    import pyarrow as pa

    chosen = _chosen(names)
    tasks = [
        dataclasses.replace(how, start=i, pointers=tuple(pointers[i : i + BATCH]), planted=chosen & frozenset(range(i, i + BATCH)))
        for i in range(0, len(names), BATCH)
    ]
    rows: list[dict[str, Any]] = [{}] * len(names)
    with Progress(f"hash {name}", len(names), "images") as progress:
        for outcome in map_unordered(hash_batch, tasks, workers=min(workers, len(tasks)), engine=engine, split=halves, timeout=600):
            task = outcome.spec
            pictures = outcome.result if isinstance(outcome, Done) else [_unread(task, outcome.reason)]
            rows[task.start : task.start + len(pictures)] = pictures
            progress.add(len(pictures))
    hashes = pa.list_(pa.uint64())
    columns = [("sha256", pa.string()), ("status", pa.string()), ("usable", pa.bool_()), ("phash", pa.uint64())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*columns, ("views", hashes), ("planted", hashes)]))


def _chosen(names: list[str]) -> frozenset[int]:
    """Choose the images from which copies are planted: by their names alone, so the same ones everywhere."""
    by_hash = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    return frozenset(by_hash[:PLANTED])


def halves(task: HashTask) -> list[HashTask]:
    """Divide a task whose worker died; a single image is not divided."""
    middle = len(task.pointers) // 2
    if not middle:
        return []
    first = dataclasses.replace(task, pointers=task.pointers[:middle])
    return [first, dataclasses.replace(task, start=task.start + middle, pointers=task.pointers[middle:])]


def hash_batch(task: HashTask) -> list[dict[str, Any]]:
    """Hash the images of a task; runs in a worker."""
    return [_row(task, i, pointer) for i, pointer in enumerate(task.pointers, task.start)]


def _row(task: HashTask, i: int, pointer: Pointer) -> dict[str, Any]:
    try:
        content = fs.read_range(*pointer)
        opened = open_image(content, task.policy, task.kind)
    except (OSError, ImageRefusedError) as error:
        detail = error.detail if isinstance(error, ImageRefusedError) else str(error)
        return _unread(task, detail)
    stored = opened.encoded or content
    return {
        "sha256": hashlib.sha256(content).hexdigest(), "status": "", "usable": opened.information >= LOW_INFORMATION, "phash": opened.phash,
        "views": views.view_hashes(stored).tolist() if task.views else [],
        "planted": _planted(task, stored) if i in task.planted else [],
    }  # fmt: skip


def _planted(task: HashTask, content: bytes) -> list[int]:
    """Return the hashes of an image's planted copies, as the build would have them."""
    copies = [open_image(copy, task.policy, task.kind) for copy in plant.planted(content)]
    return [copy.phash if copy.information >= LOW_INFORMATION else 0 for copy in copies]


def _unread(task: HashTask, why: str) -> dict[str, Any]:
    none = [0] * (len(VIEWS) - 1) if task.views else []
    return {"sha256": "", "status": why or "unreadable", "usable": False, "phash": 0, "views": none, "planted": []}
