"""Folders of pictures with captions, and builds of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def captioned(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes (name, bytes, caption) rows as a folder with captions.csv and gives its path."""

    def make(rows: Iterable[tuple[str, bytes | None, str]], folder: str = "photos") -> Path:
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        with (out / "captions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "caption"))
            for name, content, caption in rows:
                writer.writerow((name, caption))
                if content is not None:
                    (out / name).write_bytes(content)
        return out

    return make


@pytest.fixture
def build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Path, str]]:
    """Return a function that runs `curate build-shards`, all in this process: (exit code, output folder, stderr)."""
    from curate.cli import main

    def run(*flags: Any, output: str = "out") -> tuple[int, Path, str]:
        out = tmp_path / output
        code = main(["build-shards", "--engine", "inline", *map(str, flags), "--output", str(out)])
        return code, out, capsys.readouterr().err

    return run
