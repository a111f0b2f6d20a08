"""Tars as others write them: links, sparse members, several tars in one, hostile numbers. Oracles: tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shards import cli, tar
from shards.core.errors import RunError, TornFileError
from shards.header import header_size
from shards.index import index
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.tally import Tally


def _add(file: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    file.addfile(info, io.BytesIO(content))


def _samples(path: Path, keys: list[str], format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as file:
        for key in keys:
            _add(file, f"{key}.jpg", f"picture {key}".encode())
            _add(file, f"{key}.txt", f"caption {key}".encode())


def _walked(path: Path) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the contents of a tar's members by name, and what was passed over."""
    content, tally = path.read_bytes(), Tally()
    members = {m.name: content[m.offset : m.offset + m.size] for m in tar.walk(io.BytesIO(content), path.name, tally=tally)}
    return members, tally.counts


@pytest.mark.parametrize("format", ["gnu", "posix", "ustar"])
def test_hard_links_are_read_as_tarfile_reads_them(tmp_path, format):
    source = tmp_path / "source"
    source.mkdir()
    long = "l" * (80 if format == "ustar" else 150)  # of 150, a long-name or PAX header holds the target
    for stem in ("a", long):
        (source / f"{stem}.jpg").write_bytes(f"picture {stem}".encode())
        os.link(source / f"{stem}.jpg", source / f"{stem}z.jpg")
    subprocess.run(["tar", "--sort=name", f"--format={format}", "-C", source, "-cf", tmp_path / "0.tar", "."], check=True)
    with tarfile.open(tmp_path / "0.tar") as file:
        assert sum(member.islnk() for member in file) == 2
        theirs = {m.name.removeprefix("./"): file.extractfile(m).read() for m in file if not m.isdir()}
    assert _walked(tmp_path / "0.tar") == (theirs, {})
    manifest = index(str(tmp_path), engine="inline")
    assert {f"{s.key}.jpg": s.members["jpg"] for s in read_samples(manifest)} == theirs
    assert cli.main(["verify", str(tmp_path), "--no-decode", "--engine", "inline"]) == (1 if format != "ustar" else 0)


def test_a_link_means_the_last_file_of_that_name_before_it(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for content in (b"first", b"second"):
            _add(file, "a.jpg", content)
        _add(file, "b.jpg", type=tarfile.LNKTYPE, linkname="./a.jpg")
        _add(file, "c.jpg", type=tarfile.LNKTYPE, linkname="b.jpg")
        _add(file, "a.jpg", b"third")
        _add(file, "d.jpg", type=tarfile.LNKTYPE, linkname="later.jpg")
        _add(file, "later.jpg", b"x")
    members, passed = _walked(tmp_path / "0.tar")
    assert (members["b.jpg"], members["c.jpg"]) == (b"second", b"second")
    assert passed == {"hard [link|links] to files outside the tar passed over": 1}


def test_a_link_has_no_content_whatever_size_its_header_states(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        _add(file, "a.jpg", b"picture" * 300)
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname, info.size = tarfile.LNKTYPE, "a.jpg", 2100
        file.addfile(info)  # no content
        _add(file, "c.jpg", b"behind")
    with tarfile.open(tmp_path / "0.tar") as file:
        theirs = {m.name: file.extractfile(m).read() for m in file}
    assert _walked(tmp_path / "0.tar") == (theirs, {})


def test_a_stream_that_cannot_go_back_passes_hard_links_over(tmp_path):
    """Packed tars are read from front to back; what a link points to is gone by then."""
    import gzip

    from curate.sources import _packed

    with tarfile.open(tmp_path / "0.tar", "w") as file:
        _add(file, "a.jpg", b"first")
        _add(file, "b.jpg", type=tarfile.LNKTYPE, linkname="a.jpg")
        _add(file, "c.jpg", b"second")
    concatenated = (tmp_path / "0.tar").read_bytes() * 2
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(concatenated))
    members = _packed.Members(str(tmp_path / "0.tar.gz"))
    read = []
    for member in members:
        members.seek(member.offset)
        read.append((member.name, members.read(member.size)))
    assert read == [("a.jpg", b"first"), ("c.jpg", b"second")] * 2


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_members_are_counted_and_what_follows_them_is_read(tmp_path, format):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "a.jpg").open("wb") as file:
        for piece in range(60):  # more than a header's four and an extension's 21 places hold
            file.seek(piece * 65536)
            file.write(b"x" * 4096)
    (source / "b.jpg").write_bytes(b"whole")
    subprocess.run(["tar", "-S", f"--format={format}", "-C", source, "-cf", tmp_path / "0.tar", "a.jpg", "b.jpg"], check=True)
    with tarfile.open(tmp_path / "0.tar") as archive:
        assert [m.issparse() for m in archive] == [True, False]
    assert _walked(tmp_path / "0.tar") == ({"b.jpg": b"whole"}, {"sparse [member|members] passed over": 1})


