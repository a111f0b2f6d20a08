"""Folder sets: images beside the captions or classes that belong to them, in the layouts people have.

    csv tsv jsonl json parquet    a table, one row per image or per caption
    token                `file.jpg#k<TAB>caption` (Flickr8k, Flickr30k)
    coco                 COCO captions JSON
    karpathy             the JSON of Karpathy's splits: images with their sentences
    sidecar              `x.txt`, `x.caption`, `x.json` or `x.jpg.txt` beside `x.jpg`
    classes              one folder per class, the parent folder; in the order of numbers where all names are numbers
    images               pictures alone

The layout is sniffed and can be given. No image is ever opened; sidecars are read one at a time. Links to files and folders
are followed. What systems leave behind is none of a set (`is_visible`); images among it are listed as `hidden`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from shards import caption_files
from shards.caption_files import CaptionFile, Row
from shards.classes.match import sorted_classes
from shards.core import fs
from shards.core.errors import UsageError
from shards.image_names import IMAGE_SUFFIXES, Resolver, is_image
from shards.sidecars import Sidecars

LAYOUTS = (*caption_files.LAYOUTS, "sidecar", "classes", "images")
_MANY = 32
_LEFT_BEHIND = frozenset((
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "@sharebin", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "__pycache__"),
))  # fmt: skip


@dataclass(frozen=True)
class FolderItem:
    """One image with all its captions.

    `image` is a path, empty where there is none. `status` is then a reason of `shards.schema.REASONS`
    (`image_missing`, `bad_record`) and `problem` says it in words; both are empty for a usable item.
    """

    id: str
    image: str
    captions: tuple[str, ...] = ()
    class_index: int = -1
    class_name: str = ""
    licence: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    status: str = ""


@dataclass(frozen=True)
class FolderSet:
    """A folder set, ready to be iterated (as often as you like). Ids are paths relative to `root`.

    `hidden` holds the image files under `root` that are none of the set: `._` files of macOS, thumbnails, whatever is hidden.
    """

    root: str
    layout: str
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    captions: CaptionFile | None = None
    hidden: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[FolderItem]:
        if self.captions is not None:
            return self._captioned(self.captions)
        return self._beside() if self.layout == "sidecar" else self._alone()

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The images' paths relative to `root`, sorted."""
        return tuple(n for n in self.names if is_image(n))

    def _captioned(self, captions: CaptionFile) -> Iterator[FolderItem]:
        resolver = Resolver(self.images)
        for row in captions.rows():
            name, problem = ("", row.problem) if row.problem else resolver.find(row.name)
            status = "" if name else "bad_record" if row.problem or "ambiguous" in problem else "image_missing"
            yield self._item(name or row.name, name, row, problem, status)

    def _beside(self) -> Iterator[FolderItem]:
        sidecars = Sidecars(self.root, self.names)
        alone = set(sidecars.alone)
        for name in self.names:
            if is_image(name):
                sidecar = sidecars.beside(name)
                row = Row(name, sidecar.captions, sidecar.licence, sidecar.meta, sidecar.problem)
                yield self._item(name, name, row, row.problem, "bad_record" if row.problem else "")
            elif name in alone:
                yield self._item(name, "", Row(name), f"no image beside {name!r}", "image_missing")

    def _alone(self) -> Iterator[FolderItem]:
        indices = {name: i for i, name in enumerate(self.classes)}
        for name in self.images:
            class_name = _parent(name) if self.classes else ""
            yield FolderItem(fs.printable(name), fs.join(self.root, name), (), indices.get(class_name, -1), class_name)

    def _item(self, id: str, name: str, row: Row, problem: str, status: str) -> FolderItem:
        path = fs.join(self.root, name) if name and not status else ""
        return FolderItem(fs.printable(id), path, tuple(row.captions), -1, "", row.licence, row.meta, problem, status)


def read_folder(
    path: str, *, image_column: str = "", caption_column: str = "", captions_file: str = "", images: str = "", layout: str = ""
) -> FolderSet:
    """Return the folder set at a path: a folder, or its captions file.

    Args:
        image_column, caption_column: columns of a header file; common names are guessed.
        captions_file: the captions file, relative to the folder or on its own; otherwise looked for in the folder.
        images: the folder of the images, relative to the folder or on its own; default: all of the folder.
        layout: one of LAYOUTS; otherwise sniffed.

    Raises:
        UsageError: no such folder, no image in it, an unreadable part, or more than one way to understand it.
    """
    path = path.rstrip("/") or "/"
    if layout and layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}", ", ".join(LAYOUTS))
    if not fs.exists(path):
        raise UsageError(f"no folder at {path!r}", "a folder of images, or its captions file")
    root = path
    if not fs.is_dir(path):
        captions_file, root = captions_file or path, path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    captions_file = _inside(root, captions_file)
    images = _inside(root, images)
    if images and not fs.is_dir(images):
        raise UsageError(f"no folder of images at {images!r}")
    captions = _sniff(root, images, captions_file, image_column, caption_column, layout)
    if not captions.images:
        raise UsageError(f"no image under {images or root!r}", "files ending in " + " ".join(sorted(IMAGE_SUFFIXES)))
    return captions


