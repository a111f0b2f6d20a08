"""Folders and sets of foreign tars: links, pipes, torn tars, odd names, running numbers that repeat. Nothing is lost unsaid."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest
from foreign import foreign, good, write

from shards import cli, tar
from shards.core.errors import RunError, TornFileError
from shards.index import index
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.tally import Tally
from shards.verify import verify


def _pair(i: int, mark: str = "") -> dict[str, bytes]:
    return {"jpg": f"picture {mark}{i}".encode(), "txt": f"caption {mark}{i}".encode()}


def _numbered(folder: Path, mark: str, tars: int = 2, per_tar: int = 3) -> None:
    """Write and index tars whose keys are running numbers that begin anew in each, as of other downloads."""
    for number in range(tars):
        members = [(f"{i:04d}.{ext}", c) for i in range(per_tar) for ext, c in _pair(i, f"{mark}{number}.").items()]
        write(folder / f"{number:05d}.tar", members)
    index(str(folder), engine="inline")


def _run(*arguments: str) -> int:
    engine = ["--engine", "inline"] if arguments[0] in ("index", "merge", "verify", "subset") else []
    return cli.main([*arguments, *engine])


def test_index_follows_linked_folders_and_a_loop_ends(tmp_path):
    write(tmp_path / "elsewhere" / "deep" / "0.tar", [("a.jpg", b"x")])
    (tmp_path / "set" / "inner").mkdir(parents=True)
    write(tmp_path / "set" / "1.tar", [("b.jpg", b"y")])
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "inner" / "up").symlink_to(tmp_path / "set")
    manifest = index(str(tmp_path / "set"), engine="inline")
    assert [entry.path for entry in manifest.shards] == ["1.tar", "linked/deep/0.tar"]
    assert [sample.key for sample in read_samples(manifest)] == ["b", "a"]


def test_what_is_named_tar_and_is_no_file_is_passed_over_and_counted(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "set"
    write(folder / "0.tar", [("a.jpg", b"x")])
    os.mkfifo(folder / "pipe.tar")
    (folder / "gone.tar").symlink_to(folder / "nowhere")
    monkeypatch.chdir(folder)  # a socket's path has at most 108 bytes
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.tar")
    listener.close()
    assert _run("index", str(folder)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert lines == [
        "warning: 1 name of a tar passed over: a link that leads nowhere, such as gone.tar",
        "warning: 1 name of a tar passed over: a pipe, no file, such as pipe.tar",
        "warning: 1 name of a tar passed over: a socket, no file, such as socket.tar",
    ]
    assert _run("index", str(folder), "--overwrite", "--strict") == 1


def test_a_tar_that_became_a_pipe_is_named_and_never_waited_for(tmp_path):
    folder = tmp_path / "set"
    write(folder / "0.tar", [("a.jpg", b"x")])
    manifest = index(str(folder), engine="inline")
    (folder / "0.tar").unlink()
    os.mkfifo(folder / "0.tar")
    assert any("0.tar: a pipe, no file" in str(problem) for problem in verify(manifest, engine="inline"))
    with pytest.raises(RunError, match=r"0\.tar: a pipe"):
        list(read_samples(manifest))
    with pytest.raises(TornFileError, match=r"0\.tar: a pipe"):
        tar.opened(str(folder / "0.tar"))


def _cut(path: Path, *, behind: str, more: int = 0) -> None:
    """Cut a tar off behind a member, or `more` bytes later."""
    with tarfile.open(path) as file:
        member = file.getmember(behind)
    end = member.offset_data + -(-member.size // 512) * 512
    path.write_bytes(path.read_bytes()[: end + more])


@pytest.mark.parametrize(
    ("samples", "behind", "more", "whole"),
    [
        (4, "3.txt", 0, 4),  # no end mark: nothing of a sample is missing
        (4, "3.txt", 512, 4),  # half an end mark
        (4, "3.jpg", 0, 3),  # its caption is missing
        (4, "3.jpg", 516, 3),  # cut off inside its caption
        (4, "3.jpg", 600, 4),  # inside what fills its block up
        (4, "3.jpg", 100, 3),  # inside the header of its caption
        (1, "0.txt", 0, 1),
        (1, "0.jpg", 516, 0),  # nothing tells whether it was to have a caption
    ],
)
def test_the_whole_samples_of_a_torn_tar_are_read_under_skip(tmp_path, samples, behind, more, whole):
    members = [(f"{i}.{ext}", c) for i in range(samples) for ext, c in _pair(i).items()]
    write(tmp_path / "0.tar", members)
    _cut(tmp_path / "0.tar", behind=behind, more=more)
    write(tmp_path / "1.tar", [("other.jpg", b"x"), ("other.txt", b"y")])
    if more == 512:
        assert index(str(tmp_path), engine="inline").samples == samples + 1
        return
    with pytest.raises(RunError, match=r"0\.tar: .*cut off"):
        index(str(tmp_path), engine="inline")
    manifest = index(str(tmp_path), bad_files="skip", engine="inline")
    assert list(manifest.notes["bad_files"]) == ["0.tar"]
    read = [sample.members for sample in read_samples(manifest)]
    assert read == [_pair(i) for i in range(whole)] + [{"jpg": b"x", "txt": b"y"}]
    (tmp_path / "0.idx").unlink(missing_ok=True)
    assert [sample.members for sample in read_samples(manifest)] == read, "without an index the tar is walked"


def test_verify_takes_a_torn_tar_that_the_manifest_names_and_no_other(tmp_path, capsys, make_jpeg):
    members = [(f"{i}.{ext}", c) for i in range(4) for ext, c in (("jpg", make_jpeg), ("txt", b"words"))]
    write(tmp_path / "set" / "0.tar", members)
    _cut(tmp_path / "set" / "0.tar", behind="3.txt")
    assert _run("index", str(tmp_path / "set"), "--bad-files", "skip") == 0
    assert _run("subset", str(tmp_path / "set"), "--samples", "2", "--output", str(tmp_path / "sub")) == 0
    capsys.readouterr()
    for folder, count in (("set", 4), ("sub", 2)):
        assert _run("verify", str(tmp_path / folder)) == 0
        said = capsys.readouterr()
        assert said.out.startswith(f"fine: {count} samples")
        assert "1 torn tar, of which the whole samples are used" in said.err
        assert _run("verify", str(tmp_path / folder), "--strict") == 1
        capsys.readouterr()
    path = tmp_path / "set" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": {}}))
    assert _run("verify", str(tmp_path / "set")) == 1


@pytest.fixture
def make_jpeg() -> bytes:
    """Return a small JPEG."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (20, 16), (200, 30, 60)).save(out, "JPEG")
    return out.getvalue()


