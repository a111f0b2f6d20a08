"""All protocols on real sets, with a small tower trained on nothing, against chance, raw pixels and plain loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval import predictions
from eval.cli import main
from eval.data import open_examples
from eval.features import Encoder, shaped
from eval.protocols._pairs import Captioned, captioned
from shards.upright import open_image, upright_rgb
from tests.train import runs
from train.models.load import load_checkpoint


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return runs.untrained_clip(tmp_path_factory.mktemp("run"), "tiny-vit-32")


def rows_of(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[tuple[Any, str], dict[str, Any]]:
    assert main([*flags, "--json"]) == 0
    return {(row["k"], row["metric"]): row for row in json.loads(capsys.readouterr().out)}


def test_the_decoder_is_within_half_a_level_of_open_clips(realdata: Path) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    for side in (32, 224):
        peer = image_transform_v2(PreprocessCfg(size=side, mean=(0.0,) * 3, std=(1.0,) * 3), is_train=False)
        differences = []
        for path in sorted((realdata / "pairs").rglob("*.jpg"))[::7]:
            image = upright_rgb(open_image(path.read_bytes()))  # open_clip passes over colour profiles, which change two photos by 3 and 11
            expected = np.round(peer(image).numpy() * 255).transpose(1, 2, 0)
            differences.append(np.abs(shaped(path.read_bytes(), side) - expected).mean())
        assert len(differences) > 20
        assert max(differences) < 0.5
        assert np.mean(differences) < 0.25


def test_protocols_on_cifar_beat_chance_and_are_held_against_pixels(
    realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = realdata / "classification" / "cifar10"
    common = ["--data", str(folder / "test"), "--train", str(folder / "train"), "--results", str(tmp_path / "r.jsonl")]
    model, pixels = ["--checkpoint", untrained, "--cache", str(tmp_path / "cache")], ["--features", "pixels"]
    for source in (model, pixels):
        knn = rows_of(capsys, "knn", *common, *source)
        probe = rows_of(capsys, "probe", *common, *source, "--k", "10,all")
        linear = rows_of(capsys, "linear", *common, *source, "--k", "1,10", "--seeds", "3")
        for row in (knn["all", "acc1"], probe[10, "acc1"], probe["all", "acc1"], linear[10, "acc1"]):
            assert row["low"] > row["settings"]["chance"] == 0.1
        assert linear[1, "acc1"]["value"] < linear[10, "acc1"]["value"] + 0.02
        assert linear[10, "nll"]["value"] < 4
        kept = [predictions.read(str(tmp_path / "r.jsonl"), digest) for digest in linear[10, "acc1"]["predictions"]]
        assert [part.correct().mean() for part in kept] == linear[10, "acc1"]["runs"]


def test_small_classes_of_real_sets(realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = realdata / "classification" / "oxford-pets"  # 37 classes of 2 images: one trains, one tests
    counts = np.bincount(open_examples(str(folder)).labels)
    common = ["--data", str(folder), "--results", str(tmp_path / "r.jsonl"), "--checkpoint", untrained, "--cache", str(tmp_path / "cache")]
    assert counts.max() == 2
    assert main(["probe", *common, "--k", "2"]) == 2
    capsys.readouterr()
    rows = rows_of(capsys, "probe", *common, "--k", "1,2", "--small-classes", "take-all")
    assert rows[2, "acc1"]["settings"]["n_small_classes"] == 37
    assert rows[2, "acc1"]["value"] == rows[1, "acc1"]["value"]
    assert "the same images" in rows[1, "acc1"]["interval"]


def test_episodes_and_layers_of_eurosat(realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data", str(realdata / "classification" / "eurosat"), "--results", str(tmp_path / "r.jsonl"), "--checkpoint", untrained]
    episodes = rows_of(capsys, "episodes", *common, "--k", "1,4", "--queries", "4", "--episodes", "150")
    assert episodes[1, "acc1"]["low"] > 0.2
    assert episodes[4, "acc1"]["value"] > episodes[1, "acc1"]["value"]
    layers = rows_of(capsys, "layers", *common, "--tokens", "1", "4")
    assert layers["all", "acc1"]["low"] > 0.1
    assert 0 < layers["all", "saturation"]["value"] <= 1


def test_retrieval_on_flickr8k_is_that_of_a_plain_loop(
    realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.datasets.paired import open_paired

    path = str(realdata / "pairs" / "flickr8k")
    rows = rows_of(capsys, "retrieval", "--data", path, "--results", str(tmp_path / "r.jsonl"), "--checkpoint", untrained, "--limit", "60")
    examples = captioned(open_paired(path)).limit(60)
    assert isinstance(examples, Captioned)
    loaded = load_checkpoint(untrained)
    images = Encoder(loaded).encode(examples).features
    with torch.inference_mode():
        texts = np.stack([loaded.embed_texts([text])[0].numpy() for several in examples.captions for text in several])
    owners = np.repeat(np.arange(60), [len(several) for several in examples.captions])
    cosines = images @ texts.T
    found = [owners[np.argsort(-row, kind="stable")[:5]] for row in cosines]
    recall = np.mean([i in first for i, first in enumerate(found)])
    assert rows[None, "image_to_text_recall@5"]["value"] == pytest.approx(recall, abs=0.02)  # rounding may turn a near tie
    back = np.mean([owner in np.argsort(-column, kind="stable")[:5] for owner, column in zip(owners, cosines.T, strict=True)])
    assert rows[None, "text_to_image_recall@5"]["value"] == pytest.approx(back, abs=0.01)
    mean = rows[None, "mean_recall"]
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert mean["low"] < 2 * mean["settings"]["chance"]  # a model trained on nothing is at chance