def _sniff(root: str, images: str, captions_file: str, image_column: str, caption_column: str, layout: str) -> FolderSet:
    base, names, hidden = _listing(root, images)
    captions = None
    if captions_file:
        captions = caption_files.demand(captions_file, image_column, caption_column)
    elif layout not in ("sidecar", "classes", "images"):
        captions = _look(root, tuple(_visible(fs.names(root))), names, image_column, caption_column)
    if captions is not None:
        if layout and layout != captions.layout:
            raise UsageError(f"{captions.path} has the layout {captions.layout}", f"--layout {captions.layout}")
        return FolderSet(base, captions.layout, names, captions=captions, hidden=hidden)
    if image_column or caption_column or layout in caption_files.LAYOUTS:
        wanted = " and ".join(c for c in (image_column, caption_column) if c) or layout
        raise UsageError(f"no captions file with {wanted} in {root!r}", _heads(root), "--captions-file FILE")
    pictures = [n for n in names if is_image(n)]
    if not layout:
        layout = _without_captions(base, names, pictures)
    classes: tuple[str, ...] = ()
    if layout == "classes":
        classes = sorted_classes([name for name in {_parent(n) for n in pictures} if name])
    return FolderSet(base, layout, names, classes, hidden=hidden)


def _heads(root: str) -> str:
    """Say what the captions files that a folder has begin with: there the user finds the right column."""
    tables = [n for n in _visible(fs.names(root)) if n.lower().endswith(caption_files.SUFFIXES)][:3]
    heads = []
    for name in tables:
        with fs.open_read(fs.join(root, name)) as file:
            heads.append(f"{name} begins with {file.readline(120).decode('utf-8-sig', 'replace').strip()!r}")
    return "; ".join(heads)


def _listing(root: str, images: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the folder that ids are relative to; relative to it, the files that may be images, and hidden images."""
    names = fs.walk(images or root)
    visible = list(_visible(names))
    hidden = tuple(n for n in names if is_image(n) and not is_visible(n))
    if not images:
        return root, tuple(visible), hidden
    inner = fs.relative(images, root)
    inside = images.startswith(("/", ".")) == root.startswith(("/", ".")) and not inner.startswith("..")
    base, prefix = (root, "" if inner == "." else inner + "/") if inside else (images, "")
    return base, tuple(prefix + n for n in visible), tuple(prefix + n for n in hidden)


def _look(root: str, top: tuple[str, ...], names: tuple[str, ...], image_column: str, caption_column: str) -> CaptionFile | None:
    """Return the one captions file in a folder, or None."""
    candidates = [n for n in top if n.lower().endswith(caption_files.SUFFIXES)]
    beside = {name for sidecar_names in Sidecars(root, names).of.values() for name in sidecar_names}  # a sidecar is no captions file
    candidates = [n for n in candidates if n not in beside]
    if len(candidates) > _MANY:
        return None
    looked = [caption_files.sniff(fs.join(root, n), image_column, caption_column) for n in candidates if not fs.is_dir(fs.join(root, n))]
    readable = [c for c in looked if c]
    if len(readable) > 1:
        listed = ", ".join(f"{_base(c.path)} ({c.layout})" for c in readable)
        raise UsageError(f"{root!r} holds several captions files: {listed}", "one", f"--captions-file {_base(readable[0].path)}")
    return readable[0] if readable else None


def _without_captions(root: str, names: tuple[str, ...], pictures: list[str]) -> str:
    if Sidecars(root, names).of:
        return "sidecar"
    return "images" if any("/" not in n for n in pictures) else "classes"


def _inside(root: str, path: str) -> str:
    """Return a path that was given relative to the folder, or on its own."""
    if not path or fs.is_remote(path):
        return path.rstrip("/")
    within = fs.join(root, path)
    return (within if fs.exists(within) else path).rstrip("/")


def is_visible(name: str) -> bool:
    """Return whether a relative path is one that people put there.

    Hidden files and folders are not (`._x.jpg` and `.DS_Store` of macOS, `.ipynb_checkpoints`), nor what systems write beside
    pictures: `Thumbs.db`, `desktop.ini`, the thumbnails of a NAS in `@eaDir`, waste baskets.
    """
    if name[0] == "." or "/." in name:
        return False
    return not any(part.lower() in _LEFT_BEHIND for part in name.split("/"))


def _visible(names: list[str]) -> Iterator[str]:
    return (n for n in names if is_visible(n))


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _parent(name: str) -> str:
    return _base(name.rpartition("/")[0])
