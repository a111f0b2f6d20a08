"""The README tells the truth about commands, recipes and the tree; `tests/demo/test_demo.py` runs its blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from readme_blocks import README, ROOT, steps


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
    from train.cli import commands as train_commands

    for room, verbs in (("curate", CURATE), ("shards", SHARDS), ("train", train_commands()), ("evaluate", evaluate_commands())):
        for verb in verbs:
            assert f"`{room} {verb}" in README or f"$ {room} {verb}" in README, f"{room} {verb}"


def test_the_tree_names_what_there_is() -> None:
    for name in re.findall(r"^([a-z.]+/)\s", README, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_a_recipe_in_the_readme_is_a_recipe(tmp_path: Path) -> None:
    import yaml

    from curate.config import check
    from curate.recipe import Recipe
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

    verbs = {"curate": curate_cli.COMMANDS, "train": train_cli.commands(), "evaluate": eval_cli.commands()}
    (block,) = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [line[:2] for line in lines] == [["curate", "fetch"], ["curate", "build-shards"], ["train", "clip"], ["evaluate", "zeroshot"]]
    for room, verb, *arguments in lines:
        config = parse(f"{room} {verb}", verbs[room][verb], arguments)
        assert type(config).__name__.endswith("Config")
