"""The append-only table: several writers, torn lines, full disks, and how it is shown."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from eval import results
from eval.cli import main
from eval.results import Row
from eval.tables import long_table, pivot
from shards.core.errors import RunError, UsageError

ROW = Row(
    name="a", data="pets", protocol="probe", metric="acc1", main=True, value=0.5, low=0.45, high=0.5512, interval="t over 5 seeds", k=5,
    n=1000, n_undecodable=0, n_classes=37, runs=(0.5,), checkpoint="c" * 64, step=10, samples_seen=100,
    manifests=({"digest": "m" * 64, "weight": None, "samples": 10},), train_config="t" * 64, dataset="d" * 64,
    classes="k" * 64, config="e" * 64,
)  # fmt: skip


def _write(path: str, name: str, times: int) -> None:
    for step in range(times):
        results.append(path, [replace(ROW, name=name, step=step, k=k) for k in range(3)])


def test_two_processes_append_without_mixing_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "results.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, name, 100)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0, 0]
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for name in ("a", "b"):
        assert [(r["step"], r["k"]) for r in rows if r["name"] == name] == [(s, k) for s in range(100) for k in range(3)]
    together = [{r["name"] for r in rows[i : i + 3]} for i in range(0, 600, 3)]
    assert all(len(names) == 1 for names in together)  # one evaluation's rows stand together


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    results.append(path, [replace(ROW, name="größer\n\t")])
    (row,) = results.read(path)
    assert row == json.loads(json.dumps(asdict(replace(ROW, name="größer\n\t"))))


def test_a_torn_last_line_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.jsonl"
    results.append(str(path), [ROW, replace(ROW, k=1)])
    path.write_bytes(path.read_bytes()[:-20])
    assert [r["k"] for r in results.read(str(path))] == [5]
    assert "line 2 is no result" in capsys.readouterr().err
    results.append(str(path), [replace(ROW, k=10)])
    assert [r["k"] for r in results.read(str(path))] == [5, 10]


def test_where_results_cannot_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        results.append(str(tmp_path), [ROW])
    with pytest.raises(UsageError, match="memory://"):
        results.append("memory://r.jsonl", [ROW])
    with pytest.raises(UsageError, match="no results at"):
        results.read(str(tmp_path / "none.jsonl"))
    if Path("/dev/full").exists():
        with pytest.raises(RunError, match="No space left"):
            results.append("/dev/full", [ROW])


ROWS = [
    asdict(replace(ROW, name=name, data=data, k=k, value=value, low=value - 0.05, high=value + 0.05))
    for name, data, k, value in [
        ("a", "pets", 1, 0.2),
        ("a", "pets", 5, 0.5),
        ("b", "pets", 1, 0.25),
        ("b", "pets", 5, 0.6),
        ("a", "dtd", 1, 0.1),
    ]
]


def test_long_table_has_a_line_per_result() -> None:
    lines = long_table(ROWS).splitlines()
    assert len(lines) == 2 + 5
    assert lines[3].split("  ")[0] == "a"
    assert "50.0" in lines[3]
    assert "45.0 – 55.0" in lines[3]


def test_pivot_puts_each_result_in_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    text = pivot([r for r in ROWS if r["data"] == "pets"], ["name"])
    header, _, first, second = text.splitlines()
    assert header.split() == ["name", "k=1", "acc1", "k=5", "acc1"]
    assert re.split("  +", first)[1:] == ["20.0 [15.0, 25.0]", "50.0 [45.0, 55.0]"]
    assert re.split("  +", second)[1:] == ["25.0 [20.0, 30.0]", "60.0 [55.0, 65.0]"]
    assert pivot(ROWS, ["data", "k"]).splitlines()[0].split() == ["data", "k", "a", "acc1", "b", "acc1"]
    assert capsys.readouterr().err == ""
    pivot([*ROWS, {**ROWS[0], "value": 0.9}], ["name", "data"])
    assert "1 earlier results fall into the same cells" in capsys.readouterr().err


def test_the_table_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r.jsonl")
    results.append(path, [Row(**r) for r in ROWS])
    results.append(path, [Row(**{**ROWS[0], "value": 0.3}), replace(ROW, metric="mean_per_class", main=False)])
    assert main(["table", path, "--metric", "main", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [r["value"] for r in shown] == [0.5, 0.25, 0.6, 0.1, 0.3]  # the later of two results of one thing stands
    assert main(["table", path, "--csv"]) == 0
    parsed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(parsed) == 6
    assert (parsed[0]["k"], parsed[0]["manifests"], parsed[0]["value"]) == ("5", "m" * 12, "0.5")
    assert main(["table", path, "--rows", "name,data"]) == 0
    assert capsys.readouterr().out.startswith("name  data")
    assert main(["table", path, "--rows", "nam"]) == 2
    assert "did you mean 'name'?" in capsys.readouterr().err
    assert main(["table", path, "--metric", "acc7"]) == 2
