"""Ctrl-C and SIGTERM while `curate report` counts: it leaves within seconds, keeps what was counted, and goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.cli import main
from shards.core import registry

pytestmark = pytest.mark.slow  # two commands start, and each loads the report in some seconds

CURATE = [sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())"]
# Workers have 2 seconds to leave by themselves; the end took 0.3 s on two idle cores and 2.6 s beside six busy loops, which
# made the start take 37 s instead of 4: beside even more, the end has as long as the start took.
SECONDS = 10
# The second file is not read before there is a file `go` beside it.
SOURCE = '''"""Lines that wait."""

import time
from dataclasses import dataclass
from pathlib import Path

from curate.sources.base import Record, list_inputs

VERSION = 1
IMAGES = "inline"


@dataclass(frozen=True)
class Options:
    pass


def inputs(pattern, options):
    return list_inputs(pattern, (".lines",))


def read(input, options):
    folder = Path(input.path).parent
    if input.name == "b.lines" and not (folder / "go").exists():
        (folder / "waiting").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
    for row, line in enumerate(Path(input.path).read_text().splitlines()):
        yield Record(f"{input.name}:{row}", (line,), row)
'''


@pytest.fixture(autouse=True)
def forget_plugins() -> object:
    yield
    registry._given.clear()


def awaited(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stamps(*folders: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in sorted(folder.iterdir())}


@pytest.fixture
def arguments(make_shards: Callable[..., str], tmp_path: Path) -> list[str]:
    native = tmp_path / "native"
    native.mkdir()
    (native / "a.lines").write_text("a red barn\ntwo dogs\n")
    (native / "b.lines").write_text("three red dogs\n")
    plugin = tmp_path / "waits.py"
    plugin.write_text(SOURCE)
    flags = ["--source", "waits", "--input", str(native), "--plugin", str(plugin), "--workers", "1", "--json"]
    return ["report", make_shards(20), *flags]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_counted_is_kept_and_the_same_command_goes_on(
    arguments: list[str], tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    native, work, beside = tmp_path / "native", tmp_path / "work", tmp_path / "build" / "stats"
    before = time.monotonic()
    with subprocess.Popen([*CURATE, *arguments, "--work", str(work)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        awaited(lambda: (native / "waiting").exists() or process.poll() is not None)
        process.send_signal(number)
        start = time.monotonic()
        printed, errors = process.communicate(timeout=60)
        assert time.monotonic() - start < max(SECONDS, start - before)
    assert (process.returncode, printed) == (128 + number, "")
    assert errors.endswith("what was counted is kept\ninterrupted; the same command goes on\n")
    kept = stamps(beside, work / "statistics")
    assert len(kept) == 3 + 2  # of each shard, and of the first file its statistics and its sample
    (native / "go").touch()
    assert main([*arguments, "--work", str(work)]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert {path: stamp for path, stamp in stamps(beside, work / "statistics").items() if path in kept} == kept
    assert main([*arguments, "--work", str(tmp_path / "fresh")]) == 0
    assert json.loads(capsys.readouterr().out) == resumed
    assert {source["name"]: source["samples"] for source in resumed["sources"]} == {"drawn": 20, "waits": 3}


def test_without_a_work_folder_it_says_what_is_lost(arguments: list[str], tmp_path: Path) -> None:
    native = tmp_path / "native"
    with subprocess.Popen([*CURATE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        awaited(lambda: (native / "waiting").exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"what was counted is kept, but of {native}: --work DIR keeps that, too\n" in errors
    assert len(list((tmp_path / "build" / "stats").iterdir())) == 3
