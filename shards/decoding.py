"""What may be opened as a picture, how large it may be, and the one place that turns a decoder's exception into a reason."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from shards import libtiff

MAX_PIXELS = 100_000_000
# In Pillow's words. It would sniff any format of its own, and starts Ghostscript for PostScript. MPO comes with JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_MOST = 200  # characters of a library's own words


class UndecodableError(ValueError):
    """The picture cannot be decoded; the text says why.

    `reason` is the ledger's word: `undecodable`, `unsupported` or `too_large`.
    """

    def __init__(self, detail: str, reason: str = "undecodable") -> None:
        super().__init__(detail)
        self.reason = reason


class _Quiet:
    """No warnings of odd metadata while any thread is inside.

    `warnings.catch_warnings` alone is not for threads: each restores the filters that it met, another one's "ignore" among
    them, and the whole program stays silent.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def decoding() -> Iterator[None]:
    """Let a library read hostile bytes: whatever it raises becomes an UndecodableError, and it warns of nothing.

    Raises:
        UndecodableError: from any exception of the library.
    """
    libtiff.taken()  # of another picture
    try:
        with _QUIET:
            yield
    except UndecodableError:
        raise
    except MemoryError:
        raise UndecodableError("out of memory", "too_large") from None
    except Exception as error:  # noqa: BLE001  decoders raise anything on hostile bytes: KeyError, struct.error, SyntaxError …
        words = libtiff.taken()
        cause = f" ({words})" if words else ""
        raise UndecodableError(f"{type(error).__name__}: {error}{cause}"[:_MOST]) from None


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse a size that is not safe to decode.

    Raises:
        UndecodableError: no pixel, or more than `most`.
    """
    if width < 1 or height < 1:
        raise UndecodableError(f"{width} × {height} pixels")
    if width * height > most:
        raise UndecodableError(f"{width} × {height} pixels, more than {most:,}", "too_large")
