"""What the published layouts have in common: a root under one of several names, lists, class folders, arrays, pickles."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eval.datasets.base import Examples, read_file
from eval.downstream.base import EmptySplitError, Rule
from shards.classes.match import plain
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.folders import is_visible
from shards.image_names import is_image

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 5
# What a pickle of arrays, numbers and texts needs; whatever else it names is refused, so it can run nothing.
_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class Item(NamedTuple):
    """An image of a published set: its published name, where it lies, its label."""

    id: str
    path: str
    label: int


def root_of(path: str, layout: str, needed: Sequence[str], inner: Sequence[str] = ()) -> str:
    """Return the folder that holds the published files: the path itself, or a folder of a usual name in it.

    Args:
        layout: the module's LAYOUT, for the message.
        needed: files and folders that must be there, relative to it.
        inner: names under which archives unpack, relative to the path.

    Raises:
        UsageError: none of them has all; the message names what is missing.
    """
    path = path.rstrip("/") or "/"
    if not fs.is_dir(path):
        raise UsageError(f"no folder at {path!r}", layout)
    fewest: list[str] = []
    best = ""
    for folder in (path, *(fs.join(path, name) for name in inner)):
        if folder != path and not fs.is_dir(folder):
            continue
        missing = [name for name in needed if not fs.exists(fs.join(folder, name))]
        if not missing:
            return folder
        if not best or len(missing) < len(fewest):
            best, fewest = folder, missing
    archives = [name for name in fs.names(path) if name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz"))]
    advice = f"unpack {archives[0]} there" if archives else ""
    raise UsageError(f"{best}: no {', no '.join(fewest[:_SHOWN])}", layout, advice)


def examples(
    name: str,
    items: Sequence[Item],
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    metric: str,
    repeated: tuple[str, ...] = (),
) -> Examples:
    """Return listed images as a labelled set; that the first one is there is checked, the others are when they are read.

    Args:
        repeated: names that stand for several classes, as they are published.

    Raises:
        UsageError: no image, a label outside the classes, or a first image that is not there.
    """
    import numpy as np

    paths = [item.path for item in items]
    labels = np.array([item.label for item in items], dtype=np.int64)
    ids = tuple(fs.printable(item.id) for item in items)
    found = Examples(name, classes, ids, labels, lambda i: read_file(paths[i]), templates, metric, True, repeated)
    if not fs.exists(paths[0]):
        raise UsageError(f"{name}: {paths[0]} is not there", "the images that the lists name", "unpack the archive of images")
    return found


def lines(path: str) -> list[str]:
    """Return the lines of a text file that are not blank, without blanks around them.

    Raises:
        TornFileError: it is no UTF-8.
    """
    try:
        text = fs.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TornFileError(f"{path}: no text: {error}", "a whole list, as it is published") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def pairs(path: str) -> Iterator[tuple[str, int]]:
    """Yield the lines `NAME LABEL` of a list.

    Raises:
        TornFileError: a line is of another shape.
    """
    for number, line in enumerate(lines(path), 1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdigit():
            raise TornFileError(f"{path}: line {number} is {line[:80]!r}", "NAME LABEL", "a whole list, as it is published")
        yield name.strip(), int(label)


def read_json(path: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        TornFileError: it is cut off, or no JSON.
    """
    try:
        return json.loads(fs.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path}: not JSON: {str(error)[:120]}", "a whole file, as it is published") from error


