"""ImageNet as people have it: class folders, flat validation files with their solution, tars of classes, the tar of tars.

Nothing is unpacked: an image inside a tar, or inside a tar in a tar, is a byte range of the outer file. An image's name
is its file name; its class is the folder or class tar that it is in, else the `n01440764_` its name begins with, else
what the solution file says.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from curate.sources.base import Input, Pointer, list_inputs
from shards import tar
from shards.classes.match import sorted_classes
from shards.core import fs
from shards.core.errors import UsageError
from shards.folders import is_visible
from shards.image_names import is_image

SOLUTION = "LOC_val_solution.csv"
PARENTS = 5  # so far above a class folder stand Kaggle's map and solution
WNID = re.compile(r"n\d{8}")
_PREFIX = re.compile(r"(n\d{8})_")
_NO_CLASS = re.compile(r"ILSVRC2012_(val|test)_\d{8}\.")
_INNER = "ILSVRC/Data/CLS-LOC"
_EXPECTED = "class folders, class tars, ILSVRC2012_img_train.tar, or flat files named n01440764_….JPEG or solved by " + SOLUTION


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file: its name, its class, where its bytes lie, and what is wrong with it."""

    name: str
    wnid: str
    image: Pointer
    problem: str = ""

    @property
    def id(self) -> str:
        """The image's id: its file name where that names the class or is ILSVRC's, else its class and its file name.

        Files of other sets have equal names in several classes: image_0001.jpg is in each of Caltech-101's.
        """
        names_its_class = _PREFIX.match(self.name) or _NO_CLASS.match(self.name) or not self.wnid
        return self.name if names_its_class else f"{self.wnid}/{self.name}"


def inputs(pattern: str, split: str) -> list[Input]:
    """Return one input per class folder, one per tar, or the flat folder itself.

    Raises:
        UsageError: there is nothing of the kind.
    """
    if not fs.is_dir(pattern):
        named = {input.path: input.name for input in list_inputs(pattern, (".tar",))}
        paths = list(named)
    else:
        folder = root(pattern, split)
        names = tuple(fs.names(folder))
        classes = _class_folders(folder, names) or tuple(n for n in names if n.endswith(".tar"))
        paths = [fs.join(folder, name) for name in classes] or [folder]
        named = {path: fs.relative(path, pattern) for path in paths}
        if not classes and not any(map(is_image, names)):
            raise UsageError(f"no classes of images in {folder!r}", _EXPECTED)
    for path in paths:
        if not fs.is_dir(path):
            _refuse_foreign(path)
    return [Input(path, named[path]) for path in paths]


def root(folder: str, split: str) -> str:
    """Return the folder that holds the classes: that of the split where a folder has splits, else the folder itself."""
    folder = folder.rstrip("/") or "/"
    for inner in (f"{_INNER}/{split}", split):
        if _holds_classes(fs.join(folder, inner)):
            return fs.join(folder, inner)
    others = [s for s in ("train", "val", "test") if s != split and _holds_classes(fs.join(folder, s))]
    if others:
        raise UsageError(f"{folder!r} has no split {split!r}", f"--split {' | '.join(others)}")
    return folder


def _holds_classes(folder: str) -> bool:
    names = tuple(fs.names(folder)) if fs.is_dir(folder) else ()
    flat = any(_PREFIX.match(n) or _NO_CLASS.match(n) for n in names[:100])
    return flat or any(n.endswith(".tar") for n in names) or bool(_class_folders(folder, names))


