"""WebDataset tars with `.cls`: a build of ours (with its manifest), or anyone's tars, CLIP_benchmark's layout included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.datasets.base import METRIC, MOST_CLASSES, TEMPLATES, Columns, Examples, label_of
from eval.packed import folder_of
from eval.splits import refuse_mixture
from shards import tar
from shards.classes.match import label_of as label_in
from shards.classes.match import match_labels
from shards.classes.names import read_names
from shards.classes.templates import read_templates
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.folders import is_visible
from shards.manifest import NAME, Manifest, read_manifest
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS

__all__ = ["METRIC", "TEMPLATES", "load", "recognises"]

# What CLIP_benchmark's wds folders keep beside their tars, or one folder up.
_MOST_LABEL = 64  # bytes that are read of a label
CLASSNAMES, PROMPTS, TYPE = "classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt"
RETRIEVAL = "retrieval"


def recognises(path: str) -> bool:
    """Return whether the path is a manifest, a tar, a pattern of tars, or a folder of either, and no packed set or set of pairs."""
    if folder_of(path)[0] or type_of(path) == RETRIEVAL:
        return False
    if path.endswith((".tar", f"/{NAME}")) or path == NAME:
        return True
    if not fs.is_dir(path):
        return False
    names = fs.names(path)
    return NAME in names or any(n.endswith(".tar") for n in names)


def type_of(path: str) -> str:
    """Return what CLIP_benchmark's `dataset_type.txt` beside the tars, or one folder up, says: retrieval, multilabel, or nothing."""
    beside = _beside(path, TYPE)
    return fs.read_bytes(beside)[:_MOST_LABEL].decode("ascii", "replace").strip().lower() if beside else ""


def load(path: str, columns: Columns) -> Examples:
    """Index the tars and read their labels; images stay where they are.

    Raises:
        UsageError: no tar, tars of several splits, images of several labels each, or a sample without image or without a whole
            number in `.cls`.
    """
    import numpy as np

    if (kind := type_of(path)) not in ("", "classification"):
        raise UsageError(f"{path}: {TYPE} says {kind!r}", "images with one label each")

    manifest = _manifest(path)
    groups = _ours(manifest) if manifest else _foreign(path)
    ids, labels, places = [], [], []
    for file, key, image, label in groups:
        ids.append(key)
        labels.append(label)
        places.append((file, image.offset, image.size))
    prompts = _beside(path, PROMPTS)
    templates = read_templates(prompts) if prompts else TEMPLATES
    names = manifest.classes if manifest else ()
    classes = names or tuple(str(i) for i in range(max(labels, default=-1) + 1))
    numbers = np.array(labels, dtype=np.int64)
    examples = Examples(label_of(path), classes, tuple(ids), numbers, lambda i: _range(*places[i]), templates, METRIC, bool(names))
    beside = _beside(path, CLASSNAMES)
    if names or not beside or numbers.min() < 0:
        return examples
    used = np.unique(numbers).tolist()
    return examples.rename(match_labels(read_names(beside, classes), used), used)


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
    files = [f for f in fs.find(path) if f.endswith(".tar") and is_visible(f.rpartition("/")[2])]
    if not files:
        raise UsageError(f"{path}: no .tar in it", "a folder of tars, a tar, or a pattern in quotes")
    if fs.is_dir(path):
        refuse_mixture(path, [fs.relative(f, path) for f in files], f"'{path.rstrip('/')}/{{}}'")
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
    text = _range(file, label.offset, min(label.size, _MOST_LABEL)).strip()
    number = label_in(text)
    if number is None or number >= MOST_CLASSES:
        found = f"{fs.printable(file)}: sample {fs.printable(group[0].key)} has {text[:40]!r} as .cls"
        raise UsageError(found, f"a class number as text, from 0, below {MOST_CLASSES:,}")
    return file, fs.printable(group[0].key), image, number


def _range(file: str, offset: int, size: int) -> bytes:
    content = fs.read_range(file, offset, size)
    if len(content) != size:
        raise RunError(f"{file}: {len(content)} of {size} bytes at {offset}", advice="shards verify")
    return content


def _beside(path: str, name: str) -> str:
    """Return the path of a file in the tars' folder, or in the folder above where the tars are a split; empty if there is none."""
    folder = path.rstrip("/") if fs.is_dir(path) else path.rpartition("/")[0] or "."
    for place in (folder, fs.join(folder, "..")):
        if fs.exists(fs.join(place, name)):
            return fs.join(place, name)
    return ""
