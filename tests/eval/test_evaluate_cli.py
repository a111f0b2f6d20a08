"""`evaluate` from end to end, on a real checkpoint of an untrained model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eval.cli import main
from shards.core import fs


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return json.loads(capsys.readouterr().out)


def test_zeroshot_appends_what_it_prints(
    checkpoint_file: str, class_folders: str, foreign_tars: str, saved_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "results.jsonl")
    common = ["zeroshot", "--checkpoint", checkpoint_file, "--results", table, "--json", "--device", "cpu"]
    printed = []
    for path in (class_folders, foreign_tars, saved_dataset):
        assert main([*common, "--data", path, "--data-name", "squares"]) == 0
        printed.append(rows_of(capsys))
    assert printed[0] == printed[1] == printed[2]
    assert [json.loads(line) for line in Path(table).read_text().splitlines()] == [r for rows in printed for r in rows]
    acc1, per_class = printed[0][:2]
    assert (acc1["metric"], per_class["metric"], acc1["name"], acc1["data"]) == ("acc1", "mean_per_class", "untrained", "squares")
    assert acc1["checkpoint"] == fs.sha256(checkpoint_file)
    assert (acc1["n"], acc1["n_classes"], acc1["n_undecodable"], acc1["step"], acc1["samples_seen"]) == (24, 3, 0, 7, 70)
    assert acc1["manifests"] == [{"digest": "d" * 64, "weight": None, "samples": 10}]
    assert acc1["low"] < acc1["value"] < acc1["high"]
    assert str(tmp_path) not in Path(table).read_text()
    assert main(["table", table]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 5


def test_zeroshot_depends_on_names_and_templates(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, templates = tmp_path / "names.txt", tmp_path / "templates.txt"
    names.write_text("azure\nemerald\nruby\n")
    templates.write_text("a {c}\nthe {c}\n")
    common = ["zeroshot", "--checkpoint", checkpoint_file, "--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--json"]
    found = []
    for more in ([], ["--classnames", str(names)], ["--templates", str(templates)], ["--limit", "10"]):
        assert main([*common, *more]) == 0
        found.append(rows_of(capsys)[0])
    assert len({r["config"] for r in found}) == 3  # names are told apart by the digest of the classes
    assert found[1]["classes"] != found[0]["classes"]
    assert found[0]["dataset"] == found[1]["dataset"] == found[2]["dataset"] != found[3]["dataset"]
    assert found[2]["settings"]["n_templates"] == 2
    assert found[3]["n"] == 10


def test_probe_prints_a_row_per_k_and_metric(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["probe", "--checkpoint", str(Path(checkpoint_file).parent), "--data", class_folders, "--results", str(tmp_path / "r.jsonl")]
    assert main([*common, "--k", "1,4", "--seeds", "3", "--name", "mine", "--cache", str(tmp_path / "cache"), "--json"]) == 0
    rows = rows_of(capsys)
    assert [(r["name"], r["k"], r["metric"], r["n"], len(r["runs"])) for r in rows] == [
        ("mine", k, metric, 12, 3) for k in (1, 4) for metric in ("acc1", "mean_per_class")
    ]
    assert main([*common, "--k", "5", "--cache", str(tmp_path / "cache")]) == 2
    assert "class 'blue_square' has 4 training images" in capsys.readouterr().err
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 4


def test_undecodable_images_are_in_the_row(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(class_folders, tmp_path / "toy")
    (tmp_path / "toy" / "red_square" / "0.png").write_bytes(b"nothing")
    flags = ["--data", str(tmp_path / "toy"), "--results", str(tmp_path / "r.jsonl"), "--json"]
    assert main(["zeroshot", "--checkpoint", checkpoint_file, *flags]) == 0
    row = rows_of(capsys)[0]
    assert (row["n"], row["n_undecodable"]) == (23, 1)
    assert row["undecodable"][0][0] == "red_square/0.png"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "nowhere.pt"], "no checkpoint at 'nowhere.pt'"),
        (["--data", "nowhere"], "no data at 'nowhere'"),
        (["--limit", "-1"], "--limit -1"),
        (["--device", "abacus"], "--device abacus"),
        (["--templates", "nowhere.txt"], "no file at 'nowhere.txt'"),
    ],
)
def test_what_cannot_be_done_leaves_no_result(
    flags: list[str], message: str, checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--checkpoint": checkpoint_file, "--data": class_folders, "--results": str(tmp_path / "r.jsonl"), **dict([flags])}
    assert main(["zeroshot", *(word for pair in given.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()


def test_the_list_names_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    rows = rows_of(capsys)
    assert {r["name"] for r in rows} >= {"zeroshot", "probe", "folder", "webdataset", "huggingface"}
    assert all(str(r["summary"]).endswith(".") for r in rows)


@pytest.mark.parametrize("arguments", ["['--help']", "['probe', '--help']", "['table', '--help']", "['list']"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    heavy = "{'numpy', 'torch', 'PIL', 'datasets', 'pyarrow', 'sklearn', 'scipy', 'open_clip'}"
    code = f"import sys; from eval.cli import main; main({arguments}); sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
