"""The quick reading of an index against plain loops, and whether members stand where it says. No image is opened."""

from __future__ import annotations

import collections
import functools
import os
import random
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from foreign import foreign, good, write

from shards import tar
from shards.core import fs
from shards.core.errors import RunError
from shards.index import index
from shards.manifest import Manifest, ShardEntry
from shards.member import check_member
from shards.preflight import preflight
from shards.scan import MOST_EXTENSIONS, scan


def _naive(groups: list[list[tar.Member]]) -> dict[str, Any]:
    """Return what a scan should say, by plain loops."""
    extensions = [[member.ext.lower() for member in group] for group in groups]
    return {
        "image": [bool({"jpg", "jpeg", "png", "webp"} & set(exts)) for exts in extensions],
        "text": ["txt" in exts for exts in extensions],
        "label": ["cls" in exts for exts in extensions],
        "empty_text": [any(m.ext.lower() == "txt" and m.size == 0 for m in group) for group in groups],
        "kinds": collections.Counter(frozenset(f".{m.ext}" for m in group) for group in groups),
        "keys": [group[0].key for group in groups],
    }


@pytest.mark.parametrize("extensions", [3, 20, MOST_EXTENSIONS, MOST_EXTENSIONS + 20])
def test_a_scan_says_what_plain_loops_say(tmp_path, extensions):
    rng = random.Random(extensions)
    endings = ["jpg", "txt", "TXT", "cls", "PNG", "seg.png", "json", "metadata.version-2.json", "e" * 40]
    endings += [f"x{i}" for i in range(MOST_EXTENSIONS + 20)]
    endings = endings[:extensions]
    groups, offset = [], 512
    for number in range(500):
        group = []
        for ending in rng.sample(endings, rng.randint(1, 3)):
            size = rng.choice([0, 0, 10, 5000])
            folder = rng.choice(["", "dir/", "a.b/c/", "ü/"])
            group.append(tar.Member(f"{folder}{number % 400:0{number % 30}d}.{ending}", offset, size))
            offset += tar.padded(size)
        groups.append([tar.Member(group[0].key + "." + m.ext, m.offset, m.size) for m in group])
    (tmp_path / "0.idx").write_text(tar.format_index(groups))
    for use in (None, (3, 8, 20, 400)):
        entry = ShardEntry("0.tar", len(groups), 1, use=use)
        found = scan(Manifest(entry.used, 1, (entry,), folder=str(tmp_path)), entry)
        chosen = [groups[i] for i in entry.positions().tolist()]
        wanted = _naive(chosen)
        for name in ("image", "text", "label", "empty_text"):
            assert getattr(found, name).tolist() == wanted[name], name
        kinds = collections.Counter[frozenset[str]]()
        for kind, count in found.kinds.items():
            kinds[frozenset(kind.split(" "))] += count
        assert kinds == wanted["kinds"]
        assert [found.group(i) for i in range(entry.used)] == chosen
        assert found.apart == tar.scattered(groups)
        # Equal keys have equal hashes, and no others.
        assert len(set(zip(found.keys.tolist(), wanted["keys"], strict=True))) == len(set(wanted["keys"])) == len(set(found.keys.tolist()))


@pytest.mark.slow
def test_a_scan_is_much_faster_than_a_parse(tmp_path):
    """The goal is a million samples a second on an idle core; the ratio to `parse_index` holds on a busy one, too."""
    groups = [[tar.Member(f"{i:09d}.{ext}", i * 2048 + 512, 900) for ext in ("jpg", "txt")] for i in range(100_000)]
    text = tar.format_index(groups)
    (tmp_path / "0.idx").write_text(text)
    entry = ShardEntry("0.tar", len(groups), 1)
    manifest = Manifest(len(groups), 1, (entry,), folder=str(tmp_path))
    seconds = {}
    for name, work in (("scan", lambda: scan(manifest, entry)), ("parse", lambda: tar.parse_index(text))):
        started = time.process_time()
        work()
        seconds[name] = time.process_time() - started
    assert seconds["scan"] * 3 < seconds["parse"]


