"""Retrieval against brute force; chance; a build, a captions file and tars as its data."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest

from eval.cli import main
from eval.metrics import REPLICATES
from eval.protocols import _pairs
from eval.protocols._pairs import Ranks, chances, ranks, recalls

Images = list[tuple[str, int, bytes]]


def unit(n: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(n, 6))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [2**26, 70])
def test_ranks_are_brute_force(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "_BLOCK", block)  # 70: two images at a time
    counts = [1, 3, 2, 1, 5, 2, 4, 1, 2, 3, 1]
    owners = np.repeat(np.arange(11), counts)
    texts = unit(len(owners), 1)
    images = unit(11, 2) + 0.8 * np.stack([texts[owners == i].mean(axis=0) for i in range(11)])
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    found = ranks(images, texts, owners)
    cosines = images @ texts.T
    for i in range(11):
        best = max(cosines[i, t] for t in range(len(owners)) if owners[t] == i)
        assert found.of_images[i] == sum(cosines[i, t] >= best for t in range(len(owners)) if owners[t] != i)
    for t, owner in enumerate(owners):
        assert found.of_texts[t] == sum(cosines[j, t] >= cosines[owner, t] for j in range(11) if j != owner)


def test_a_model_that_finds_all_alike_gets_no_credit() -> None:
    owners = np.repeat(np.arange(4), 2)
    same = np.ones((8, 3), np.float32) / np.float32(3**0.5)
    found = ranks(same[:4], same, owners)
    assert found.of_images.tolist() == [6] * 4
    assert found.of_texts.tolist() == [3] * 8


def test_recalls_and_their_bootstrap() -> None:
    owners = np.repeat(np.arange(50), [1, 3] * 25)
    rng = np.random.default_rng(0)
    found = Ranks(rng.integers(0, 8, 50), rng.integers(0, 8, 100), owners)
    scores = recalls(found, (1, 5))
    assert scores["image_to_text_recall@1"].value == pytest.approx((found.of_images < 1).mean())
    assert scores["text_to_image_recall@5"].value == pytest.approx((found.of_texts < 5).mean())
    names = [f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)]
    assert scores["mean_recall"].value == pytest.approx(np.mean([scores[name].value for name in names]))
    # A plain bootstrap of other draws gives the same interval but for its noise.
    values = []
    for _ in range(REPLICATES):
        drawn = rng.integers(0, 50, 50)
        texts = np.concatenate([np.flatnonzero(owners == i) for i in drawn])
        values.append((found.of_texts[texts] < 5).mean())
    score = scores["text_to_image_recall@5"]
    assert (score.low, score.high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_chance_is_that_of_random_orders() -> None:
    counts = [1, 2, 5]
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(3), counts)
    hits = np.mean([[(owners[rng.permutation(8)[:2]] == i).any() for i in range(3)] for _ in range(4000)])
    chance = chances(counts, (2, 5))
    assert chance["image_to_text_recall@2"] == pytest.approx(hits, abs=0.02)
    assert chance["image_to_text_recall@2"] == pytest.approx(1 - np.mean([comb(8 - m, 2) / comb(8, 2) for m in counts]))
    assert (chance["text_to_image_recall@2"], chance["text_to_image_recall@5"]) == (pytest.approx(2 / 3), 1.0)


def captions_of(images: Images) -> dict[str, list[str]]:
    return {f"{i}.png": [f"picture {i} of {id}", f"another text {i}"] for i, (id, _, _) in enumerate(images)}


@pytest.fixture
def three_kinds(images: Images, tmp_path: Path) -> list[str]:
    """The same pairs as a folder with captions and as CLIP_benchmark's tars."""
    import webdataset

    folder = tmp_path / "pairs"
    folder.mkdir()
    lines = ["image,caption"]
    with webdataset.TarWriter(str(tmp_path / "pairs.tar")) as writer:
        for (name, texts), (_, _, content) in zip(captions_of(images).items(), images, strict=True):
            (folder / name).write_bytes(content)
            lines += [f"{name},{text}" for text in texts]
            writer.write({"__key__": name.removesuffix(".png"), "png": content, "txt": "\n".join(texts)})
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return [str(folder), str(tmp_path / "pairs.tar")]


def test_retrieval_from_the_command_line(
    three_kinds: list[str], checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for path in three_kinds:
        flags = ["--data", path, "--checkpoint", checkpoint_file, "--results", str(tmp_path / "r.jsonl"), "--json", "--data-name", "pairs"]
        assert main(["retrieval", *flags, "--depths", "1", "3"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert [row["metric"] for row in found[0]] == [f"{w}_recall@{k}" for w in ("image_to_text", "text_to_image") for k in (1, 3)] + [
        "mean_recall"
    ]
    assert (found[0][-1]["main"], found[0][0]["main"], found[0][0]["n"]) == (True, False, 24)
    assert found[0][0]["settings"]["captions"] == 48
    assert 0 < found[0][-1]["settings"]["chance"] < 0.3


def test_a_build_with_captions(images: Images, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli import main as curate

    folder = tmp_path / "pairs"
    folder.mkdir()
    lines = ["image,caption"]
    for i, (_, _, content) in enumerate(images[:6]):
        (folder / f"{i}.png").write_bytes(content)
        lines.append(f"{i}.png,picture {i}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    assert (
        curate(["build-shards", "--source", "folder", "--input", str(folder), "--output", str(tmp_path / "build"), "--samples", "all"]) == 0
    )
    capsys.readouterr()
    flags = ["--checkpoint", checkpoint_file, "--results", str(tmp_path / "r.jsonl"), "--json", "--depths", "1"]
    assert main(["retrieval", "--data", str(tmp_path / "build"), *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (rows[0]["n"], rows[0]["settings"]["captions"]) == (6, 6)


def test_what_retrieval_refuses(class_folders: str, checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--checkpoint", checkpoint_file, "--results", str(tmp_path / "r.jsonl")]
    assert main(["retrieval", "--data", class_folders, *flags]) == 2
    assert "without captions" in capsys.readouterr().err
    assert main(["retrieval", "--data", class_folders, *flags, "--depths", "0"]) == 2
    assert "depths" in capsys.readouterr().err
