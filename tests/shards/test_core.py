"""Configuration, command line, plug-ins, files and the console."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from shards.core import cli, console, fs, registry
from shards.core.cli import Command
from shards.core.config import digest, dump, load, option
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.writer import write_shard

HEAVY = "numpy pyarrow duckdb PIL torch nvidia open_clip datasets img2dataset pandas cv2 fsspec simplejpeg"


@dataclass(frozen=True)
class Inner:
    radius: int = option(4)
    hash: Literal["fast", "reference"] = option("reference")


@dataclass(frozen=True)
class Outer:
    path: str = option(help="where", positional=True)
    near: Inner | None = option(Inner())
    rate: float = option(1.0, "a number")
    count: int | None = option(None, "how many")
    words: tuple[str, ...] = option((), "some words")
    size: int | Literal["all"] = option("all", "how much")
    dry_run: bool = option(False, "only say so")
    extras: dict[str, str] = option({})


def show(config: Outer) -> int:
    console.emit(dump(config))
    return 0


def full(config: Outer) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", config.path)


def bug(config: Outer) -> None:
    raise OSError(errno.EBADF, "Bad file descriptor", config.path)


COMMANDS = {
    "show": Command(Outer, f"{__name__}:show", "prints its configuration"),
    "full": Command(f"{__name__}:Outer", f"{__name__}:full", "meets a full disk"),
    "bug": Command(Outer, f"{__name__}:bug", "has a bug"),
}


def _main(*arguments: str) -> int:
    return cli.main("tool", "A tool.", COMMANDS, arguments)


@pytest.mark.parametrize(
    ("values", "found", "advice"),
    [
        ({"path": "x", "ratte": 1.0}, "unknown key 'ratte'", "did you mean 'rate'?"),
        ({"path": "x", "near": {"raduis": 3}}, "unknown key 'near.raduis'", "did you mean 'radius'?"),
        ({}, "missing key 'path'", ""),
        ({"path": "x", "near": {"radius": "4"}}, "near.radius: found '4'", ""),
        ({"path": "x", "near": {"hash": "refrence"}}, "near.hash: found 'refrence'", "did you mean 'reference'?"),
        ({"path": "x", "words": "one"}, "words: found 'one'", ""),
        ({"path": "x", "words": ["one", 2]}, "words[1]: found 2", ""),
        ({"path": "x", "count": True}, "count: found True", ""),
        ({"path": "x", "size": "most"}, "size: found 'most'", ""),
        ({"path": "x", "extras": [1]}, "extras: found [1]", ""),
        ("text", "found 'text'", ""),
    ],
)
def test_configurations_are_strict_and_say_where(values, found, advice):
    with pytest.raises(UsageError) as error:
        load(Outer, values)
    assert found in error.value.found
    assert error.value.advice == advice


def test_configurations_go_through_plain_values_and_back():
    config = load(Outer, {"path": "x", "rate": 2, "near": {"radius": 3}, "words": ["a"], "size": 7, "extras": {"k": "v"}})
    assert (config.rate, config.near, config.words, config.size) == (2.0, Inner(3), ("a",), 7)
    assert load(Outer, json.loads(json.dumps(dump(config)))) == config
    assert digest(config) == digest(load(Outer, dump(config)))
    assert digest(config) != digest(load(Outer, {**dump(config), "size": 8}))
    assert load(Outer, {"path": "x", "near": None}).near is None


def test_flags_are_the_configuration(capsys):
    assert _main("show", "p", "--rate", "3", "--words", "a", "b", "--words", "c", "--size", "9", "--dry-run", "--count", "2") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["words"] == ["a", "b", "c"]
    assert (shown["path"], shown["rate"], shown["size"], shown["dry_run"], shown["count"]) == ("p", 3.0, 9, True, 2)
    assert _main("show", "p", "--size", "all") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, ""),
        (("--help",), 0, ""),
        (("show", "--help"), 0, ""),
        (("shwo",), 2, "did you mean 'show'?"),
        (("show",), 2, "PATH"),
        (("show", "p", "--rats", "1"), 2, "did you mean '--rate'?"),
        (("show", "p", "--rate", "1", "--rate", "2"), 0, "--rate is given twice: 2.0 counts, not 1.0"),
        (("show", "p", "q"), 2, "unexpected argument 'q'"),
        (("show", "p", "--size", "most"), 2, "size: found 'most'"),
        (("show", "p", "--count", "x"), 2, "--count"),
        (("full", "disk/x"), 1, "No space left on device: disk/x"),
    ],
)
def test_exit_codes_and_what_is_said(capsys, arguments, code, said):
    assert _main(*arguments) == code
    assert said in capsys.readouterr().err


def test_every_command_knows_its_version(capsys):
    assert _main("--version") == 0
    assert re.fullmatch(r"provender \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(OSError, match="Bad file descriptor"):
        _main("bug", "x")


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in ("inspect", "verify", "subset", "uids", "index"))])
def test_help_imports_nothing_heavy(arguments):
    run = f"import sys; from shards.cli import main; code = main({arguments!r})"
    code = f"{run}; print(set({HEAVY.split()!r}) & set(sys.modules)); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert "usage: shards" in done.stdout


ENDLESS = """
import sys
from shards.core import cli
from shards.core.console import emit
from shards.uids import UidsConfig
def run(config):
    for i in range(100_000):
        emit(str(i))
