"""Folders of pictures with captions, and builds of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import captioned_folder


@pytest.fixture
def captioned(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes (name, bytes, caption) rows as a folder with captions.csv and gives its path."""

    return lambda rows, folder="photos": captioned_folder(tmp_path / folder, rows)


@pytest.fixture
def build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Path, str]]:
    """Return a function that runs `curate build-shards`, all in this process: (exit code, output folder, stderr)."""
    from curate.cli import main

    def run(*flags: Any, output: str = "out") -> tuple[int, Path, str]:
        out = tmp_path / output
        engine = [] if "--engine" in flags else ["--engine", "inline"]
        code = main(["build-shards", *engine, *map(str, flags), "--output", str(out)])
        return code, out, capsys.readouterr().err

    return run


@pytest.fixture
def curate_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `shards remove` and `shards compact` do curate's part in this process: one of its own imports for 3 CPU-seconds."""
    from curate.cli import main

    def start(*arguments: str) -> None:
        assert main(list(arguments)) == 0

    monkeypatch.setattr("shards.remove.start_curate", start)
    monkeypatch.setattr("shards.compact.start_curate", start)
