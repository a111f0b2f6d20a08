"""Trust in builds: what a dying worker, a second command, an interrupt, a folder that goes, or a failing disk does to one."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from drawing import captioned_folder, encoded, picture

from curate.cli import main
from curate.table import joined_digest, rows_digest
from shards.cli import main as shards_main
from shards.core import fs

ROOT = Path(__file__).parents[2]
Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pairs: four parts of the measure pass, of 32, 64, 128 and 76 rows."""
    rows = [(f"{i}.jpg", encoded(picture(i, 320, 240)), f"picture {i}") for i in range(300)]
    return captioned_folder(tmp_path_factory.mktemp("pool") / "photos", rows)


def flags(pool: Path, out: Path, *more: str) -> list[str]:
    given = ["--source", "folder", "--input", pool, "--samples", "all", "--samples-per-shard", 20, "--workers", 2]
    return [*map(str, given), "--output", str(out), *more]


def digests(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(["build-shards", *flags(pool, out)]) == 0
    return digests(out)


def meanwhile(condition: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Start a thread that acts as soon as the condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.001)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def parts(out: Path) -> list[Path]:
    return list(Path(f"{out}.work", "measured").glob("[!.]*.parquet"))


def workers() -> list[psutil.Process]:
    return [worker for child in psutil.Process().children() for worker in child.children()]


@pytest.mark.slow
def test_a_worker_killed_while_it_measures_changes_no_byte_of_the_build(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    killer = meanwhile(lambda: len(parts(out)) >= 1, lambda: [worker.kill() for worker in workers()])
    assert main(["build-shards", *flags(pool, out)]) == 0
    killer.join()
    assert len(parts(out)) > 4  # the tasks of the dead were divided
    assert digests(out) == undisturbed
    assert main(["build-shards", *flags(pool, out)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_row_whose_worker_is_killed_once_is_tried_again(captioned: Captioned, tmp_path: Path) -> None:
    """A source of one row: there is nothing to divide, and a death of its worker proves nothing against it."""
    from poison import kill_once

    from shards.core.engine import Done, map_unordered

    (outcome,) = map_unordered(kill_once, [str(tmp_path / "died")])
    assert isinstance(outcome, Done)
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("cuts", [(), (1,), (5,), (2, 3, 4), tuple(range(1, 9))])
def test_a_table_says_the_same_however_it_is_cut(cuts: tuple[int, ...]) -> None:
    import pyarrow as pa

    rows: list[dict[str, Any]] = [{"a": i % 4, "b": None if i == 3 else f"é{i % 2}", "c": ["x"] * (i % 3), "d": i / 3} for i in range(9)]
    whole = pa.Table.from_pylist(rows)
    bounds = [0, *cuts, len(rows)]
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    assert joined_digest((rows_digest(piece), piece.num_rows) for piece in pieces) == rows_digest(whole)


def test_whatever_a_table_says_else_changes_its_digest() -> None:
    import pyarrow as pa

    rows: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 1, "b": "x"}, {"a": 3, "b": ""}]
    others = [rows[:3], rows[::-1], [*rows, rows[0]], [rows[0], *rows], [{"a": row["a"], "c": row["b"]} for row in rows]]
    others += [[row | {"b": row["b"] or ""} for row in rows], [row | {"a": float(row["a"])} for row in rows]]
    found = [rows_digest(pa.Table.from_pylist(some)) for some in (rows, *others)]
    found.append(rows_digest(pa.Table.from_pylist(rows), beside="a model"))
    assert len(set(found)) == len(found)


COMMANDS = {
    "build": lambda out: main(["build-shards", "--source", "folder", "--input", out, "--samples", "all", "--output", out, "--overwrite"]),
    "forget": lambda out: main(["forget", out, "--uids", f"{out}.txt"]),
    "report": lambda out: main(["report", out]),
    "report elsewhere": lambda out: main(["report", f"{out}/00000.tar", "--output", f"{out}/page.html"]),
    "card": lambda out: main(["card", out]),
    "layer": lambda out: main(["layer", "tokens", out, "words"]),
    "remove": lambda out: shards_main(["remove", out, "--uids", f"{out}.txt"]),
    "compact": lambda out: shards_main(["compact", out]),
    "subset": lambda out: shards_main(["subset", f"{out}-other", "--samples", "2", "--output", out, "--overwrite"]),
    "merge": lambda out: shards_main(["merge", f"{out}-other", f"{out}-third", "--output", out, "--overwrite"]),
    "index": lambda out: shards_main(["index", out, "--overwrite"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_being_written_is_refused_by_name(
    make_shards: Callable[..., str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = make_shards(4)
    Path(f"{out}.txt").write_text("0" * 32 + "\n")
    for seed, name in enumerate(("build-other", "build-third"), 1):
        make_shards(4, name, seed=seed)
    before = digests(Path(out))
    with fs.locked(out):
        assert COMMANDS[command](out) == 2
    assert f"{out}: another process is writing here" in capsys.readouterr().err
    assert digests(Path(out)) == before


@pytest.mark.slow
def test_of_two_builds_into_one_folder_the_second_is_refused(pool: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    codes: list[int] = []
    second = meanwhile(Path(f"{out}.work").exists, lambda: codes.append(main(["build-shards", *flags(pool, out, "--seed", "7")])))
    assert main(["build-shards", *flags(pool, out)]) == 0
    second.join()
    assert codes == [2]
    assert digests(out) == undisturbed


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        pytest.param("build-shards", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("measure", signal.SIGTERM, marks=pytest.mark.slow),
        ("decide", signal.SIGINT),
    ],
)
def test_an_interrupted_command_goes_on_to_the_same_bytes(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path, verb: str, number: int
) -> None:
    out = tmp_path / "out"
    code = "import sys; from curate.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, verb, *flags(pool, out)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        meanwhile(lambda: len(parts(out)) >= 1 or process.poll() is not None, lambda: None).join()
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "interrupted; the same command goes on"
    assert "Traceback" not in errors, errors
    assert not out.exists()
    assert [str(p) for p in tmp_path.rglob("*") if ".tmp-" in p.name] == []
    before = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert before
    assert main(["build-shards", *flags(pool, out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert digests(out) == undisturbed


@pytest.mark.parametrize("kind", ["file", "link to nothing", "below a file"])
@pytest.mark.parametrize("flag", ["--output", "--work"])
def test_a_folder_that_can_be_none_is_refused_before_work_begins(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, flag: str
) -> None:
    place = tmp_path / "place"
    if kind == "link to nothing":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("years of work")
    folder = place / "sub" if kind == "below a file" else place
    other = {"--output": "--work", "--work": "--output"}[flag]
    given = ["--source", "folder", "--input", str(pool), "--samples", "all", flag, str(folder), other, str(tmp_path / "other")]
    assert main(["build-shards", *given]) == 2
    said = capsys.readouterr().err
    assert f"{str(place)!r} is a{' link to nothing' if kind == 'link to nothing' else ' file'}" in said
    assert "measure:" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["work", "output"])
def test_a_folder_that_goes_while_a_build_runs_is_one_error(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    out = tmp_path / "out"
    goes, sign = {"work": (Path(f"{out}.work"), lambda: parts(out)), "output": (out, lambda: list(out.glob("*.tar")))}[which]
    remover = meanwhile(lambda: len(sign()) >= 1, lambda: shutil.rmtree(goes, ignore_errors=True))
    assert main(["build-shards", *flags(pool, out)]) == 1
    remover.join()
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert str(goes) in said.partition("error: ")[2].splitlines()[0]
    # What was written after the output was taken away has no recipe beside it that says whose it is.
    assert main(["build-shards", *flags(pool, out, *(["--overwrite"] if which == "output" else []))]) == 0
    assert digests(out) == undisturbed


def test_a_limit_of_file_size_is_one_error_that_names_the_file(
    pool: Path, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200,000 bytes hold all but the tars. The build before has unpacked the languages' model, which is larger."""
    out = tmp_path / "out"
    given = ["build-shards", *flags(pool, out, "--engine", "inline")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        assert main(given) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"error: {os.strerror(errno.EFBIG)}: {out}/00000.tar\n" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    assert main(given) == 0
    assert digests(out) == undisturbed


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_at_a_picture_is_an_error_and_no_missing_picture(
    build: Build, captioned: Captioned, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pread = os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/1.jpg"):
            raise OSError(number, os.strerror(number))
        return pread(descriptor, length, offset)

    rows = [(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(3)]
    given = ["--source", "folder", "--input", captioned(rows), "--samples", "all"]
    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", failing)
        code, out, said = build(*given)
    assert code == 1
    assert f"error: {os.strerror(number)}: " in said
    assert "/1.jpg" in said
    assert not out.exists()
    code, out, _ = build(*given)
    assert code == 0
    assert json.loads((out / "manifest.json").read_text())["samples"] == 3


def test_what_a_build_drops_is_told_by_kind_and_strict_makes_it_exit_code_1(build: Build, captioned: Captioned) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(4)]
    bad = [("cut.jpg", rows[0][1][:-200], "cut"), ("gone.jpg", None, "gone"), ("gone2.jpg", None, "gone, too")]
    folder = captioned([*rows, *bad])
    code, out, said = build("--source", "folder", "--input", folder, "--samples", "all")
    expected = [
        f"{count} dropped: {reason}: see {out}/ledger, or `curate why {out} ID`"
        for count, reason in ((2, "image_missing"), (1, "undecodable"))
    ]
    assert (code, [line for line in said.splitlines() if " dropped: " in line]) == (0, expected)
    code, _, said = build("--source", "folder", "--input", folder, "--samples", "all", "--strict")
    assert "nothing to do" in said
    assert (code, [line for line in said.splitlines() if " dropped: " in line]) == (1, expected)
    code, _, said = build("--source", "folder", "--input", captioned(rows, "fine"), "--samples", "all", "--strict", output="whole")
    assert (code, " dropped: " in said) == (0, False)


@pytest.mark.parametrize("verb", ["measure", "decide"])
def test_measure_and_decide_tell_what_goes_too(captioned: Captioned, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    folder = captioned([("0.jpg", encoded(picture(0)), "fine"), ("gone.jpg", None, "gone")])
    given = ["--engine", "inline", "--source", "folder", "--input", str(folder), "--samples", "all", "--work", str(tmp_path / "work")]
    assert main([verb, *given]) == 0
    assert "1 dropped: image_missing: " in capsys.readouterr().err
    assert main([verb, *given, "--strict"]) == 1
