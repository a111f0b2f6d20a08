"""`evaluate ensemble`: members by checkpoint, metrics by number of members, diversity, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval import metrics, predictions, results
from eval.cli import main
from eval.datasets.base import Examples
from eval.ensembles import softmax
from eval.results import Row

N, CLASSES = 40, 4
LABELS = np.arange(N) % CLASSES
HASHES = np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in range(N)], dtype="S64")
EXAMPLES = Examples("pets", ("a", "b", "c", "d"), tuple(map(str, range(N))), LABELS, lambda i: b"", known_hashes=HASHES)


def logits_of(seed: int) -> np.ndarray:
    return (np.eye(CLASSES)[LABELS] * 1.2 + np.random.default_rng(seed).normal(size=(N, CLASSES))).astype(np.float16).astype(np.float32)


def add(table: str, checkpoint: str, seeds: list[int], *, softmaxed: bool = True, order: np.ndarray | None = None, **fields: Any) -> None:
    """Append the rows of one evaluation, with its answers, one draw for each seed."""
    digests = []
    for seed in seeds:
        examples, logits = EXAMPLES, logits_of(seed)
        if order is not None:
            examples, logits = EXAMPLES.take(order), logits[order]
        meta = {"checkpoint": checkpoint, "seed": seed, "protocol": "ft"}
        digests.append(predictions.write(table, predictions.from_scores(examples, logits, meta)))
    scored = metrics.classification(logits_of(seeds[0]), LABELS, probabilistic=softmaxed)
    row = Row(
        name=f"model-{checkpoint}", data="pets", protocol="ft", metric="acc1", main=True, value=0.5, low=None, high=None, interval="",
        k=5, n=N, n_undecodable=0, n_classes=CLASSES, runs=(), checkpoint=checkpoint, step=1, samples_seen=1,
        manifests=({"digest": f"m-{checkpoint}"},), train_config="t", dataset="d", classes="c", config=str(seeds),
        settings={"lr": 1e-3, "number": seeds[0]}, predictions=tuple(digests), labels={"source": checkpoint, "objective": "clip"},
    )  # fmt: skip
    results.append(table, [replace(row, metric=metric, main=metric == "acc1", value=s.value, **fields) for metric, s in scored.items()])


def ensemble(capsys: pytest.CaptureFixture[str], table: str, *flags: str) -> list[dict[str, Any]]:
    assert main(["ensemble", table, *flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two checkpoints, three fine-tunings each."""
    path = str(tmp_path / "r.jsonl")
    rng = np.random.default_rng(0)
    for at, checkpoint in enumerate("xy"):
        for number in range(3):
            add(path, checkpoint, [10 * at + number], order=rng.permutation(N))
    return path