def read_mat(path: str) -> dict[str, Any]:
    """Return the variables of a MATLAB file of version 4 to 7.2.

    Raises:
        TornFileError: it is cut off, or of another kind.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with fs.open_read(path) as file:
            return dict(loadmat(io.BytesIO(file.read()), squeeze_me=True))
    except (MatReadError, ValueError, TypeError, EOFError, NotImplementedError, zlib.error, OSError, KeyError, IndexError) as error:
        raise TornFileError(f"{path}: no MATLAB file: {str(error)[:120]}", "a whole file, as it is published") from error


def variable(content: Mapping[Any, Any], path: str, name: str) -> Any:
    """Return a variable of a file that was read.

    Raises:
        TornFileError: it has no such.
    """
    if name not in content:
        known = ", ".join(str(key) for key in list(content)[:_SHOWN])
        raise TornFileError(f"{path}: no {name!r}", f"the file as it is published; it has {known}")
    return content[name]


class _Arrays(pickle.Unpickler):
    """Reads pickles of numpy arrays, lists and texts; names of anything else are refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: str) -> dict[str, Any]:
    """Return a pickled mapping of arrays, lists and texts, as CIFAR's are; nothing in it can run.

    Raises:
        TornFileError: it is cut off, is no mapping, or names anything that is no array.
    """
    try:
        content = _Arrays(io.BytesIO(fs.read_bytes(path)), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise TornFileError(f"{path}: no pickle of arrays: {str(error)[:120]}", "a whole file, as it is published") from error
    except (ImportError, MemoryError, OverflowError, RecursionError) as error:
        raise TornFileError(f"{path}: no pickle of arrays: {type(error).__name__}", "a whole file, as it is published") from error
    if not isinstance(content, dict):
        raise TornFileError(f"{path}: holds {type(content).__name__}", "a mapping, as it is published")
    return {key.decode("ascii", "replace") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def read_array(path: str) -> np.ndarray:
    """Return a memory-mapped `.npy`.

    Raises:
        TornFileError: it is cut off, or no array.
    """
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise TornFileError(f"{path}: no array: {str(error)[:120]}", "a whole file, as it is published") from error


def class_folders(root: str, folders: Sequence[str], layout: str, beside: Sequence[str] = (), *, partial: bool = False) -> list[Item]:
    """Return the images of class folders, sorted, ids `FOLDER/FILE`; labels follow the order of `folders`.

    Args:
        beside: other folders that may stand there, and are passed over.
        partial: classes without a folder are allowed, as in a part of a set that a domain is.

    Raises:
        UsageError: a class folder is missing or empty, or there is one that is no class.
    """
    names = [name for name in fs.names(root) if is_visible(name) and fs.is_dir(fs.join(root, name))]
    missing = [folder for folder in folders if folder not in names]
    if missing and (not partial or len(missing) == len(folders)):
        listed = ", ".join(missing[:_SHOWN])
        raise UsageError(f"{root}: {len(missing)} of {len(folders)} class folders are not there: {listed}", layout)
    strange = [name for name in names if name not in folders and name not in beside]
    if strange:
        raise UsageError(f"{root}: {strange[0]!r} is no class of the set", ", ".join(folders[:_SHOWN]) + ", …", "move it elsewhere")
    items = []
    for label, folder in enumerate(folders):
        if folder in missing:
            continue
        inside = [name for name in fs.walk(fs.join(root, folder)) if is_image(name) and is_visible(name)]
        if not inside:
            raise UsageError(f"{fs.join(root, folder)}: no image in it", layout)
        items += [Item(f"{folder}/{name}", fs.join(root, folder, name), label) for name in inside]
    return items


def by_rule(items: Sequence[Item], rule: Rule, split: str) -> list[Item]:
    """Return the items that a rule puts into a split.

    Raises:
        EmptySplitError: none.
    """
    sides = rule.sides([item.id for item in items], [item.label for item in items])
    chosen = [item for item, side in zip(items, sides, strict=True) if side == split]
    if not chosen:
        raise EmptySplitError(f"{rule.name}: the rule puts none of the {len(items)} images into {split!r}", "the whole published set")
    return chosen


def check_order(where: str, classes: Sequence[str], stated: Iterable[str]) -> None:
    """Refuse data whose own class names, in label order, are not the known ones: a head would answer for other classes.

    Raises:
        UsageError: naming the first label that differs.
    """
    names = list(stated)
    if len(names) != len(classes):
        raise UsageError(f"{where}: {len(names)} classes", f"{len(classes)}, as the set has")
    for label, (known, name) in enumerate(zip(classes, names, strict=True)):
        if plain(known) != plain(name):
            raise UsageError(
                f"{where}: label {label} is {name!r}", f"{known!r}, as in the published set", "the labels stand in another order"
            )
