"""Sets as others pack them, for tests: tars without sidecars, indexed by `shards index`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from shards.index import index
from shards.manifest import Manifest

Members = list[tuple[str, bytes]]


def write(path: Path, members: Members, format: int = tarfile.USTAR_FORMAT) -> None:
    """Write a tar of named contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def foreign(folder: Path, members: Any, samples: int = 64, per_tar: int = 16) -> Manifest:
    """Write tars of samples with the members that `members(i)` returns ({extension: content}), and index them."""
    for first in range(0, samples, per_tar):
        named = [(f"s{i:06d}.{ext}", c) for i in range(first, first + per_tar) for ext, c in members(i).items()]
        write(folder / f"{first // per_tar:05d}.tar", named)
    return index(str(folder), engine="inline")


def good(i: int) -> dict[str, bytes]:
    """Return the members of a sample that has all that a training may ask for."""
    return {"jpg": b"picture", "txt": f"caption {i}".encode(), "cls": str(i % 12).encode()}