sys.modules["m"] = sys.modules["__main__"]
sys.exit(cli.main("t", "", {"go": cli.Command(UidsConfig, "m:run", "")}, ["go", "x"]))
"""


def test_a_reader_that_leaves_is_no_error():
    pipe = '"$0" -c "$1" | head -2; echo ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", pipe, sys.executable, ENDLESS], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["0", "1", "0"], "")


def test_plugins_are_found_by_file_name():
    assert "local" in registry.names("shards.core.engines")
    assert "base" not in registry.names("curate.filters")
    assert registry.get("shards.core.engines", "local").run
    assert registry.summary("shards.core.engines", "local").startswith("Local worker processes")
    with pytest.raises(UsageError, match="unknown engine"):
        registry.get("shards.core.engines", "nowhere")


@pytest.mark.parametrize("base", ["memory://test_fs", ""])
def test_files_are_alike_here_and_behind_fsspec(tmp_path, base):
    root = base or str(tmp_path)
    fs.make_dirs(fs.join(root, "a/b"))
    fs.write_text(fs.join(root, "a/b/x.txt"), "\ufeffgrüße")
    fs.write_bytes(fs.join(root, "a/y.bin"), bytes(range(10)))
    assert fs.read_text(fs.join(root, "a/b/x.txt")) == "grüße"
    assert fs.read_range(fs.join(root, "a/y.bin"), 3, 4) == bytes([3, 4, 5, 6])
    assert fs.size(fs.join(root, "a/y.bin")) == 10
    assert fs.names(fs.join(root, "a")) == ["b", "y.bin"]
    assert fs.names(fs.join(root, "none")) == []
    assert fs.walk(root) == ["a/b/x.txt", "a/y.bin"]
    assert fs.find(fs.join(root, "a")) == [fs.join(root, "a/b/x.txt"), fs.join(root, "a/y.bin")]
    assert fs.find(fs.join(root, "a/*.bin")) == fs.find(fs.join(root, "a/{x,y}.bin")) == [fs.join(root, "a/y.bin")]
    assert fs.is_dir(fs.join(root, "a"))
    assert not fs.is_dir(fs.join(root, "a/y.bin"))
    assert fs.identity(fs.join(root, "a/y.bin"))[:2] == ["y.bin", 10]
    assert fs.relative(fs.join(root, "a/y.bin"), fs.join(root, "c")) == "../a/y.bin"
    with pytest.raises(UsageError, match="no file at"):
        fs.find(fs.join(root, "*.none"))
    fs.remove(root)
    assert not fs.exists(fs.join(root, "a"))


@pytest.mark.parametrize("base", ["memory://test_atomic", ""])
def test_a_file_appears_whole_or_not_at_all(tmp_path, base):
    root = base or str(tmp_path)
    fs.write_text(fs.join(root, "x"), "old")
    with pytest.raises(TypeError), fs.atomic_write(fs.join(root, "x")) as file:
        file.writelines([b"half", "no bytes"])
    assert fs.read_text(fs.join(root, "x")) == "old"
    assert fs.names(root) == ["x"]


class _FullFile(MemoryFile):
    def write(self, content) -> int:
        if self.tell() + len(content) > 3000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


class FullFileSystem(MemoryFileSystem):
    """A disk in memory on which no file grows over 3,000 bytes."""

    protocol = "full"
    store: dict[str, MemoryFile] = {}  # noqa: RUF012  fsspec's way
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("full://", "memory://"))

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            return super()._open(path, mode)
        file = _FullFile(self, self._strip_protocol(path))
        file.commit()
        return file


def test_a_disk_that_is_full_leaves_nothing_behind():
    fsspec.register_implementation("full", FullFileSystem, clobber=True)
    samples = [(f"k{i}", {"jpg": bytes(700)}) for i in range(5)]
    with pytest.raises(OSError, match="No space left"):
        write_shard("full://build", "00000", samples, pa.table({"key": [k for k, _ in samples]}))
    assert fs.walk("full://build") == []
    assert write_shard("full://build", "00000", samples[:1], pa.table({"key": ["k0"]})).samples == 1


REAL_FULL_DISK = """
mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c '
import os, sys
import pyarrow as pa
from shards.core import cli
from shards.uids import UidsConfig
from shards.writer import write_shard
sys.modules["m"] = sys.modules["__main__"]
def run(config):
    samples = [(f"k{i}", {"jpg": os.urandom(9000)}) for i in range(20)]
    write_shard(config.source, "00000", samples, pa.table({"key": [k for k, _ in samples]}))
