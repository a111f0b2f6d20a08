"""The examples of CONTRIBUTING.md are put where they belong, in a copy of the packages, and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
ROOMS = ("shards", "curate", "train", "eval")
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
LOSS = """
import torch
from train.losses.sigmoid import sigmoid_loss
g = torch.Generator().manual_seed(0)
images, texts = torch.randn(2, 5, 7, generator=g, dtype=torch.double)
scale, bias = torch.tensor(3.0), torch.tensor(-2.0)
terms = [torch.log1p(torch.exp(-(1 if i == j else -1) * (scale * images[i] @ texts[j] + bias))) for i in range(5) for j in range(5)]
torch.testing.assert_close(sigmoid_loss(images, texts, scale, bias).mean(), sum(terms) / 5)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the four rooms with the examples' files in it, and drawings for them to read."""
    root = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in MODULES.items():
        assert not (root / path).exists(), f"{path} exists: the example needs another name"
        (root / path).write_text(code)
    drawings = root / "drawings"
    drawings.mkdir()
    captions = ["a red square", "on the table", "20190803_112233", "a blue square"]
    noise = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(drawings / f"{i}.jpg")
    lines = [json.dumps({"id": f"drawing-{i}", "file": f"{i}.jpg", "text": text}) for i, text in enumerate(captions)]
    (drawings / "drawings.jsonl").write_text("\n".join([*lines, "no JSON"]) + "\n")
    (drawings / "labels.csv").write_text("file,label\n0.jpg,red\n1.jpg,plain\n3.jpg,blue\n")
    return root


def run(checkout: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout), "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_kind_has_an_example() -> None:
    assert sorted(Path(path).parent.as_posix() for path in MODULES) == ["curate/filters", "curate/sources", "eval/datasets", "train/losses"]


@pytest.mark.slow
def test_the_commands_do_what_the_page_says(checkout: Path) -> None:
    said = "".join(run(checkout, "bash", "-c", command) for command in COMMANDS)
    assert "Drop captions that are mostly digits." in said
    assert "('blue', 'plain', 'red')" in said
    rows = [row for part in sorted((checkout / "out" / "ledger").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert {r["source_id"]: r["reason"] for r in rows} == {
        "drawing-0": "", "drawing-1": "", "drawing-2": "caption_digits", "drawing-3": "", "drawings.jsonl:4": "bad_record",
    }  # fmt: skip
    assert next(r["detail"] for r in rows if r["source_id"] == "drawing-2") == "0.93 digits"


@pytest.mark.slow
def test_the_loss_equals_its_formula(checkout: Path) -> None:
    run(checkout, sys.executable, "-c", LOSS)


@pytest.mark.slow
def test_the_examples_keep_the_house_rules(checkout: Path) -> None:
    files = [str(checkout / path) for path in MODULES]
    run(checkout, "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *files)
    run(checkout, "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), *files)
