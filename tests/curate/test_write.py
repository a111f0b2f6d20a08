"""The write pass: what it copies is what was measured, or it says which file is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drawing import encoded, picture

Build = Callable[..., tuple[int, Path, str]]
FLAGS = ("--source", "folder", "--samples", "all")


def test_bytes_that_changed_since_they_were_measured_are_never_written(
    build: Build, captioned: Callable[..., Path], tmp_path: Path
) -> None:
    """A byte of a photo changes behind our back: same size, same time stamp, and the measured parts are reused."""
    from curate.cli import main

    folder = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(6)])
    flags: tuple[Any, ...] = (*FLAGS, "--input", folder, "--work", tmp_path / "work")
    assert main(["measure", "--engine", "inline", *map(str, flags)]) == 0
    victim, before = folder / "3.jpg", (folder / "3.jpg").stat()
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = build(*flags)
    assert code == 1
    assert "3.jpg" in err
    assert "not those that were measured" in err
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*.tar"))