def test_documents_among_samples_are_passed_over_and_those_with_a_picture_are_not(tmp_path):
    documents = ["README.md", "LICENSE.txt", "classes.json", "metadata.csv", "notes.md"]
    members = [("a.jpg", b"x"), ("a.txt", b"y"), ("labels.jpg", b"x"), ("labels.txt", b"y"), ("index.png", b"z"), ("b.txt", b"alone")]
    write(tmp_path / "0.tar", [*((name, b"text") for name in documents), *members])
    tally = Tally()
    groups, torn = tar.read_whole_samples(str(tmp_path / "0.tar"), tally)
    assert torn is None
    assert [[member.name for member in group] for group in groups] == [
        ["a.jpg", "a.txt"],
        ["labels.jpg", "labels.txt"],
        ["index.png"],
        ["b.txt"],
    ]
    assert tally.counts == {"[document|documents] passed over": 5}
    manifest = index(str(tmp_path), engine="inline")
    assert manifest.notes["notices"] == {"documents passed over": 5, "samples without an image": 1}
    write(tmp_path / "1.tar", [(name, b"text") for name in documents])
    assert len(tar.read_whole_samples(str(tmp_path / "1.tar"))[0]) == 5, "where there is nothing else, they are what the tar holds"


def test_names_that_are_no_utf8_are_read_cut_merged_and_saved(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    for number in range(2):
        folder = tmp_path / f"set{number}"
        with_latin = [(f"{name}{i}.{ext}", c) for i in range(3) for ext, c in _pair(i, str(number)).items()]
        folder.mkdir()
        with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as file:
            for member, content in with_latin:
                info = tarfile.TarInfo(member.encode("utf-8", "surrogateescape").decode("latin-1"))
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        assert _run("index", str(folder)) == 0
    first, second = str(tmp_path / "set0"), str(tmp_path / "set1")
    assert [s.key for s in read_samples(read_manifest(first))] == [f"{name}{i}" for i in range(3)]
    assert read_manifest(first).digest == read_manifest(first).digest
    assert _run("subset", first, "--samples", "2", "--output", str(tmp_path / "sub")) == 0
    assert [s.key for s in read_samples(read_manifest(str(tmp_path / "sub")))] == [f"{name}{i}" for i in range(2)]
    assert _run("merge", first, second, "--output", str(tmp_path / "all")) == 0
    assert [s.members for s in read_samples(read_manifest(str(tmp_path / "all")))] == [_pair(i, m) for m in "01" for i in range(3)]
    assert _run("inspect", first) == 0
    assert _run("verify", first, "--no-decode") == 1
    capsys.readouterr()
    assert _run("merge", first, second, "--output", str(tmp_path / "copy"), "--materialize") == 2
    assert r"key 'caf\\xe90' cannot be copied" in capsys.readouterr().err
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_merged_foreign_sets_with_equal_running_numbers_keep_all_samples(tmp_path, capsys):
    """CONTRACT: a sample is (source, shard, position); its key is a name."""
    for mark in "ab":
        _numbered(tmp_path / mark, mark)
    expected = [_pair(i, f"{mark}{number}.") for mark in "ab" for number in range(2) for i in range(3)]
    capsys.readouterr()
    assert _run("merge", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "m")) == 0
    said = capsys.readouterr()
    assert "12 samples in 4 shards" in said.out
    assert "3 keys that stand for several samples" in said.err
    assert [s.members for s in read_samples(read_manifest(str(tmp_path / "m")))] == expected
    assert _run("merge", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "c"), "--materialize") == 0
    copied = list(read_samples(read_manifest(str(tmp_path / "c"))))
    assert [s.members for s in copied] == expected
    assert [s.key for s in copied] == [f"{i:04d}{end}" for end in ("", "-2", "-3", "-4") for i in range(3)]
    assert _run("verify", str(tmp_path / "c"), "--no-decode") == 0
    out = str(tmp_path / "strict")
    assert _run("merge", str(tmp_path / "a"), str(tmp_path / "b"), "--output", out, "--strict") == 1


