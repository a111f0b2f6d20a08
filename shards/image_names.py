"""Names of image files: which are some, and which image a name in a table means, however tools have spelt it."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

IMAGE_SUFFIXES = frozenset((
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo", ".avif", ".heic", ".heif"),
    *(".jp2", ".ppm", ".pgm", ".pbm", ".ico", ".tga"),
))  # fmt: skip


def is_image(name: str) -> bool:
    """Return whether a file name has an image's suffix, in any case."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def stem(name: str) -> str:
    """Return a path without the last suffix of its file name."""
    return posixpath.splitext(name)[0]


def base(name: str) -> str:
    """Return the file name of a path."""
    return name.rpartition("/")[2]


def plain(name: str) -> str:
    """Return a name as it is compared last of all: composed (NFC), letter case aside."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Resolver:
    """Find the image that a name in a table means: by path, by file name, by stem; all recursively.

    A name that fits none so is looked for again without what tools do to names: composed letters (NFC) for decomposed ones,
    letter case, `%20` for a blank, and a web address of which only the last part is a file here.
    """

    def __init__(self, images: Iterable[str]) -> None:
        self._exact = _Index(images, str)
        self._loose: _Index | None = None

    def find(self, name: str) -> tuple[str, str]:
        """Return (path, "") or ("", why there is none). A name that fits several images fits none."""
        path, problem = self._exact.find(name)
        if path or problem.startswith("ambiguous"):
            return path, problem
        if self._loose is None:
            self._loose = _Index(self._exact.paths, plain)
        for other in _spellings(name):
            path, again = self._loose.find(other)
            if path:
                return path, ""
            if again.startswith("ambiguous"):
                return "", again.replace(repr(other), repr(name))
        return "", problem


def _spellings(name: str) -> list[str]:
    """Return what else a name may stand for."""
    spellings = [name.strip(), unquote(name.strip())]
    if "://" in name:
        try:
            path = urlsplit(name.strip()).path
        except ValueError:  # such as a wrong IPv6 address
            path = ""
        spellings += [path, unquote(path)]
    return list(dict.fromkeys(filter(None, spellings)))


class _Index:
    """Images by path, file name and stem, each as `key` makes it."""

    def __init__(self, images: Iterable[str], key: Callable[[str], str]) -> None:
        self.paths = tuple(images)
        self._key = key
        self._by_path: dict[str, list[str]] = {}
        self._by_base: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            known = key(path)
            self._by_path.setdefault(known, []).append(path)
            self._by_base.setdefault(base(known), []).append(path)
            self._by_stem.setdefault(base(stem(known)), []).append(path)

    def find(self, name: str) -> tuple[str, str]:
        wanted = self._key(posixpath.normpath(name.replace("\\", "/")).lstrip("/"))
        hits = self._by_path.get(wanted, [])
        if not hits:
            last = base(wanted)
            hits = self._by_base.get(last) or self._by_stem.get(stem(last) if is_image(last) else last, [])
        if len(hits) > 1 and "/" in wanted:
            hits = self._closest(hits, stem(wanted) if is_image(wanted) else wanted)
        if len(hits) == 1:
            return hits[0], ""
        if not hits:
            return "", f"no image named {name!r}"
        return "", f"ambiguous: {name!r} fits {len(hits)} images, such as {hits[0]} and {hits[1]}"

    def _closest(self, hits: list[str], wanted: str) -> list[str]:
        """Return the paths that share the most last parts with a path given from another folder."""
        last = wanted.split("/")[::-1]
        shared = [len(posixpath.commonprefix([last, stem(self._key(hit)).split("/")[::-1]])) for hit in hits]
        return [hit for hit, n in zip(hits, shared, strict=True) if n == max(shared)]