code = cli.main("t", "", {"go": cli.Command(UidsConfig, "m:run", "")}, ["go", sys.argv[1]])
print(code, os.listdir(sys.argv[1]))
' "$1"
"""


def test_a_real_full_disk_ends_in_one_message_and_no_file(tmp_path):
    probe = subprocess.run(
        ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$1"', "sh", str(tmp_path)], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this system lets no user mount a small disk")
    command = ["unshare", "-rm", "sh", "-c", REAL_FULL_DISK, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout == "1 []\n", done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def _manifest(**changes: object) -> Manifest:
    shards = (ShardEntry("00000.tar", 3, 4096, "ab"), ShardEntry("00001.tar", 3, 4096, "cd", use=(0, 2), index="00001.idx"))
    return Manifest(**{"samples": 5, "bytes": 8192, "shards": shards, "seed": 0, "members": ("jpg", "txt"), **changes})


def test_a_manifest_reads_back_with_the_same_digest_from_anywhere(tmp_path):
    manifest = _manifest(sources={"a": {"inputs": 5}})
    manifest.save(str(tmp_path))
    again = read_manifest(str(tmp_path))
    assert again == manifest
    assert again.digest == manifest.digest == read_manifest(str(tmp_path / "manifest.json")).digest
    assert again.digest != _manifest(seed=1).digest
    assert again.to_json() == (tmp_path / "manifest.json").read_text()
    assert str(tmp_path) not in again.to_json()
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"00000.tar": 3, "00001.tar": 2}
    assert [(e.ranges, e.used) for e in again.shards] == [([(0, 3)], 3), ([(0, 2)], 2)]
    assert again.path_of(again.shards[1], ".idx") == f"{tmp_path}/00001.idx"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", RunError, "not JSON"),
        ("[]", UsageError, "not a manifest of ours"),
        ('{"format": "other"}', UsageError, "not a manifest of ours"),
        (_manifest().to_json().replace('"format_version": 1', '"format_version": 9'), UsageError, "format version 9"),
        (_manifest().to_json().replace('"seed"', '"sead"'), UsageError, "unknown key 'sead'"),
    ],
)
def test_what_is_no_manifest_says_so(tmp_path, text, error, said):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(error, match=said):
        read_manifest(str(tmp_path))


def test_a_folder_without_manifest_gets_advice(tmp_path):
    with pytest.raises(UsageError) as error:
        read_manifest(str(tmp_path))
    assert "shards index" in error.value.advice
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(UsageError) as error:
        read_manifest(str(tmp_path))
    assert "unfinished" in error.value.advice


def test_reading_with_the_environment_of_another_folder(make_shards, tmp_path):
    """A set is found by a path relative to where the command runs."""
    folder = Path(make_shards(3))
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert read_manifest(".").samples == read_manifest("manifest.json").samples == 3
    finally:
        os.chdir(here)
