"""What libtiff has to say of a damaged file: kept for the reason in a row, not printed to stderr, where it names no file.

Pillow hands damaged TIFFs to libtiff, which prints lines such as `tempfile.tif: Using code not yet in table.` itself, ten and more
for one picture, while Pillow's own error is `decoder error -2`. libtiff is asked to call a function of ours instead.
"""

from __future__ import annotations

import ctypes
import functools
import threading

_LONGEST = 256  # bytes of a message
# void handler(const char *module, const char *format, va_list); a va_list is passed as a pointer on x86-64 and on ARM.
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_last = threading.local()


def _keep(_: bytes | None, template: bytes | None, values: int | None) -> None:
    """Keep an error's words; of several the first, which is the cause."""
    earlier: str = getattr(_last, "words", "")
    if template is None or earlier:
        return
    text = ctypes.create_string_buffer(_LONGEST)
    ctypes.CDLL(None).vsnprintf(text, ctypes.c_size_t(_LONGEST), template, ctypes.c_void_p(values))
    _last.words = text.value.decode("utf-8", "replace").strip().rstrip(".")


_ON_ERROR = _Handler(_keep)
_ON_WARNING = _Handler(lambda *_: None)  # of unknown tags and the like, which change no pixel


@functools.cache
def listen() -> bool:
    """Have Pillow's libtiff tell errors here instead of printing them; return whether there is a libtiff to be asked."""
    from PIL import _imaging  # type: ignore[attr-defined]

    try:
        library = ctypes.CDLL(_imaging.__file__)  # already loaded; its own libraries' functions are found through it
        set_error, set_warning = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (OSError, AttributeError):  # a Pillow without libtiff
        return False
    set_error(_ON_ERROR)
    set_warning(_ON_WARNING)
    return True


def taken() -> str:
    """Return the first error that libtiff told in this thread since the last call, and forget it; empty where there was none."""
    words: str = getattr(_last, "words", "")
    _last.words = ""
    return words
