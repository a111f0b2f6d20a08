"""What a take-down does to the sets beside a build: subsets stay provable, and copies in tars of their own are named."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards import cli
from shards.core.console import counted, inflected
from shards.manifest import read_manifest
from shards.uids import uids_of


@pytest.fixture
def build(make_shards: Callable[..., str]) -> str:
    """A build of 20 samples in shards of 8."""
    return make_shards(20)


def _uids(folder: str | Path) -> list[str]:
    return list(uids_of(read_manifest(str(folder))))


def _sizes(folder: Path) -> dict[str, int]:
    return dict(json.loads((folder / "sizes.json").read_text()))


def test_a_subset_is_proved_before_and_after_its_parent_is_compacted(
    build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near, far = tmp_path / "half", tmp_path / "deep" / "er" / "half"
    for folder in (near, far):
        assert cli.main(["subset", build, "--fraction", "0.5", "--output", str(folder)]) == 0
    gone = _uids(build)[2]
    for command in (["remove", build, gone], ["compact", build]):
        assert cli.main(command) == 0
        for folder in (near, far):
            capsys.readouterr()
            assert cli.main(["verify", str(folder), "--engine", "inline"]) == 0, capsys.readouterr()
        printed = capsys.readouterr()
        assert f"1 sample that sizes.json counts was taken down since: {far}/sizes.json" in printed.err
        assert sum(_sizes(near).values()) == read_manifest(str(near)).samples == 9
    (near / "sizes.json").write_text('{"00000.tar": 4}')
    assert cli.main(["verify", str(near), "--engine", "inline"]) == 1
    assert "1 problem: 9 samples in 2 shards" in capsys.readouterr().out


def test_copies_in_tars_of_other_sets_are_named_with_the_command_that_removes_them(
    build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied, view, other = tmp_path / "copied", tmp_path / "view", tmp_path / "other"
    assert cli.main(["subset", build, "--samples", "6", "--materialize", "--output", str(copied), "--engine", "inline"]) == 0
    assert cli.main(["subset", build, "--samples", "6", "--output", str(view)]) == 0
    assert cli.main(["subset", build, "--window", "16:20", "--materialize", "--output", str(other), "--engine", "inline"]) == 0
    gone = _uids(build)[3]
    for flags in (["--dry-run"], []):
        capsys.readouterr()
        assert cli.main(["remove", build, gone, *flags]) == 0
        printed = capsys.readouterr().err
        assert f"{copied}: tars of its own hold 1 of these samples" in printed
        assert str(view) not in printed
        assert str(other) not in printed
    command = shlex.split(re.search("`(shards remove .*copied.*)`", printed)[1])  # type: ignore[index]
    assert command == ["shards", "remove", str(copied), gone]
    assert cli.main(command[1:]) == 0
    assert gone not in _uids(copied)
    capsys.readouterr()
    assert cli.main(["remove", build, gone, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copies"] == {}


def test_many_copies_are_named_by_the_list_that_named_them(build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied, listed = tmp_path / "copied", tmp_path / "a list.txt"
    assert cli.main(["subset", build, "--samples", "6", "--materialize", "--output", str(copied), "--engine", "inline"]) == 0
    listed.write_text("\n".join(_uids(build)[:5]))
    assert cli.main(["remove", build, "--uids", str(listed)]) == 0
    assert (
        f"hold 5 of these samples, which this take-down does not reach: `shards remove {copied} --uids '{listed}'`"
        in capsys.readouterr().err
    )


def test_verify_says_how_many_removed_samples_have_their_bytes_there(build: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["remove", build, *_uids(build)[:2]]) == 0
    capsys.readouterr()
    assert cli.main(["verify", build, "--engine", "inline"]) == 0
    printed = capsys.readouterr().out
    assert "fine: 18 samples in 3 shards" in printed
    assert f"2 more samples of these tars were taken down, and the bytes are there until `shards compact {build}`" in printed
    assert cli.main(["compact", build]) == 0
    capsys.readouterr()
    assert cli.main(["verify", build, "--engine", "inline"]) == 0
    assert "taken down" not in capsys.readouterr().out


@pytest.mark.parametrize(("flag", "column"), [("--uids", "source_id"), ("--source-ids", "source_id"), ("--urls", "url")])
def test_an_unknown_name_in_a_list_is_told_and_the_rest_goes(
    flag: str, column: str, build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [name for path in sorted(Path(build).glob("*.parquet")) for name in pq.read_table(path)[column].to_pylist()][:2]
    (tmp_path / "names.txt").write_text("\n".join([*known, "https://nobody.example/x"]) + "\n")
    kind = {"--uids": "name", "--source-ids": "source id", "--urls": "URL"}[flag]
    capsys.readouterr()
    assert cli.main(["remove", build, flag, str(tmp_path / "names.txt")]) == 0
    printed = capsys.readouterr()
    assert "2 samples taken down" in printed.out
    assert f"1 of the 3 {kind}s is of no sample: such as 'https://nobody.example/x'" in printed.err
    assert cli.main(["remove", build, flag, str(tmp_path / "names.txt"), "--strict"]) == 1


def test_a_list_without_any_known_name_is_refused(build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("nobody\nnowhere\n")
    for command in (["remove", build], ["subset", build, "--output", str(tmp_path / "s")]):
        assert cli.main([*command, "--uids", str(tmp_path / "names.txt")]) == 2
        assert "nobody" in capsys.readouterr().err


def test_counts_and_nouns_agree() -> None:
    assert [counted(n, "shard") for n in (0, 1, 2_000)] == ["0 shards", "1 shard", "2,000 shards"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [inflected(n, "[URL|URLs] of [|the] a[1]") for n in (1, 2)] == ["URL of  a[1]", "URLs of the a[1]"]
