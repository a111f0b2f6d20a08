"""Real class folders, evaluated with an untrained tiny model: counts, features and class names against other means."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.cli import main
from eval.data import open_examples
from eval.features import Encoder
from shards.core.errors import UsageError
from tests.train import runs
from train.models.load import load_checkpoint

SETS = {"caltech101": 12, "dtd": 8, "eurosat": 10, "oxford-pets": 37, "pacs": 7, "cifar10/test": 10}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return runs.untrained_clip(tmp_path_factory.mktemp("run"), "tiny-vit-32")


@pytest.mark.parametrize("name", SETS)
def test_class_folders_load_and_encode(name: str, realdata: Path, untrained: str) -> None:
    folder = realdata / "classification" / name
    files = [Path(root) / f for root, _, names in os.walk(folder) for f in names]
    examples = open_examples(str(folder))
    assert len(examples) == len(files)
    assert examples.classes == tuple(sorted({f.parent.name for f in files}))
    for path, label in zip(examples.ids, examples.labels, strict=True):
        assert Path(path).parent.name == examples.classes[label]
    encoded = Encoder(load_checkpoint(untrained), batch_size=32).encode(examples)
    assert encoded.undecodable == ()
    assert np.linalg.norm(encoded.features, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(np.unique(encoded.features.round(6), axis=0)) > 0.9 * len(np.unique(examples.hashes))


def test_features_are_open_clips(realdata: Path, untrained: str) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    loaded = load_checkpoint(untrained)
    cfg = PreprocessCfg(size=loaded.image_size, mean=loaded.mean, std=loaded.std)
    peer = image_transform_v2(cfg, is_train=False)
    folder = realdata / "classification" / "caltech101"
    encoded = Encoder(loaded).encode(open_examples(str(folder)))
    for i in range(0, len(encoded.examples), 7):
        with Image.open(folder / encoded.examples.ids[i]) as image, torch.inference_mode():
            expected = loaded.model.encode_image(peer(image)[None], normalize=True)[0].numpy()
        assert encoded.features[i] == pytest.approx(expected, abs=2e-3)  # pixels differ by 0.2 levels of 255
        assert encoded.features[i] @ expected > 0.9999


def test_a_flat_folder_and_two_splits_are_refused(realdata: Path) -> None:
    with pytest.raises(UsageError, match="fits no kind of labelled set"):
        open_examples(str(realdata / "classification" / "imagenet-sample"))
    with pytest.raises(UsageError, match="holds the splits test, train"):
        open_examples(str(realdata / "classification" / "cifar10"))


def test_published_names_and_templates(realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = realdata / "reference"
    names = json.loads((reference / "en_classnames.json").read_text())["eurosat"]
    templates = json.loads((reference / "en_zeroshot_classification_templates.json").read_text())["eurosat"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "templates.txt").write_text("\n".join(templates))
    flags = ["--data", str(realdata / "classification" / "eurosat"), "--results", str(tmp_path / "r.jsonl"), "--json"]
    flags += ["--classnames", str(tmp_path / "names.txt"), "--templates", str(tmp_path / "templates.txt")]
    assert main(["zeroshot", "--checkpoint", untrained, *flags]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["acc1", "acc5", "mean_per_class", "nll", "ece", "brier"]
    assert rows["acc1"]["n"] == 80
    assert rows["acc1"]["settings"]["n_templates"] == len(templates)
    assert 0 <= rows["acc1"]["low"] <= rows["acc1"]["value"] <= rows["acc5"]["value"] <= 1


def test_a_probe_on_pixels_of_an_untrained_model_beats_chance(
    realdata: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = realdata / "classification" / "cifar10"
    flags = ["--data", str(folder / "test"), "--train", str(folder / "train"), "--results", str(tmp_path / "r.jsonl"), "--json"]
    assert main(["probe", "--checkpoint", untrained, *flags, "--k", "1,10,all", "--seeds", "5"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["metric"] == "acc1"]
    assert [row["k"] for row in rows] == [1, 10, "all"]
    assert len({row["n"] for row in rows}) == 1
    assert rows[1]["low"] > 0.1
