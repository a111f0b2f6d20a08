"""The examples that end `--help`: each is read by the command's own parser, so that none can go stale."""

from __future__ import annotations

import shlex

import pytest

import curate.cli
import eval.cli
import shards.cli
import train.cli
from shards.core import cli
from shards.core.cli import Command
from shards.core.errors import UsageError

ROOMS = {
    "curate": curate.cli.COMMANDS,
    "shards": shards.cli.COMMANDS,
    "train": train.cli.commands(),
    "evaluate": eval.cli.commands(),
}
EXAMPLES = [(prog, name, line) for prog, commands in ROOMS.items() for name, command in commands.items() for line in command.examples]
MAIN = {
    "curate": ("fetch", "build-shards", "report", "compare", "card", "layer"),
    "shards": ("inspect", "verify", "subset", "remove"),
    "train": ("clip", "simclr", "check", "export"),
    "evaluate": ("zeroshot", "probe", "table"),
}


@pytest.mark.parametrize(("prog", "name", "line"), EXAMPLES)
def test_every_example_is_read_by_the_real_parser(prog: str, name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.plugins.use", lambda file: None)  # the file of an example's plug-in is nobody's
    words = shlex.split(line)
    assert words[:2] == [prog, name]
    assert cli.parse(f"{prog} {name}", ROOMS[prog][name], words[2:]) is not None


@pytest.mark.parametrize(("prog", "name"), [(prog, name) for prog, names in MAIN.items() for name in names])
def test_main_verbs_have_two_or_three_examples_at_the_end_of_their_help(
    prog: str, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    command = ROOMS[prog][name]
    assert len(command.examples) in (2, 3)
    assert cli.main(prog, "", ROOMS[prog], [name, "--help"]) == 0
    assert capsys.readouterr().out.endswith("examples:\n" + "".join(f"  {line}\n" for line in command.examples))


def test_an_example_with_a_flag_that_is_gone_fails() -> None:
    """The test above can fail."""
    command = Command("shards.inspect:InspectConfig", "", "", examples=("shards inspect out --nothing",))
    with pytest.raises(UsageError, match="--nothing"):
        cli.parse("shards inspect", command, shlex.split(command.examples[0])[2:])
