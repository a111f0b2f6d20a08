"""What `shards index` leaves out it says, in words of its own, and `shards verify` holds it against nobody."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from foreign import write
from PIL import Image

from shards import cli, tar
from shards.core.errors import RunError
from shards.manifest import read_manifest
from shards.member import check_member
from shards.reader import read_samples


def _run(*arguments: str) -> int:
    return cli.main([*arguments, "--engine", "inline"])


def _jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 16), (200, 30, 60)).save(out, "JPEG")
    return out.getvalue()


def _pairs(names: str) -> list[tuple[str, bytes]]:
    return [(f"{name}.{ext}", content) for name in names for ext, content in (("jpg", _jpeg()), ("txt", name.encode()))]


def _with_things_to_leave_out(folder: Path) -> None:
    write(folder / "0.tar", _pairs("ab"))
    write(folder / "._0.tar", _pairs("c"))
    (folder / "1.tar").write_bytes(b"")
    (folder / "2.tar").write_bytes(bytes(10240))
    os.mkfifo(folder / "3.tar")
    (folder / "4.tar").symlink_to(folder / "nowhere")


def test_what_index_passes_over_is_a_notice_of_verify_and_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _with_things_to_leave_out(tmp_path)
    assert _run("index", str(tmp_path), "--bad-files", "skip") == 0
    said = capsys.readouterr().err
    for name in ("1.tar", "2.tar", "3.tar", "4.tar", "._0.tar"):
        assert name in said, f"index says nothing of {name}"
    assert _run("verify", str(tmp_path)) == 0
    verified = capsys.readouterr()
    assert verified.out.startswith("fine: 2 samples in 1 shard")
    for name in ("1.tar", "2.tar", "3.tar", "4.tar", "._0.tar"):
        assert name in verified.err, f"verify says nothing of {name}"
    assert _run("verify", str(tmp_path), "--strict") == 1
    capsys.readouterr()
    write(tmp_path / "5.tar", _pairs("z"))
    assert _run("verify", str(tmp_path)) == 1, "a tar with samples that the manifest does not know is a problem"
    assert "5.tar: a tar that the manifest does not list" in capsys.readouterr().out


def test_beside_the_shards_of_a_build_only_a_hidden_tar_is_no_problem(make_shards, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(make_shards(4))
    (folder / "._00000.tar").write_bytes(b"resource fork")
    assert _run("verify", str(folder)) == 0
    assert "1 hidden tar" in capsys.readouterr().err
    (folder / "9.tar").write_bytes(bytes(10240))
    assert _run("verify", str(folder)) == 1


def test_index_counts_samples_whose_pictures_have_a_word_before_the_extension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [(f"s{i}.{word}.jpg", _jpeg()) for i in range(3) for word in ("input", "target")]
    write(tmp_path / "0.tar", [*names, ("t.jpg", _jpeg()), ("t.mask.png", b"x")])
    assert _run("index", str(tmp_path)) == 0
    assert "3 samples without an image that training reads: KEY.WORD.jpg is none, KEY.jpg is, such as 0.tar: s0.input.jpg" in (
        capsys.readouterr().err
    )
    assert _run("index", str(tmp_path), "--overwrite", "--strict") == 1


def test_index_says_what_verify_refuses_of_keys_and_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "0.tar", [("d/s0.jpg", _jpeg()), ("e/s0.jpg", _jpeg()), ("t.JPG", _jpeg()), (f"{'n' * 90}.jpg", _jpeg())])
    assert _run("index", str(tmp_path)) == 0
    said = capsys.readouterr().err
    assert "2 samples have keys that some readers cannot take" in said
    assert "such as 0.tar: d/s0" in said
    assert "1 sample has an ending that some readers cannot take" in said
    assert _run("verify", str(tmp_path)) == 1
    problems = capsys.readouterr().out
    assert problems.count("a key that some readers cannot take") == 2
    assert problems.count("an ending that some readers cannot take") == 1


def test_a_packed_tar_under_a_plain_name_is_called_so_in_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "0.tar", _pairs("ab"))
    (tmp_path / "1.tar").write_bytes(gzip.compress((tmp_path / "0.tar").read_bytes()))
    assert _run("index", str(tmp_path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "error: 1.tar: packed by gzip: it cannot be read by position" in lines
    assert any(line.startswith("  try: unpack it first: gzip -d < 1.tar > NEW.tar; or --bad-files skip") for line in lines)


def test_the_reason_of_a_bad_tar_is_no_whole_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "0.tar", _pairs("ab"))
    (tmp_path / "1.tar").write_bytes(b"words " * 1000)
    assert _run("index", str(tmp_path)) == 1
    first = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert first == "error: 1.tar: no tar header at byte 0"


def _torn_with_links(path: Path) -> None:
    """Write a tar of samples of which every second picture is a hard link, and cut it off inside the last sample."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for i in range(8):
            picture = tarfile.TarInfo(f"{i}.jpg")
            if i % 2:
                picture.type, picture.linkname = tarfile.LNKTYPE, f"{i - 1}.jpg"
                file.addfile(picture)
            else:
                picture.size = len(_jpeg())
                file.addfile(picture, io.BytesIO(_jpeg()))
            text = tarfile.TarInfo(f"{i}.txt")
            text.size = 600
            file.addfile(text, io.BytesIO(b"c" * 600))
        end = file.offset
    path.write_bytes(path.read_bytes()[: end - 700])


def test_hard_links_before_a_tear_are_read(tmp_path: Path) -> None:
    _torn_with_links(tmp_path / "0.tar")
    assert _run("index", str(tmp_path), "--bad-files", "skip") == 0
    manifest = read_manifest(str(tmp_path))
    assert manifest.samples == 7
    assert [sample.members["jpg"] for sample in read_samples(manifest)] == [_jpeg()] * 7
    path = str(tmp_path / "0.tar")
    content = Path(path).read_bytes()
    linked = tar.read_index(path)[1][0]
    check_member(path, linked.offset, linked.size, "1.jpg", lambda offset, length: content[offset : offset + length])
    with pytest.raises(RunError, match=r"before the bytes of member 9\.jpg"):
        check_member(path, linked.offset, linked.size, "9.jpg", lambda offset, length: content[offset : offset + length])