def test_tars_behind_the_first_end_mark_are_read_as_gnu_tar_reads_them_with_i(tmp_path):
    for number in range(3):
        _samples(tmp_path / f"{number}.part", [f"s{number}{i}" for i in range(4)])
    whole = b"".join((tmp_path / f"{number}.part").read_bytes() for number in range(3))
    (tmp_path / "0.tar").write_bytes(whole)
    listed = subprocess.run(["tar", "-itf", tmp_path / "0.tar"], check=True, capture_output=True, text=True).stdout.split()
    members, passed = _walked(tmp_path / "0.tar")
    assert list(members) == listed
    assert len(listed) == 24
    assert list(passed.values()) == [2]
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) - 10240 + 512])
    with pytest.raises(TornFileError, match="cut off"):
        _walked(tmp_path / "0.tar")


def test_bytes_behind_the_end_mark_that_are_no_tar_are_counted(tmp_path):
    _samples(tmp_path / "0.tar", ["a"])
    for rest, counts in ((b"", []), (bytes(5000), []), (b"signature" * 100, [1]), (b"short", [])):
        (tmp_path / "1.tar").write_bytes((tmp_path / "0.tar").read_bytes() + rest)
        members, passed = _walked(tmp_path / "1.tar")
        assert len(members) == 2
        assert list(passed.values()) == counts


def test_index_tells_each_kind_in_one_line(tmp_path, capsys):
    _samples(tmp_path / "0.tar", ["a", "b"])
    with tarfile.open(tmp_path / "0.tar", "a") as file:
        _add(file, "folder", type=tarfile.DIRTYPE)
        for i in range(3):
            _add(file, f"link{i}.jpg", type=tarfile.SYMTYPE, linkname="a.jpg")
        _add(file, "pipe.jpg", type=tarfile.FIFOTYPE)
        _add(file, "odd.jpg", type=b"Z")
        _add(file, "away.jpg", type=tarfile.LNKTYPE, linkname="elsewhere.jpg")
        _add(file, "._a.jpg", b"resource fork")
        _add(file, "LICENSE", b"text")
        _add(file, "README.md", b"text")
        _add(file, "c.jpg", b"one")
        _add(file, "c.jpg", b"two")
    assert cli.main(["index", str(tmp_path), "--engine", "inline"]) == 0
    lines = [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines() if "such as" in line]
    assert lines == [
        "3 symbolic links passed over, such as 0.tar: link0.jpg",
        "1 device or pipe passed over, such as 0.tar: pipe.jpg",
        "1 member of unknown type passed over, such as 0.tar: odd.jpg",
        "1 hard link to files outside the tar passed over, such as 0.tar: away.jpg",
        "1 dot file passed over, such as 0.tar: ._a.jpg",
        "1 file without an extension passed over, such as 0.tar: LICENSE",
        "1 document passed over, such as 0.tar: README.md",
        "1 sample with one extension twice, such as 0.tar: c",
    ]
    assert sum(read_manifest(str(tmp_path)).notes["notices"].values()) == 10
    assert cli.main(["index", str(tmp_path), "--engine", "inline", "--overwrite", "--strict"]) == 1


