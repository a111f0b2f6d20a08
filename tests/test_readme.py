"""The README tells the truth: each of its blocks is run, and what it shows is what comes out, digits masked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Step:
    """A command of a `console` block, and what the README says it prints."""

    command: str
    shown: str


def steps() -> list[Step]:
    """Return the commands of all blocks, in order; `\\` at a line's end goes on in the next."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.replace("\\\n", " ").partition("\n")
            found.append(Step(" ".join(command.split()), shown))
    return found


def masked(text: str) -> list[str]:
    """Return the lines of a text without what differs from run to run: hex digests, numbers, bars, widths."""
    lines = []
    for line in text.splitlines():
        plain = re.sub(r"\b[0-9a-f]{12,64}\b", "HEX", line)
        plain = re.sub(r"[+-]?\d[\d,.]*(e-?\d+)?", "N", plain)
        plain = re.sub(r"[#-]{2,}|(?<= )#(?= |$)", "", plain)
        lines.append(" ".join(plain.split()))
    return [line for line in lines if line]


def run(command: str) -> str:
    """Run one command of the README in the checkout; its stdout is what the README shows."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_every_fenced_block_is_of_a_kind_that_is_run() -> None:
    kinds = re.findall(r"^```(\w*)\n", README, re.MULTILINE)
    assert set(kinds) - {""} <= {"console", "yaml", "sh"}
    assert {s.command for s in steps()} >= {"make demo", "make test"}


def test_the_first_screen_shows_what_it_is_and_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:45])
    assert "make demo" in first
    assert "make test" in first


def test_every_command_stands_in_the_readme() -> None:
    from curate.cli import COMMANDS as CURATE
    from eval.cli import commands as evaluate_commands
    from shards.cli import COMMANDS as SHARDS
    from train.cli import COMMANDS as TRAIN

    for room, verbs in (("curate", CURATE), ("shards", SHARDS), ("train", TRAIN), ("evaluate", evaluate_commands())):
        for verb in verbs:
            assert f"`{room} {verb}" in README or f"$ {room} {verb}" in README, f"{room} {verb}"


def test_the_tree_names_what_there_is() -> None:
    for name in re.findall(r"^([a-z.]+/)\s", README, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_a_recipe_in_the_readme_is_a_recipe(tmp_path: Path) -> None:
    import yaml

    from curate.config import Recipe, check
    from shards.core.config import load

    blocks = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert check(load(Recipe, yaml.safe_load(block))).sources


def test_the_commands_for_real_collections_are_understood() -> None:
    """They need millions of images: here each goes through its own parser, plug-in flags and all."""
    from curate import cli as curate_cli
    from eval import cli as eval_cli
    from shards.core.cli import parse
    from train import cli as train_cli

    verbs = {"curate": curate_cli.COMMANDS, "train": train_cli.COMMANDS, "evaluate": eval_cli.commands()}
    (block,) = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [line[:2] for line in lines] == [["curate", "fetch"], ["curate", "build-shards"], ["train", "clip"], ["evaluate", "zeroshot"]]
    for room, verb, *arguments in lines:
        config = parse(f"{room} {verb}", verbs[room][verb], arguments)
        assert type(config).__name__.endswith("Config")


@pytest.mark.slow
def test_each_block_prints_what_the_readme_shows() -> None:
    """The demo first, then what the README does with its outcome; `make test` alone is left out, for it runs this."""
    for step in steps():
        if step.command == "make test":
            continue
        printed = masked(run(step.command))
        assert printed == masked(step.shown), step.command
