"""libtiff's own messages reach the reason of a row, and not stderr."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pytest
from PIL import Image

from shards import libtiff
from shards.decoding import UndecodableError, decoding
from shards.upright import open_image

# Bytes that LZW cannot mean: its code table is empty at the start.
_BROKEN = """
import io, sys
from PIL import Image
out = io.BytesIO()
Image.effect_noise((64, 64), 50).save(out, "TIFF", compression="tiff_lzw")
content = bytearray(out.getvalue())
content[20:60] = bytes(range(200, 240))
"""


def _broken() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "TIFF", compression="tiff_lzw")
    content = bytearray(out.getvalue())
    content[20:60] = bytes(range(200, 240))
    return bytes(content)


def _why(content: bytes) -> str:
    with pytest.raises(UndecodableError) as error, decoding():
        open_image(content).load()
    return str(error.value)


def test_the_reason_holds_what_libtiff_says_and_stderr_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert libtiff.listen()
    assert _why(_broken()) == "OSError: decoder error -2 (Using code not yet in table)"
    assert capfd.readouterr().err == ""


def test_pillow_alone_prints_it() -> None:
    """So that the test above can fail: without us the line is on stderr."""
    code = _BROKEN + "\ntry:\n    Image.open(io.BytesIO(bytes(content))).load()\nexcept OSError:\n    pass\n"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Using code not yet in table" in done.stderr


def test_the_words_of_one_picture_are_not_those_of_the_next() -> None:
    with pytest.raises(OSError, match="decoder error"):
        open_image(_broken()).load()
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    assert "(" not in _why(out.getvalue()[:-40])


def test_threads_have_words_of_their_own() -> None:
    reasons: list[str] = []

    def read() -> None:
        for _ in range(20):
            try:
                with decoding():
                    open_image(_broken()).load()
            except UndecodableError as error:
                reasons.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons == ["OSError: decoder error -2 (Using code not yet in table)"] * 80
