"""Decoded images of a small set, kept in memory: a fine-tuning over 128 epochs decodes each image once.

What is kept is what decoding gives, at each scale that was asked for, so that a batch is the same with and without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from train.data.decode.cpu import EncodedImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


class Store:
    """Images by place, until their pixels would take more than `most` bytes; later images are decoded each time."""

    def __init__(self, most: int) -> None:
        """Take how many bytes of pixels may be kept."""
        self.most = most
        self.bytes = 0
        self._images: dict[tuple[int, int], KeptImage] = {}
        self._lock = threading.Lock()

    def image(self, place: tuple[int, int], read: Callable[[], bytes]) -> EncodedImage:
        """Return the image at a place (source, position), read only where it is not kept.

        Raises:
            UndecodableError: its header cannot be read.
        """
        kept = self._images.get(place)
        if kept is not None:
            return kept
        if self.bytes >= self.most:
            return EncodedImage(read())
        image = KeptImage(read(), self)
        self._images[place] = image
        return image

    def takes(self, count: int) -> bool:
        """Return whether so many more bytes are kept, and count them then."""
        with self._lock:
            if self.bytes + count > self.most:
                return False
            self.bytes += count
            return True


class KeptImage(EncodedImage):
    """An image that keeps what it was decoded to."""

    def __init__(self, data: bytes, store: Store) -> None:
        """Read the header."""
        super().__init__(data)
        self._store = store
        self._decoded: dict[tuple[int, bool], Pixels] = {}

    def pixels(self, factor: int = 1, *, fast: bool = False) -> Pixels:
        """Return the whole image at 1/factor scale, decoded at most once while there is room."""
        decoded = self._decoded.get((factor, fast))
        if decoded is None:
            decoded = super().pixels(factor, fast=fast)
            if self._store.takes(decoded.nbytes):
                self._decoded[factor, fast] = decoded
        return decoded
