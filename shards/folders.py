"""Folder sets: images beside the captions or classes that belong to them, in the layouts people have.

    csv tsv jsonl json   a file with a header, one row per image or per caption
    token                `file.jpg#k<TAB>caption` (Flickr8k, Flickr30k)
    coco                 COCO captions JSON
    karpathy             the JSON of Karpathy's splits: images with their sentences
    sidecar              `x.txt` or `x.json` beside `x.jpg`
    classes              one folder per class; the class is the parent folder
    images               pictures alone

The layout is sniffed and can be given. No image is ever opened; sidecars are read one at a time.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from shards import caption_files
from shards.caption_files import CAPTION_COLUMNS, CaptionFile, Row
from shards.core import fs
from shards.core.errors import UsageError

IMAGE_SUFFIXES = frozenset((
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo", ".avif", ".heic", ".heif"),
    *(".jp2", ".ppm", ".pgm", ".pbm", ".ico", ".tga"),
))  # fmt: skip
LAYOUTS = ("csv", "tsv", "jsonl", "json", "token", "coco", "karpathy", "sidecar", "classes", "images")
_NO_SIDECAR = ("readme", "license", "licence")
_MANY = 32


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
    """A folder set, ready to be iterated (as often as you like). Ids are paths relative to `root`."""

    root: str
    layout: str
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    captions: CaptionFile | None = None

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
        stems = {_stem(n) for n in self.images}
        notes = {n for n in self.names if n.endswith((".txt", ".json"))}
        for name in self.names:
            if is_image(name):
                row = _sidecar(self.root, name, notes)
                yield self._item(name, name, row, row.problem, "bad_record" if row.problem else "")
            elif name in notes and _stem(name) not in stems and not _is_talk(name, notes):
                yield self._item(name, "", Row(name), f"no image beside {name!r}", "image_missing")

    def _alone(self) -> Iterator[FolderItem]:
        indices = {name: i for i, name in enumerate(self.classes)}
        for name in self.images:
            class_name = _parent(name) if self.classes else ""
            yield FolderItem(fs.printable(name), fs.join(self.root, name), (), indices.get(class_name, -1), class_name)

    def _item(self, id: str, name: str, row: Row, problem: str, status: str) -> FolderItem:
        path = fs.join(self.root, name) if name and not status else ""
        return FolderItem(fs.printable(id), path, tuple(row.captions), -1, "", row.licence, row.meta, problem, status)


class Resolver:
    """Find the image that a name in a captions file means: by path, by file name, by stem; all recursively."""

    def __init__(self, images: tuple[str, ...]) -> None:
        self.paths = set(images)
        self.by_base: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        for path in images:
            self.by_base.setdefault(_base(path), []).append(path)
            self.by_stem.setdefault(_base(_stem(path)), []).append(path)

    def find(self, name: str) -> tuple[str, str]:
        """Return (path, "") or ("", why there is none). A name that fits several images fits none."""
        wanted = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
        if wanted in self.paths:
            return wanted, ""
        base = _base(wanted)
        hits = self.by_base.get(base) or self.by_stem.get(_stem(base) if is_image(base) else base, [])
        if len(hits) > 1 and "/" in wanted:
            hits = _closest(hits, _stem(wanted) if is_image(wanted) else wanted)
        if len(hits) == 1:
            return hits[0], ""
        if not hits:
            return "", f"no image named {name!r}"
        return "", f"ambiguous: {name!r} fits {len(hits)} images, such as {hits[0]} and {hits[1]}"


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
    found = _sniff(root, images, captions_file, image_column, caption_column, layout)
    if not found.images:
        raise UsageError(f"no image under {images or root!r}", "files ending in " + " ".join(sorted(IMAGE_SUFFIXES)))
    return found


def _sniff(root: str, images: str, captions_file: str, image_column: str, caption_column: str, layout: str) -> FolderSet:
    base, names = _listing(root, images)
    captions = None
    if captions_file:
        captions = caption_files.demand(captions_file, image_column, caption_column)
    elif layout not in ("sidecar", "classes", "images"):
        captions = _look(root, tuple(_visible(fs.names(root))), names, image_column, caption_column)
    if captions is not None:
        if layout and layout != captions.layout:
            raise UsageError(f"{captions.path} has the layout {captions.layout}", f"--layout {captions.layout}")
        return FolderSet(base, captions.layout, names, captions=captions)
    if image_column or caption_column or layout in LAYOUTS[:7]:
        wanted = " and ".join(c for c in (image_column, caption_column) if c) or layout
        raise UsageError(f"no captions file with {wanted} in {root!r}", _heads(root), "--captions-file FILE")
    pictures = [n for n in names if is_image(n)]
    if not layout:
        layout = _without_captions(names, pictures)
    classes = tuple(sorted({_parent(n) for n in pictures} - {""})) if layout == "classes" else ()
    return FolderSet(base, layout, names, classes)


def _heads(root: str) -> str:
    """Say what the captions files that a folder has begin with: there the user finds the right column."""
    tables = [n for n in _visible(fs.names(root)) if n.lower().endswith(caption_files.SUFFIXES)][:3]
    heads = []
    for name in tables:
        with fs.open_read(fs.join(root, name)) as file:
            heads.append(f"{name} begins with {file.readline(120).decode('utf-8-sig', 'replace').strip()!r}")
    return "; ".join(heads)


def _listing(root: str, images: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder that ids are relative to, and the files that may be images, relative to it."""
    if not images:
        return root, tuple(_visible(fs.walk(root)))
    inner = fs.relative(images, root)
    inside = images.startswith(("/", ".")) == root.startswith(("/", ".")) and not inner.startswith("..")
    base, prefix = (root, "" if inner == "." else inner + "/") if inside else (images, "")
    return base, tuple(prefix + n for n in _visible(fs.walk(images)))


