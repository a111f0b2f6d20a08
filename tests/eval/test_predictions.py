"""Predictions by image: what is written is read again, bit for bit where it counts, and sets are matched by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import metrics, predictions
from eval.datasets.base import Examples
from eval.predictions import Predictions, aligned, folder_of, from_scores, read, write
from shards.core.errors import RunError, TornFileError, UsageError


def examples(n: int = 40, classes: int = 5) -> Examples:
    labels = np.arange(n) % classes
    names = tuple(f"class {c}" for c in range(classes))
    return Examples("toy", names, tuple(f"i{i}" for i in range(n)), labels, lambda i: b"picture %d" % i)


def kept(scale: float = 100.0) -> tuple[Examples, np.ndarray, Predictions]:
    toy = examples()
    scores = (np.random.default_rng(0).normal(size=(40, 5)) * scale).astype(np.float32)
    return toy, scores, from_scores(toy, scores, {"checkpoint": "c", "k": 5})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    toy, scores, answers = kept()
    table = str(tmp_path / "results.jsonl")
    digest = write(table, answers)
    again = read(table, digest)
    assert again.digest == digest == write(table, again)
    assert again.meta == {"checkpoint": "c", "k": 5}
    assert len(list(Path(folder_of(table)).iterdir())) == 1
    assert [uid.decode() for uid in again.uids.tolist()] == [h.decode()[:32] for h in toy.hashes.tolist()]
    assert (again.labels == toy.labels).all()
    softmax = np.exp(scores.astype(np.float64))
    softmax /= softmax.sum(axis=1, keepdims=True)
    kept_softmax = np.exp(again.logits.astype(np.float64))
    kept_softmax /= kept_softmax.sum(axis=1, keepdims=True)
    assert np.abs(softmax - kept_softmax).max() < 1e-3


def test_accuracies_from_a_file_are_those_of_the_scores(tmp_path: Path) -> None:
    """Scores that float16 cannot tell apart: the ranks are kept unrounded."""
    toy = examples()
    scores = np.full((40, 5), 50.0)
    scores[np.arange(40), (toy.labels + np.arange(40) % 2) % 5] += 1e-9
    answers = from_scores(toy, scores, {})
    again = read(str(tmp_path / "r.jsonl"), write(str(tmp_path / "r.jsonl"), answers))
    assert (again.ranks == metrics.ranks(scores, toy.labels)).all()
    assert again.correct().mean() == 0.5


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    _, _, answers = kept()
    table = str(tmp_path / "r.jsonl")
    digest = write(table, answers)
    path = next(Path(folder_of(table)).iterdir())
    other = replace(answers, labels=answers.labels[::-1].copy())
    path.rename(path.with_name("aside"))
    second = write(table, other)
    Path(folder_of(table), f"{second[:32]}.parquet").rename(path)
    with pytest.raises(TornFileError, match="another digest"):
        read(table, digest)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TornFileError, match="no predictions"):
        read(table, digest)
    with pytest.raises(UsageError, match="no predictions"):
        read(table, "0" * 64)


def test_scores_must_be_finite() -> None:
    toy, scores, _ = kept()
    scores[3, 2] = np.nan
    with pytest.raises(RunError, match="no finite numbers"):
        from_scores(toy, scores, {})
    assert from_scores(toy, np.where(np.isnan(scores), -1e9, scores), {}).logits.min() == predictions._LOWEST


def test_sets_in_another_order_are_aligned_by_content() -> None:
    _, _, answers = kept()
    order = np.random.default_rng(1).permutation(40)[:30]
    other = predictions._taken(answers, order)
    first, second = aligned([answers, other])
    assert len(first) == 30
    assert (first.uids == second.uids).all()
    assert (first.logits == second.logits).all()
    doubled = predictions._taken(answers, np.array([0, 0, 1]))
    assert len(aligned([doubled, doubled])[0]) == 3
    with pytest.raises(UsageError, match="common image"):
        aligned([predictions._taken(answers, np.array([0])), predictions._taken(answers, np.array([1]))])
    with pytest.raises(UsageError, match="classes"):
        aligned([answers, replace(answers, logits=answers.logits[:, :4])])