def test_local_ensembles_are_those_of_one_checkpoint(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ensemble(capsys, table)
    for at, checkpoint in enumerate("xy"):
        members = [logits_of(10 * at + number) for number in range(3)]
        own = [row for row in rows if row["checkpoint"] == checkpoint]
        assert {row["settings"]["kind"] for row in own} == {"local"}
        for size in (1, 2, 3):
            expected = softmax.scores(members, LABELS, size)
            measured = {row["metric"]: row for row in own if row["settings"]["members"] == size and row["metric"] in expected}
            assert measured.keys() == expected.keys()
            for metric, score in expected.items():
                assert measured[metric]["value"] == pytest.approx(score.value, abs=1e-4), (size, metric)
        assert own[0]["settings"]["subsets"] == 3
        assert own[0]["name"] == f"model-{checkpoint}"
        assert own[0]["labels"] == {"source": checkpoint, "objective": "clip"}
    assert results.read(table)[-1]["metric"] == rows[-1]["metric"] == "kappa"


def test_a_global_ensemble_takes_one_member_of_each_checkpoint(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ensemble(capsys, table, "--kind", "global")
    assert {row["settings"]["group"] for row in rows} == {1, 2, 3}
    for number in range(3):
        expected = softmax.scores([logits_of(number), logits_of(10 + number)], LABELS, 2)
        row = next(r for r in rows if r["settings"]["group"] == number + 1 and r["settings"]["members"] == 2 and r["metric"] == "acc1")
        assert row["value"] == expected["acc1"].value
        assert (row["checkpoint"], row["name"]) == ("", "model*")
        assert row["labels"] == {"objective": "clip"}
        assert [manifest["digest"] for manifest in row["manifests"]] == ["m-x", "m-y"]
    assert {row["settings"]["of"] for row in ensemble(capsys, table, "--kind", "all")} == {6}


def test_an_ensembles_own_answers_are_kept(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ensemble(capsys, table, "--kind", "all")
    whole = next(row for row in rows if row["settings"]["members"] == 6 and row["metric"] == "nll")
    kept = predictions.read(table, whole["predictions"][0])
    assert metrics.nll(kept.logits, kept.labels).value == pytest.approx(whole["value"], abs=1e-3)
    assert len(kept.meta["members"]) == 6
    again = ensemble(capsys, table, "--kind", "all")  # ensembles are no members of ensembles
    assert [row["value"] for row in again] == [row["value"] for row in rows]
    capsys.readouterr()
    assert main(["table", table, "--protocol", "ensemble", "--metric", "acc1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6  # one line for each size: the second run repeats the first


def test_draws_stay_apart_or_are_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tmp_path / "r.jsonl")
    for seeds in ([0, 1], [2, 3]):
        add(table, "x", seeds)
    rows = ensemble(capsys, table)
    whole = next(row for row in rows if row["settings"]["members"] == 2 and row["metric"] == "acc1")
    expected = [softmax.scores([logits_of(a), logits_of(b)], LABELS, 2)["acc1"].value for a, b in ((0, 2), (1, 3))]
    assert whole["runs"] == expected
    assert len(whole["predictions"]) == 2
    rows = ensemble(capsys, table, "--draws", "members")
    assert max(row["settings"]["members"] for row in rows) == 4
    add(table, "x", [7])
    assert main(["ensemble", table]) == 2
    assert "members with 1, 2 draws of the shots" in capsys.readouterr().err


def test_what_cannot_be_a_member_is_told(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(table, "x", [50], softmaxed=False)
    add(table, "x", [51], predictions=())
    assert main(["ensemble", table, "--json"]) == 0
    printed = capsys.readouterr()
    assert max(row["settings"]["members"] for row in json.loads(printed.out)) == 3
    assert "1 evaluation has scores that are no logits of a softmax" in printed.err
    assert "1 evaluation keeps no answers by image" in printed.err
    assert main(["ensemble", table, "--where", "number=0"]) == 2
    assert "no local ensemble of two members or more" in capsys.readouterr().err
    assert main(["ensemble", table, "--data", "x"]) == 2
    assert "one without the other" in capsys.readouterr().err


def test_images_that_some_members_lack_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tmp_path / "r.jsonl")
    add(table, "x", [0])
    add(table, "x", [1], order=np.arange(30)[::-1])
    assert main(["ensemble", table, "--json"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    assert {row["n"] for row in rows} == {30}
    assert rows[0]["settings"]["images_skipped"] == 10
    assert "10 images are not answered by all members" in printed.err
    expected = softmax.scores([logits_of(0)[:30], logits_of(1)[:30]], LABELS[:30], 2)
    whole = next(row for row in rows if row["settings"]["members"] == 2 and row["metric"] == "brier")
    assert whole["value"] == pytest.approx(expected["brier"].value, abs=1e-5)


def test_rounding_does_not_change_an_accuracy() -> None:
    """Two scores that float16 makes equal: the rank comes from the unrounded ones, and the ensemble of one member keeps it."""
    from eval.ensembles.members import _settled

    scores = np.zeros((2, CLASSES)) - 5
    scores[0, :2] = [1.0 - 1e-9, 1.0]  # class 0 is true and second
    scores[1, :2] = [1.0 - 1e-9, 1.0]  # class 1 is true and first
    kept = predictions.from_scores(EXAMPLES.take([0, 1]), scores, {})
    rounded = replace(kept, logits=kept.logits.astype(np.float16).astype(np.float32))
    assert list(metrics.ranks(rounded.logits, rounded.labels)) == [0, 1]
    assert list(metrics.ranks(_settled(rounded).logits, rounded.labels) == 0) == [False, True] == list(kept.correct())


def test_features_of_checkpoints_are_compared(
    table: str, checkpoint_file: str, class_folders: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoints", checkpoint_file, checkpoint_file, "--data", class_folders, "--device", "cpu"]
    row = ensemble(capsys, table, *flags)[-1]
    assert (row["metric"], row["n"], row["data"]) == ("cka", 24, "squares")
    assert row["value"] == pytest.approx(1)
