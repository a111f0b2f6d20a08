"""Manifests and the files beside them as hands and broken disks leave them: a named error, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards import cli
from shards.core.errors import RunError
from shards.manifest import read_manifest

Change = Callable[[dict[str, Any]], object]


def _edit(folder: str, change: Change) -> None:
    path = Path(folder, "manifest.json")
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _deep(values: dict[str, Any]) -> None:
    inner: dict[str, Any] = {}
    for _ in range(200):
        inner = {"a": inner}
    values["notes"] = inner


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["shards"][0].update(path="a\0.tar"), "shard 0 is named 'a\\x00.tar'"),
        (lambda v: v["shards"][1].update(path=""), "shard 1 is named ''"),
        (lambda v: v["shards"][1].update(path="../"), "shard 1 is named '../'"),
        (lambda v: v["shards"][0].update(path="\ud800.tar"), "shard 0 is named"),
        (lambda v: v["shards"][0].update(path=5), "shards[0].path: found 5"),
        (lambda v: v["shards"][0].update(samples=-1), "samples: -1"),
        (lambda v: v["shards"][0].update(samples=10**30), "samples: found 1000"),
        (lambda v: v["shards"][0].update(samples=True), "found True"),
        (lambda v: v["shards"][0].update(use=[1]), "has use [1]"),
        (lambda v: v["shards"][0].update(use=[-2, 3]), "has use [-2, 3]"),
        (lambda v: v["shards"][0].update(use=[3, 1]), "has use [3, 1]"),
        (lambda v: v["shards"][0].update(use=[0, 9]), "has use [0, 9]"),
        (lambda v: v["shards"][0].update(samples=7), "20 samples"),
        (lambda v: v.update(samples=21), "21 samples"),
        (lambda v: v.update(sources={"x": 5}), "source 'x' holds 5"),
        (lambda v: v.update(sources={"x": {"kept": "many"}}), "source 'x': kept: many"),
        (lambda v: v.update(sources={"x": {"dropped": [1]}}), "source 'x' holds"),
        (lambda v: v.update(sources=[]), "sources: found []"),
        (lambda v: v.update(licences={"x": 1}), "licences of 'x'"),
        (lambda v: v.update(notes={"bad_files": 3}), "bad_files is 3"),
        (_deep, "levels of lists and mappings"),
        (lambda v: v.update(shards={}), "shards: found {}"),
    ],
)
def test_a_manifest_edited_by_hand_is_a_named_error(make_shards, capsys, change, said):
    folder = make_shards(20)
    _edit(folder, change)
    assert cli.main(["inspect", folder]) in (1, 2)
    error = capsys.readouterr().err
    assert "manifest.json" in error or "shards" in error or "sources" in error
    assert said in error


@pytest.mark.parametrize("text", ["[" * 10_000, '{"a":' * 10_000, "9" * 5000, "", "\ufeff", "{", b"\xff\xfe{}"])
def test_a_manifest_that_is_no_json_is_a_named_error(make_shards, capsys, text):
    folder = make_shards(4)
    Path(folder, "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in ("inspect", "verify"):
        assert cli.main([command, folder]) == 1
        assert "manifest.json: not JSON" in capsys.readouterr().err


def test_escape_codes_in_a_manifest_command_no_terminal(make_shards, capsys):
    folder = make_shards(4)
    _edit(folder, lambda v: v["shards"][0].update(path="\x1b[2J.tar"))
    for command in ("inspect", "uids"):
        assert cli.main([command, folder]) == 1
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        assert "␛[2J.tar" in said.err or "␛[2J.parquet" in said.err


@pytest.mark.parametrize("name", ["tombstones.json", "compacted.json"])
@pytest.mark.parametrize("text", ["[" * 10_000, "{", "5", '[{"tar": 1}]', '{"a": 5}', '{"a": [[1]]}'])
def test_what_hides_take_downs_is_never_passed_over(make_shards, name, text):
    folder = make_shards(4)
    Path(folder, name).write_text(text)
    with pytest.raises(RunError, match=name):
        read_manifest(folder)


def test_verify_tells_what_disagrees_where_other_commands_refuse(make_shards, capsys):
    folder = make_shards(20)
    _edit(folder, lambda v: v.update(samples=21))
    assert cli.main(["uids", folder]) == 2
    assert "shards verify tells all" in capsys.readouterr().err
    assert cli.main(["verify", folder, "--engine", "inline"]) == 1
    assert "manifest.json: 21 samples; expected 20" in capsys.readouterr().out


def test_a_torn_sidecar_is_named(make_shards, tmp_path, capsys):
    folder = make_shards(4)
    path = Path(folder, "00000.parquet")
    path.write_bytes(path.read_bytes()[:100])
    assert cli.main(["subset", folder, "--where", "width > 3", "--output", str(tmp_path / "s")]) == 1
    assert "00000.parquet: no whole parquet file" in capsys.readouterr().err
