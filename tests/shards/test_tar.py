"""Tars against tarfile and GNU tar, indices against DALI's own wds2idx."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from shards import tar
from shards.core.errors import ProvenderError, TornFileError, UsageError
from shards.index import index


def _write(path: Path, members: dict[str, bytes], *, format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def _walk(path: Path) -> list[tuple[str, bytes]]:
    content = path.read_bytes()
    return [(m.name, content[m.offset : m.offset + m.size]) for m in tar.walk(io.BytesIO(content), path.name)]


def _wds2idx(path: Path) -> bytes:
    out = path.with_suffix(".theirs")
    subprocess.run([sys.executable, "-m", "wds2idx", str(path), str(out)], check=True, capture_output=True)
    return out.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000])
@pytest.mark.parametrize("name", ["a.jpg", "x" * 95 + ".jpg"])
def test_tarfile_reads_our_header(name, size):
    info = tarfile.TarInfo.frombuf(tar.header(name, size), "ascii", "strict")
    assert (info.name, info.size, info.mode, info.mtime, info.type) == (name, size, 0o444, 0, tarfile.REGTYPE)
    assert (info.uid, info.gid, info.uname, info.gname, info.linkname) == (0, 0, "", "", "")


@pytest.mark.parametrize(("name", "size"), [("x" * 100, 1), ("a.jpg", tar.MAX_MEMBER + 1)])
def test_what_ustar_cannot_hold_is_refused(name, size):
    with pytest.raises(UsageError):
        tar.header(name, size)


def test_what_is_written_is_read_by_tarfile_gnu_tar_and_us(tmp_path):
    rng, path = random.Random(0), tmp_path / "a.tar"
    sizes = [0, 1, 511, 512, 513, 3000, tar.PIECE // 8, tar.PIECE + 1]
    members = {f"{i:04d}.{ext}": rng.randbytes(rng.choice(sizes)) for i in range(40) for ext in ("jpg", "txt")}
    with path.open("wb") as file:
        writer = tar.TarWriter(file)
        placed = [tar.Member(name, writer.add(name, content), len(content)) for name, content in members.items()]
        writer.close()
    assert path.stat().st_size == tar.tar_size(map(len, members.values())) == writer.offset
    assert _walk(path) == list(members.items())
    assert list(tar.walk(io.BytesIO(path.read_bytes()))) == placed
    with tarfile.open(path) as file:
        assert {m.name: file.extractfile(m).read() for m in file} == members
    assert subprocess.run(["tar", "tf", path], check=True, capture_output=True, text=True).stdout.split() == list(members)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read_in_all_three_dialects(tmp_path, format):
    members = {"d" * 60 + "/" + "e" * 60 + "/" + "f" * 90 + ".jpg": b"1", "short.txt": b"22", "ü.txt": b"333"}
    _write(tmp_path / "a.tar", members, format=format)
    assert _walk(tmp_path / "a.tar") == list(members.items())


def test_a_member_that_is_no_file_is_passed_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"x{kind.decode()}.jpg")
            info.type, info.linkname = kind, "y"
            file.addfile(info)
        info = tarfile.TarInfo("real.jpg")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    assert _walk(tmp_path / "a.tar") == [("real.jpg", b"abc")]


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    _write(tmp_path / "a.tar", {name: b"x"})
    with pytest.raises(UsageError, match="leads out"):
        _walk(tmp_path / "a.tar")


def test_a_tar_cut_anywhere_is_torn_and_gives_whole_members_first(tmp_path):
    _write(tmp_path / "a.tar", {"a.jpg": b"a" * 700, "b.jpg": b"b" * 300, "c.jpg": b"c" * 1500})
    whole, ends = (tmp_path / "a.tar").read_bytes(), {1536: "a.jpg", 1536 + 1024: "b.jpg", 1536 + 1024 + 2048: "c.jpg"}
    for cut in [*range(0, max(ends) + 1, 97), 511, 512, 513, *ends, max(ends) + 511]:
        got: list[tar.Member] = []
        with pytest.raises(TornFileError):
            got.extend(tar.walk(io.BytesIO(whole[:cut])))
        assert [m.name for m in got][: len(ends)] == ["a.jpg", "b.jpg", "c.jpg"][: len(got)]
        assert len(got) >= sum(end <= cut for end in ends)
        assert all(m.offset + m.size <= cut for m in got)
    assert len(list(tar.walk(io.BytesIO(whole[: max(ends) + 512])))) == 3


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_torn(content):
    with pytest.raises(TornFileError):
        list(tar.walk(io.BytesIO(content)))


def test_hostile_headers_end_in_our_errors(tmp_path):
    """Single bytes of a header are changed at random, with the checksum made right again."""
    _write(tmp_path / "a.tar", {"a.jpg": b"a" * 700, "b.jpg": b"b"})
    whole, rng = (tmp_path / "a.tar").read_bytes(), random.Random(0)
    for _ in range(300):
        block = bytearray(whole[:512])
        for _ in range(3):
            block[rng.randrange(512)] = rng.randrange(256)
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        try:
            for i, member in enumerate(tar.walk(io.BytesIO(bytes(block) + whole[512:]))):
                assert member.offset + member.size <= len(whole)
                assert i < 100
        except ProvenderError:
            pass


def test_index_is_byte_equal_to_wds2idx_for_ours(make_shards):
    folder = Path(make_shards(10, classes=True))
    for path in sorted(folder.glob("*.tar")):
        assert path.with_suffix(".idx").read_bytes() == _wds2idx(path)


def test_index_is_byte_equal_to_wds2idx_for_foreign_tars(tmp_path):
    members = {"s/a.jpg": b"1" * 600, "s/a.seg.png": b"2", "s/.hidden.jpg": b"3", "s/a.txt": b"4", "b.jpg": b"", "c.tar.gz": b"5"}
    _write(tmp_path / "a.tar", members, format=tarfile.PAX_FORMAT)
    with (tmp_path / "a.tar").open("rb") as file:
        groups = list(tar.samples(tar.walk(file)))
    assert tar.format_index(groups).encode() == _wds2idx(tmp_path / "a.tar")
    assert tar.parse_index(tar.format_index(groups)) == groups


@pytest.mark.slow
def test_samples_group_as_webdataset_groups(tmp_path):
    from webdataset.tariterators import base_plus_ext, group_by_keys

    names = ["a.jpg", "a.txt", "README", "b.seg.png", "b.jpg", "d/b.jpg", "d/b.txt", "a.cls"]
    members = [tar.Member(n, i, 1) for i, n in enumerate(names)]
    ours = [(g[0].key, [m.ext for m in g]) for g in tar.samples(members)]
    plain = ({"fname": n, "data": b"", "__url__": ""} for n in names)
    theirs = [(s["__key__"], [k for k in s if not k.startswith("__")]) for s in group_by_keys(plain)]
    assert ours == theirs
    assert all(base_plus_ext(m.name) == (m.key, m.ext) for m in members if m.ext)


@pytest.mark.parametrize("text", ["", "v1.2 x\n", "v1.2 2\njpg 512 3 a.jpg\n", "v1.2 1\njpg 512 3\n", "v1.1 1\njpg 512\n", "v9.9 0\n"])
def test_a_torn_index_says_so(text):
    with pytest.raises(TornFileError):
        tar.parse_index(text)


def test_version_1_1_of_the_index_is_read():
    assert tar.parse_index("v1.1 1\njpg 512 3 txt 1536 1\n") == [[tar.Member("0.jpg", 512, 3), tar.Member("0.txt", 1536, 1)]]


def test_an_index_holds_names_that_are_no_utf8(tmp_path):
    _write(tmp_path / "0.tar", {"\udcff.jpg": b"x", "é.jpg": b"yy"}, format=tarfile.GNU_FORMAT)
    walked = tar.read_index(str(tmp_path / "0.tar"))
    assert index(str(tmp_path), engine="inline").shards[0].index_sha256
    assert tar.read_index(str(tmp_path / "0.tar")) == walked
    assert [member.name for (member,) in walked] == ["\udcff.jpg", "é.jpg"]