def _class_folders(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those names in a folder that are folders of images."""
    visible = [name for name in names if is_visible(name) and fs.exists(fs.join(folder, name))]
    return _with_images(folder, tuple((name, str(fs.identity(fs.join(folder, name)))) for name in visible))


@lru_cache(8)
def _with_images(folder: str, folders: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Remembered by the folders' times, since each of a thousand classes asks for all of them."""
    inner = [(name, fs.join(folder, name)) for name, _ in folders]
    return tuple(name for name, path in inner if fs.is_dir(path) and any(map(is_image, fs.names(path))))


def layout(path: str, solution: dict[str, str]) -> str:
    """Return what an input is, in words."""
    if fs.is_dir(path):
        return (
            f"flat files solved by {SOLUTION}" if solution else "flat files, classes in their names" if _is_flat(path) else "class folder"
        )
    if (first := _first(path)).endswith(".tar"):
        return "tar of class tars"
    return f"tar of flat files solved by {SOLUTION}" if solution else "tar of class folders" if "/" in first else "class tar"


def solution_of(path: str, labels: str) -> dict[str, str]:
    """Return the classes of an input's images by name, where only a solution file has them; else nothing.

    Raises:
        UsageError: images that need a solution have none.
    """
    names = fs.names(path) if fs.is_dir(path) else [_first(path)]
    if not any(map(_NO_CLASS.match, names)):
        return {}
    solution = labels or beside(path, SOLUTION)
    if not solution:
        raise UsageError(f"{path}: the classes of ILSVRC2012_val_….JPEG stand in {SOLUTION}, which is not there", "--labels FILE")
    return _read_solution(solution, str(fs.identity(solution)) if fs.exists(solution) else "")


@lru_cache(2)
def _read_solution(path: str, version: str) -> dict[str, str]:
    """Return the class of each validation image as Kaggle's CSV has it: ImageId, `n01978287 240 170 260 240`."""
    if not fs.exists(path):
        raise UsageError(f"no solution file at {path!r}")
    rows = csv.DictReader(io.StringIO(fs.read_text(path), newline=""))
    columns = list(rows.fieldnames or ())
    if not {"ImageId", "PredictionString"} <= set(columns):
        raise UsageError(f"{path}: its columns are {', '.join(columns) or 'none'}", "ImageId, PredictionString, as Kaggle has them")
    classes = {}
    for number, row in enumerate(rows, 2):
        wnid = (row["PredictionString"] or "").split(" ")[0]
        if not WNID.fullmatch(wnid):
            raise UsageError(f"{path}: row {number}: no class in {row['PredictionString']!r}", "n01978287 240 170 260 240")
        classes[(row["ImageId"] or "").partition(".")[0]] = wnid
    return classes


def pictures(path: str, solution: dict[str, str]) -> Iterator[Picture]:
    """Yield the images of an input, in the order of their names or of the tar.

    Raises:
        TornFileError: a tar is cut off; images before the cut were yielded.
    """
    if not fs.is_dir(path):
        with fs.open_read(path) as file:
            yield from _members(file, path, 0, path, solution)
        return
    for name in fs.names(path):
        if is_image(name) and is_visible(name):
            yield Picture(fs.printable(name), _class_of(name, _base(path), solution), Pointer(fs.join(path, name)))


def _members(file: IO[bytes], path: str, start: int, container: str, solution: dict[str, str]) -> Iterator[Picture]:
    for member in tar.walk(file, container, hostile=True):
        place, name = Pointer(path, start + member.offset, member.size), fs.printable(member.name)
        folder, _, base = name.rpartition("/")
        if tar.leads_out(member.name):
            yield Picture(name, "", place, f"member {name!r} leads out of the archive")
        elif base.endswith(".tar"):
            inner: Any = _Window(file, member.offset, member.size)
            yield from _members(inner, path, place.offset, f"{container}: {name}", solution)
        elif is_image(base) and is_visible(name):
            yield Picture(base, _class_of(base, _base(folder) or _stem(container.rpartition(": ")[2]), solution), place)


class _Window(io.RawIOBase):
    """A range of an open file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        self._at += len(content)
        return content


def _class_of(name: str, container: str, solution: dict[str, str]) -> str:
    """Return an image's class: its container where that is one, else what its name or the solution says."""
    if WNID.fullmatch(container):
        return container
    if prefix := _PREFIX.match(name):
        return prefix[1]
    return solution.get(name.partition(".")[0], "") if solution else container


def classes_of(path: str, solution: dict[str, str]) -> tuple[str, ...]:
    """Return all classes that stand beside an input's own, in the order of `sorted_classes`: they number the classes where no map does."""
    if solution:
        return sorted_classes(list(set(solution.values())))
    folder = path.rpartition("/")[0] or "."
    if fs.is_dir(path):
        if _is_flat(path):
            return sorted_classes(list({p.wnid for p in pictures(path, {})}))
        return sorted_classes(_class_folders(folder, tuple(fs.names(folder))))
    first = _first(path)
    if first.endswith(".tar"):
        with fs.open_read(path) as file:
            return sorted_classes([_stem(m.name) for m in tar.walk(file, path, hostile=True) if m.name.endswith(".tar")])
    if "/" in first:
        return sorted_classes(list({p.wnid for p in pictures(path, {}) if not p.problem}))
    return sorted_classes([_stem(n) for n in fs.names(folder) if n.endswith(".tar")])


def beside(path: str, name: str) -> str:
    """Return the file of that name beside a path, in it, or above it; else an empty string."""
    folder = path.rstrip("/")
    for _ in range(PARENTS + 1):
        if fs.is_dir(folder) and fs.exists(fs.join(folder, name)):
            return fs.join(folder, name)
        folder = folder.rpartition("/")[0]
    return name if not path.startswith("/") and not fs.is_remote(path) and fs.exists(name) else ""


def _is_flat(path: str) -> bool:
    images = [n for n in fs.names(path) if is_image(n)]
    return not WNID.fullmatch(_base(path)) and bool(images) and bool(_PREFIX.match(images[0]))


def _first(path: str) -> str:
    """Return the name of a tar's first file."""
    with fs.open_read(path) as file:
        return next((m.name for m in tar.walk(file, path, hostile=True)), "")


def _refuse_foreign(path: str) -> None:
    with fs.open_read(path) as file:
        head = file.read(tar.BLOCK)
    if head.startswith(b"\x1f\x8b"):
        raise UsageError(f"{path}: a gzipped tar: its images have no byte ranges", _EXPECTED, "gunzip it first")
    if len(head) == tar.BLOCK and head.strip(b"\0") and not tar.is_header(head):
        raise UsageError(f"{path}: no tar", _EXPECTED, "name another --source")


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _stem(path: str) -> str:
    return _base(path).removesuffix(".tar")