def _look(root: str, top: tuple[str, ...], names: tuple[str, ...], image_column: str, caption_column: str) -> CaptionFile | None:
    """Return the one captions file in a folder, or None."""
    candidates = [n for n in top if n.lower().endswith(caption_files.SUFFIXES)]
    beside = {_stem(n) for n in candidates}  # a sidecar is no captions file
    beside = {_stem(n) for n in names if n[: n.rfind(".")] in beside and is_image(n)}
    candidates = [n for n in candidates if _stem(n) not in beside]
    if len(candidates) > _MANY:
        return None
    looked = [caption_files.sniff(fs.join(root, n), image_column, caption_column) for n in candidates if not fs.is_dir(fs.join(root, n))]
    found = [c for c in looked if c]
    if len(found) > 1:
        listed = ", ".join(f"{_base(c.path)} ({c.layout})" for c in found)
        raise UsageError(f"{root!r} holds several captions files: {listed}", "one", f"--captions-file {_base(found[0].path)}")
    return found[0] if found else None


def _without_captions(names: tuple[str, ...], pictures: list[str]) -> str:
    stems = {_stem(n) for n in pictures}
    if any(n.endswith((".txt", ".json")) and _stem(n) in stems for n in names):
        return "sidecar"
    return "images" if any("/" not in n for n in pictures) else "classes"


def _sidecar(root: str, image: str, notes: set[str]) -> Row:
    """Read what stands beside an image: `.txt` is the caption; `.json` has it under a usual key, and extras."""
    row, stem = Row(image), _stem(image)
    if stem + ".json" in notes:
        try:
            content = json.loads(fs.read_text(fs.join(root, stem + ".json")))
        except ValueError as error:
            row.problem = f"{stem}.json: not JSON: {error}"
            content = None
        if isinstance(content, dict):
            key = next((k for k in CAPTION_COLUMNS if content.get(k)), "")
            value = content.get(key)
            row.captions = [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []
            row.licence = str(content.get("license") or content.get("licence") or "")
            row.meta = {k: v for k, v in content.items() if k != key}
    if stem + ".txt" in notes:
        text = fs.read_bytes(fs.join(root, stem + ".txt")).decode("utf-8-sig", "replace").rstrip("\r\n")
        row.captions = [text] if text.strip() else []
        row.problem = ""
    return row


def _is_talk(name: str, notes: set[str]) -> bool:
    """Return whether a text file is about the set, or the second sidecar of one picture."""
    return _base(name).lower().startswith(_NO_SIDECAR) or (name.endswith(".json") and _stem(name) + ".txt" in notes)


def is_image(name: str) -> bool:
    """Return whether a file name has an image's suffix, in any case."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def _closest(hits: list[str], wanted: str) -> list[str]:
    """Return the paths that share the most last parts with a path given from another folder."""
    last = wanted.split("/")[::-1]
    shared = [len(posixpath.commonprefix([last, _stem(hit).split("/")[::-1]])) for hit in hits]
    return [hit for hit, n in zip(hits, shared, strict=True) if n == max(shared)]


def _inside(root: str, path: str) -> str:
    """Return a path that was given relative to the folder, or on its own."""
    if not path or fs.is_remote(path):
        return path.rstrip("/")
    within = fs.join(root, path)
    return (within if fs.exists(within) else path).rstrip("/")


def _visible(names: list[str]) -> Iterator[str]:
    return (n for n in names if not (n[0] == "." or "/." in n or "__MACOSX" in n.split("/")))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _parent(name: str) -> str:
    return _base(name.rpartition("/")[0])