def test_index_of_a_plain_tar_tells_nothing_and_strict_takes_it(tmp_path, capsys):
    _samples(tmp_path / "0.tar", ["a", "b"])
    assert cli.main(["index", str(tmp_path), "--engine", "inline", "--strict"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert read_manifest(str(tmp_path)).notes == {}


def test_index_refuses_members_that_stand_apart_and_names_the_cure(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for key in ("a", "b", "c"):
        (source / f"{key}.jpg").write_bytes(b"x")
        (source / f"{key}.txt").write_bytes(b"y")
    apart = ["tar", "-C", source, "-cf", tmp_path / "1.tar", "a.jpg", "b.jpg", "c.jpg", "a.txt", "b.txt", "c.txt"]
    subprocess.run(apart, check=True)
    _samples(tmp_path / "0.tar", ["d"])
    assert cli.main(["index", str(tmp_path), "--engine", "inline"]) == 1
    said = capsys.readouterr().err
    assert "1.tar: members of 3 samples stand apart" in said
    assert "tar --sort=name" in said
    assert not (tmp_path / "manifest.json").exists()
    skipped = index(str(tmp_path), bad_files="skip", engine="inline")
    assert (skipped.samples, list(skipped.notes["bad_files"])) == (1, ["1.tar"])
    subprocess.run(["tar", "--sort=name", "-C", source, "-cf", tmp_path / "1.tar", "."], check=True)
    assert index(str(tmp_path), overwrite=True, engine="inline").samples == 4


def test_a_key_that_comes_again_with_the_same_members_is_another_sample(tmp_path, capsys):
    for number in range(3):
        _samples(tmp_path / f"{number}.tar", ["0", "1", "0" if number == 2 else "2"])
    manifest = index(str(tmp_path), engine="inline")
    assert manifest.samples == 9
    assert "3 keys that stand for several samples" in capsys.readouterr().err


def _changed_size(text: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[124:136] = text.ljust(12, b"\0")
        content[148:156] = b"%06o\0 " % (sum(content[:148]) + 256 + sum(content[156:512]))
        path.write_bytes(bytes(content))

    return change


def _pax(field: str, value: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
            _add(file, "a.jpg", b"picture", pax_headers={field: value})

    return change


def _pax_record(record: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with tarfile.open(path, "w") as file:
            _add(file, "pax", record, type=b"x")
            _add(file, "a.jpg", b"picture")

    return change


@pytest.mark.parametrize(
    "change",
    [
        *map(_changed_size, (b"-0000001000", b"-1", b"0_1", b"0o17", b"+7", b"9", b"\xff" * 12, b"\x80" + b"\xff" * 11)),
        *(_pax("size", value) for value in ("-5", "-512", "x", "9" * 5000, "1" * 20, "1e3", "٣")),
        *map(_pax_record, (b"9" * 5000 + b" size=1\n", b"99 path=a\n", b"x path=a\n", b"11 path=a.j", b"9 path a\n", b"-9 path=a\n")),
    ],
)
def test_hostile_numbers_are_torn_files_never_a_hang(tmp_path, change):
    _samples(tmp_path / "0.tar", ["a"])
    change(tmp_path / "0.tar")
    with pytest.raises(TornFileError):
        list(tar.walk(io.BytesIO((tmp_path / "0.tar").read_bytes())))
    with pytest.raises(RunError):
        index(str(tmp_path), engine="inline")


def test_a_negative_size_of_base_256_is_called_one():
    block = bytearray(tar.header("x", 5))
    block[124:136] = (-5).to_bytes(12, "big", signed=True)
    with pytest.raises(TornFileError, match="negative"):
        header_size(bytes(block))
    block[124:136] = b"\x80" + (2**40).to_bytes(11, "big")
    assert header_size(bytes(block)) == 2**40


def test_a_header_about_the_next_member_may_not_fill_the_memory():
    block = bytearray(tar.header("x", 2**30))
    block[156:157] = b"L"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))

    class Endless(io.RawIOBase):
        """A file of 2 GiB, of which only the header is there."""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 2**31 if whence == 2 else offset

        def read(self, size: int = -1) -> bytes:
            assert size < 2**20
            return bytes(block)

    with pytest.raises(TornFileError, match="about the next member"):
        list(tar.walk(Endless()))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [tarfile.CONTTYPE, b"\0"])
def test_old_and_contiguous_files_are_files(tmp_path, kind):
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        _add(file, "a.jpg", b"picture", type=kind)
        _add(file, "b.jpg", b"more")
    assert _walked(tmp_path / "0.tar") == ({"a.jpg": b"picture", "b.jpg": b"more"}, {})
