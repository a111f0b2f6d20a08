"""The README tells the truth about commands, recipes and the tree; `tests/demo/test_demo.py` runs its blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from readme_blocks import README, ROOT, differences, scripts, steps


def test_every_fenced_block_is_of_a_kind_that_is_run() -> None:
    kinds = re.findall(r"^```(\w*)\n", README, re.MULTILINE)
    assert set(kinds) - {""} <= {"console", "yaml", "sh"}
    assert {s.command for s in steps()} >= {"make demo", "make test"}


def test_the_first_screen_shows_what_it_is_and_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:48])
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
    _, block = scripts()
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [line[:2] for line in lines] == [["curate", "fetch"], ["curate", "build-shards"], ["train", "clip"], ["evaluate", "zeroshot"]]
    for room, verb, *arguments in lines:
        config = parse(f"{room} {verb}", verbs[room][verb], arguments)
        assert type(config).__name__.endswith("Config")


def test_the_headline_figures_are_the_benchmarks() -> None:
    row = next(line for line in (ROOT / "benchmarks/RESULTS.md").read_text().splitlines() if line.startswith("| curation |"))
    table = README[README.index("| trained on | zero-shot") :].split("\n\n")[0]
    figures = re.findall(r"\d+\.\d", table)
    assert len(figures) == 10
    assert set(figures) <= set(re.findall(r"\d+\.\d", row))


def test_what_differs_from_the_readme_is_said() -> None:
    shown = "curated  2,000 samples  44075888c16ce26a  zero-shot 52.3 (48.5 – 56.2)\n----  ---\nfine"
    assert differences(shown, shown.replace("52.3", "53.4").replace("----  ---", "------  ---")) == []
    assert differences(shown, shown.replace("52.3", "59.4")) == [
        "59.4 in 'curated N samples 44075888c16ce26a zero-shot N (N – N)', the README has 52.3"
    ]
    assert "2,001 in " in differences(shown, shown.replace("2,000", "2,001"))[0]
    assert "44075888c16ce26b" in differences(shown, shown.replace("ce26a", "ce26b"))[0]
    assert differences(shown, "fine") == ["1 lines, the README has 2"]
