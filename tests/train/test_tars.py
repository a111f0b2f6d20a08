"""Where members lie, straight from the lines of an index, against the members as objects."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from shards import tar
from shards.core.errors import TornFileError
from shards.sample import IMAGE_EXTENSIONS
from train.data.tars import TarIndex

NAMES = ["a.jpg", "a.txt", "a.cls", "b.JPG", "c.json", "c.png", "c.webp", "c.txt", "d.txt", "e.seg.png", "e.jpeg", "f.cls"]


def write_tar(folder: Path) -> str:
    path = str(folder / "00000.tar")
    with tarfile.open(path, "w") as file:
        for number, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size = 100 * number
            file.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def naive(members: list[tar.Member]) -> list[int]:
    """Return offset and size of the first member of each kind, by the words of the definition."""
    row = []
    for extensions in (IMAGE_EXTENSIONS, ("txt",), ("cls",)):
        matching = [member for member in members if member.ext.lower() in extensions]
        row += [matching[0].offset, matching[0].size] if matching else [0, -1]
    return row


@pytest.mark.parametrize("version", ["none", "v1.1", "v1.2"])
def test_ranges_are_those_of_the_members(tmp_path: Path, version: str) -> None:
    path = write_tar(tmp_path)
    groups = tar.read_index(path)
    text = tar.format_index(groups)
    if version == "v1.2":
        (tmp_path / "00000.idx").write_text(text)
    elif version == "v1.1":
        lines = [" ".join(f"{m.ext} {m.offset} {m.size}" for m in group) for group in groups]
        (tmp_path / "00000.idx").write_text("\n".join([f"v1.1 {len(lines)}", *lines]) + "\n")
    index = TarIndex(path)
    assert len(index) == len(groups) == 6
    assert index.ranges([5, 0, 4, 2]).tolist() == [naive(groups[row]) for row in (5, 0, 4, 2)]
    assert index.ranges([]).shape == (0, 6)
    if version != "v1.1":
        assert index.members([1, 3]) == [groups[1], groups[3]]


@pytest.mark.parametrize("line", ["jpg 512", "jpg 512 many a.jpg", "jpg "])
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = write_tar(tmp_path)
    head, _, *rest = tar.format_index(tar.read_index(path)).splitlines()
    (tmp_path / "00000.idx").write_text("\n".join([head, line, *rest]) + "\n")
    with pytest.raises(TornFileError, match="line 2"):
        TarIndex(path).ranges([0])
