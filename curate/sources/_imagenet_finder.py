"""Find ImageNet's images by class and file name: in a tree by path, in tars by an index of 24 bytes an image."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

from curate.sources import _imagenet
from curate.sources.base import Pointer
from shards.core import fs
from shards.core.errors import TornFileError


class Finder:
    """Where the image of a class and file name lies. `torn` is the error of a tar that is cut off, if one is."""

    def __init__(self, images: str) -> None:
        self.torn: TornFileError | None = None
        held = _imagenet.inputs(images, "train")
        self._root = _imagenet.root(images, "train") if fs.is_dir(images) and fs.is_dir(held[0].path) else ""
        self._flat = self._root == held[0].path
        self._tars = [] if self._root else [one.path for one in held]
        self._index: Any = None if self._root else self._indexed()

    def find(self, wnid: str, filename: str) -> Pointer | None:
        """Return where an image lies, or None."""
        if self._root:
            path = fs.join(self._root, filename) if self._flat else fs.join(self._root, wnid, filename)
            return Pointer(path) if fs.exists(path) else None
        import numpy as np

        keys, places = self._index
        key = _key(wnid, filename)
        at = int(np.searchsorted(keys, np.uint64(key)))
        if at == len(keys) or int(keys[at]) != key:
            return None
        number, offset, size = places[at].tolist()
        return Pointer(self._tars[number], offset, size)

    def _indexed(self) -> tuple[Any, Any]:
        """Return the sorted keys of all images, and the tar, offset and size of each."""
        import numpy as np

        keys, places = array("Q"), array("q")
        for number, path in enumerate(self._tars):
            try:
                for picture in _imagenet.pictures(path, {}):
                    if not picture.problem:
                        keys.append(_key(picture.wnid, picture.name))
                        places.extend((number, picture.image.offset, picture.image.size))
            except TornFileError as error:
                self.torn = self.torn or error
        order = np.argsort(np.array(keys, np.uint64), kind="stable")
        return np.array(keys, np.uint64)[order], np.array(places, np.int64).reshape(-1, 3)[order]


def _key(wnid: str, filename: str) -> int:
    """Return 64 bits of a name's sha256: among ILSVRC's 1.3 million names, two share them with probability 5e-8."""
    return int.from_bytes(hashlib.sha256(f"{wnid}/{filename}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