def _check_all(path: Path) -> None:
    """Check each member of a tar where its `.idx` says it is, by a descriptor and by a function."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for group in tar.read_index(str(path)):
            for member in group:
                check_member(str(path), member.offset, member.size, member.name, descriptor)
                check_member(str(path), member.offset, member.size, member.name, functools.partial(fs.read_range, str(path)))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_stand_where_the_index_says_whatever_their_headers(tmp_path, format):
    members = [("a.jpg", b"x"), ("ü日本.jpg", b"y" * 600), ("d/" * 30 + "e" * 60 + ".txt", b"z"), ("./f.jpg", b""), ("f.txt", b"1" * 3000)]
    if format != tarfile.USTAR_FORMAT:
        members.append(("g" * 200 + ".jpg", b"long"))
    write(tmp_path / "0.tar", members, format)
    with tarfile.open(tmp_path / "0.tar", "a", format=format) as file:
        link = tarfile.TarInfo("h.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        file.addfile(link)
    index(str(tmp_path), engine="inline")
    _check_all(tmp_path / "0.tar")


def test_members_are_found_by_an_index_without_names(tmp_path):
    manifest = foreign(tmp_path, good, samples=16)
    path = tmp_path / "00000.idx"
    lines = [" ".join(f"{m.ext} {m.offset} {m.size}" for m in group) for group in tar.parse_index(path.read_text())]
    path.write_text("\n".join(["v1.1 16", *lines]) + "\n")
    _check_all(tmp_path / "00000.tar")
    assert manifest.samples == 16


def test_a_tar_rewritten_to_the_same_size_is_caught_before_a_member_is_read(tmp_path):
    manifest = foreign(tmp_path, lambda i: {"jpg": b"x" * (100 + i), "txt": b"words"}, samples=16)
    path = tmp_path / "00000.tar"
    groups = tar.read_index(str(path))
    size = path.stat().st_size
    write(path, [(m.name, b"x" * m.size) for group in reversed(groups) for m in group])
    assert path.stat().st_size == size, "its size tells nothing"
    assert tar.read_index(str(path)) == groups, "nor does its index"
    with pytest.raises(
        RunError, match=r"00000\.tar: before the bytes of member s000000\.jpg \(100 bytes\) stands s000015\.jpg \(115 bytes\)"
    ) as error:
        _check_all(path)
    assert "shards index --overwrite" in error.value.advice
    with pytest.raises(RunError, match=r"00000\.tar"):
        preflight(manifest, captions=True)
    path.write_bytes(bytes(size))
    with pytest.raises(RunError, match="no header of a member"):
        _check_all(path)


@pytest.mark.parametrize("wrong", [{"name": "a.png"}, {"name": "b.jpg"}, {"size": 4}, {"offset": 1024}, {"offset": 0}, {"offset": 10**6}])
def test_each_difference_to_the_header_is_caught(tmp_path, wrong):
    write(tmp_path / "0.tar", [("a.jpg", b"xyz"), ("a.txt", b"words")])
    right = {"offset": 512, "size": 3, "name": "a.jpg"}
    read = functools.partial(fs.read_range, str(tmp_path / "0.tar"))
    check_member(str(tmp_path / "0.tar"), **right, source=read)
    with pytest.raises(RunError, match=r"0\.tar: before the bytes of member [ab]\.(jpg|png)"):
        check_member(str(tmp_path / "0.tar"), **(right | wrong), source=read)


def test_a_tar_that_is_gone_is_named(tmp_path):
    write(tmp_path / "0.tar", [("a.jpg", b"xyz")])
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").unlink()
    with pytest.raises(RunError, match=r"0\.tar: No such file"):
        check_member(str(tmp_path / "0.tar"), 512, 3, "b.jpg", lambda offset, length: content[offset : offset + length])
