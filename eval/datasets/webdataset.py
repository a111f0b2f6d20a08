"""WebDataset tars with `.cls`: a build of ours (with its manifest), or anyone's tars, CLIP_benchmark's layout included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples, label_of
from shards import tar
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.manifest import NAME, Manifest, read_manifest
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]

# What CLIP_benchmark's wds folders keep beside their tars, or one folder up.
CLASSNAMES, PROMPTS = "classnames.txt", "zeroshot_classification_templates.txt"


def recognises(path: str) -> bool:
    """Return whether the path is a manifest, a tar, a pattern of tars, or a folder of either."""
    if path.endswith((".tar", f"/{NAME}")) or path == NAME:
        return True
    if not fs.is_dir(path):
        return False
    names = fs.names(path)
    return NAME in names or any(n.endswith(".tar") for n in names)


def load(path: str, columns: Columns) -> Examples:
    """Index the tars and read their labels; images stay where they are.

    Raises:
        UsageError: no tar, or a sample without image or without a whole number in `.cls`.
    """
    import numpy as np

    manifest = _manifest(path)
    groups = _ours(manifest) if manifest else _foreign(path)
    ids, labels, places = [], [], []
    for file, key, image, label in groups:
        ids.append(key)
        labels.append(label)
        places.append((file, image.offset, image.size))
    names = (manifest.classes if manifest else ()) or _beside(path, CLASSNAMES)
    classes = names or tuple(str(i) for i in range(max(labels, default=-1) + 1))
    return Examples(
        label_of(path),
        classes,
        tuple(ids),
        np.array(labels, dtype=np.int64),
        lambda i: _range(*places[i]),
        templates=_beside(path, PROMPTS) or TEMPLATES,
        metric=METRIC,
        named=bool(names),
    )


def _manifest(path: str) -> Manifest | None:
    if path.endswith(NAME) or (fs.is_dir(path) and fs.exists(fs.join(path, NAME))):
        return read_manifest(path)
    return None


def _ours(manifest: Manifest) -> Iterator[tuple[str, str, tar.Member, int]]:
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            for group in shard.groups:
                yield _labelled(shard.path, group)


def _foreign(path: str) -> Iterator[tuple[str, str, tar.Member, int]]:
    files = [f for f in fs.find(path) if f.endswith(".tar")]
    if not files:
        raise UsageError(f"{path}: no .tar in it", "a folder of tars, a tar, or a pattern in quotes")
    for file in files:
        for group in tar.read_index(file):
            yield _labelled(file, group)


def _labelled(file: str, group: Sequence[tar.Member]) -> tuple[str, str, tar.Member, int]:
    image = next((m for m in group if m.ext.lower() in IMAGE_EXTENSIONS), None)
    label = next((m for m in group if m.ext == "cls"), None)
    if image is None or label is None:
        found = ", ".join(f".{m.ext}" for m in group)
        raise UsageError(
            f"{file}: sample {group[0].key} has {found}", f"an image ({', '.join(IMAGE_EXTENSIONS)}) and .cls", "use labelled shards"
        )
    text = _range(file, label.offset, label.size).strip()
    if not text.lstrip(b"-").isdigit():
        raise UsageError(f"{file}: sample {group[0].key} has {text[:40]!r} as .cls", "a whole number as text")
    return file, group[0].key, image, int(text)


def _range(file: str, offset: int, size: int) -> bytes:
    content = fs.read_range(file, offset, size)
    if len(content) != size:
        raise RunError(f"{file}: {len(content)} of {size} bytes at {offset}", advice="shards verify")
    return content


def _beside(path: str, name: str) -> tuple[str, ...]:
    """Return the lines of a file in the tars' folder, or in the folder above where the tars are a split."""
    folder = path.rstrip("/") if fs.is_dir(path) else path.rpartition("/")[0] or "."
    for place in (folder, fs.join(folder, "..")):
        if fs.exists(fs.join(place, name)):
            return tuple(line.strip() for line in fs.read_text(fs.join(place, name)).splitlines() if line.strip())
    return ()