def test_the_same_foreign_samples_come_once_and_equal_tars_are_said(tmp_path, capsys):
    _numbered(tmp_path / "a", "a")
    a, part = str(tmp_path / "a"), str(tmp_path / "part")
    assert _run("subset", a, "--window", "1:4", "--output", part) == 0
    assert _run("merge", part, a, "--output", str(tmp_path / "m")) == 0
    assert "3 samples of" in capsys.readouterr().out
    manifest = read_manifest(str(tmp_path / "m"))
    assert manifest.samples == 6
    assert len({s.members["jpg"] for s in read_samples(manifest)}) == 6
    _numbered(tmp_path / "copy", "a")
    capsys.readouterr()
    assert _run("merge", a, str(tmp_path / "copy"), "--output", str(tmp_path / "twice")) == 0
    assert "2 tars are byte for byte those of an earlier set" in capsys.readouterr().err
    assert read_manifest(str(tmp_path / "twice")).samples == 12


def test_keys_that_are_uids_name_one_sample_in_all_foreign_sets(tmp_path):
    uids = [f"{i:032x}" for i in range(4)]
    write(tmp_path / "a" / "0.tar", [(f"{uid}.jpg", b"x") for uid in uids])
    write(tmp_path / "b" / "0.tar", [(f"{uid}.jpg", b"other bytes") for uid in uids[2:]] + [(f"{9:032x}.jpg", b"y")])
    for name in "ab":
        index(str(tmp_path / name), engine="inline")
    assert _run("merge", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "m")) == 0
    assert [s.key for s in read_samples(read_manifest(str(tmp_path / "m")))] == [*uids, f"{9:032x}"]


def test_verify_counts_repeated_keys_of_foreign_tars_in_one_line(tmp_path, capsys, make_jpeg):
    for number in range(3):
        write(tmp_path / f"{number}.tar", [(f"{i}.jpg", make_jpeg) for i in (0, 1, 0)])
    assert _run("index", str(tmp_path)) == 0
    capsys.readouterr()
    assert _run("verify", str(tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out.startswith("fine: 9 samples in 3 shards")
    assert "2 keys that stand for several samples" in said.err
    assert _run("verify", str(tmp_path), "--strict") == 1


def test_verify_says_where_no_member_is_a_picture(tmp_path, capsys):
    foreign(tmp_path, lambda i: {"txt": b"words", "json": b"{}"}, samples=16)
    assert _run("verify", str(tmp_path)) == 1
    assert "no member is a picture; members are .txt .json" in capsys.readouterr().out


def test_verify_counts_samples_without_a_picture_among_others(tmp_path, capsys, make_jpeg):
    write(tmp_path / "0.tar", [("a.jpg", make_jpeg), ("b.mp3", b"x"), ("c.mp3", b"x")])
    assert _run("index", str(tmp_path)) == 0
    capsys.readouterr()
    _run("verify", str(tmp_path))
    assert "2 samples without a picture: such as 0.tar: b.mp3" in capsys.readouterr().err


def test_verify_after_a_take_down_counts_what_is_left(make_shards, tmp_path, capsys):
    folder, sub = make_shards(20), str(tmp_path / "sub")
    assert _run("subset", folder, "--samples", "15", "--output", sub) == 0
    key = next(iter(read_samples(read_manifest(folder), []))).key
    assert cli.main(["remove", folder, key]) == 0
    capsys.readouterr()
    assert _run("verify", sub) == 0
    assert "fine: 14 samples in 2 shards" in (said := capsys.readouterr()).out
    assert "1 more sample of these tars was taken down" in said.out
    assert "decoded: 14 / 14" in said.err
    assert _run("verify", sub, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["removed"]) == (14, 1)


def test_a_good_set_tells_nothing(tmp_path, capsys):
    foreign(tmp_path, good, samples=16)
    assert _run("verify", str(tmp_path), "--no-decode", "--strict") == 0
    assert "passed over" not in capsys.readouterr().err
