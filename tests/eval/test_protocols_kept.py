"""What every protocol shares: predictions and labels in rows, raw pixels, models of other tools, several sets, packed sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from eval import predictions
from eval.cli import main
from eval.data import open_examples
from eval.features import Encoder
from eval.pixels import Pixels
from shards.core.errors import UsageError
from train.models import elsewhere, tags
from train.models.load import build_model


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, object]]:
    assert main([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_predictions_give_the_tables_numbers(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "r.jsonl")
    common = ["--checkpoint", checkpoint_file, "--data", class_folders, "--results", table, "--label", "source=redcaps", "size=1000"]
    zero = run(capsys, "zeroshot", *common)
    probe = run(capsys, "probe", *common, "--k", "2", "--seeds", "3")
    assert all(row["labels"] == {"source": "redcaps", "size": 1000} for row in zero + probe)
    assert len({tuple(row["predictions"]) for row in zero}) == 1
    kept = predictions.read(table, zero[0]["predictions"][0])
    assert kept.correct().mean() == zero[0]["value"]
    chances = np.exp(kept.logits) / np.exp(kept.logits).sum(axis=1, keepdims=True)
    nll = next(row["value"] for row in zero if row["metric"] == "nll")
    assert -np.log(chances[np.arange(24), kept.labels]).mean() == pytest.approx(nll, abs=1e-3)
    assert kept.meta["checkpoint"] == zero[0]["checkpoint"]
    assert [predictions.read(table, digest).correct().mean() for digest in probe[0]["predictions"]] == probe[0]["runs"]
    assert [predictions.read(table, digest).meta["seed"] for digest in probe[0]["predictions"]] == [0, 1, 2]


def test_labels_are_numbers_only_where_they_are_written_as_one(
    checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "r.jsonl")
    labels = {"draw": "01", "size": "1000", "noise": "0.25", "source": "nan", "tag": "1_000", "lr": "1e-3", "shift": "-3"}
    words = [f"{name}={value}" for name, value in labels.items()]
    common = ["--checkpoint", checkpoint_file, "--data", class_folders, "--results", table]
    rows = run(capsys, "zeroshot", *common, "--label", *words)
    numbers = {"size": 1000, "noise": 0.25, "lr": 0.001, "shift": -3}
    assert rows[0]["labels"] == {**labels, **numbers}


def test_predictions_are_all_or_none(
    checkpoint_file: str,
    class_folders: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictions, "MOST_AUTO", 100)  # 12 images × 3 classes × 2 bytes are 72, a second draw is too many
    common = ["probe", "--checkpoint", checkpoint_file, "--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--k", "2"]
    assert run(capsys, *common, "--seeds", "1")[0]["predictions"] != []
    for path in (tmp_path / "r.predictions").iterdir():
        path.unlink()
    assert main([*common, "--seeds", "2", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["predictions"] == []
    assert "1 evaluation without predictions by image: 144 bytes of logits, more than 100" in printed.err
    assert list((tmp_path / "r.predictions").iterdir()) == []
    assert len(run(capsys, *common, "--seeds", "2", "--predictions", "all")[0]["predictions"]) == 2
    assert run(capsys, *common, "--seeds", "1", "--predictions", "none")[0]["predictions"] == []


@pytest.mark.parametrize("protocol", ["probe", "knn", "linear"])
def test_raw_pixels_need_no_model(protocol: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(capsys, protocol, "--features", "pixels", "--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--k", "4")
    assert (rows[0]["name"], rows[0]["manifests"], rows[0]["metric"]) == ("pixels", [], "acc1")
    assert rows[0]["value"] > 0.9  # the classes differ in their mean colour
    flags = ["--features", "pixels", "--data", class_folders, "--checkpoint", "x", "--results", str(tmp_path / "r.jsonl")]
    assert main([protocol, *flags]) == 2
    assert "either raw pixels or a model" in capsys.readouterr().err
    assert main([protocol, "--data", class_folders]) == 2
    assert "no --checkpoint" in capsys.readouterr().err


def test_pixels_are_those_of_the_shrunken_image(class_folders: str) -> None:
    encoded = Encoder(Pixels()).encode(open_examples(class_folders))
    assert encoded.features.shape == (24, 3 * 16 * 16)
    with Image.open(Path(class_folders) / encoded.examples.ids[4]) as image:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        peer = image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    peer = np.asarray(peer).transpose(2, 0, 1).ravel() / 255
    assert np.abs(encoded.features[4] - peer).mean() < 0.01


def test_image_towers_of_timm_and_torchvision_enter(class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    ours, theirs = timm.create_model("resnet18", num_classes=7).eval(), torchvision.models.resnet18().eval()
    torch.save(ours.state_dict(), tmp_path / "timm.pth")
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    images = torch.randn(2, 3, 64, 64)
    loaded = elsewhere.load_foreign(str(tmp_path / "timm.pth"), "timm/resnet18", image_size=64)
    assert (loaded.reads_text, loaded.manifests, loaded.mean) == (False, [], timm.get_pretrained_cfg("resnet18").mean)
    with torch.inference_mode():
        peer = ours.forward_head(ours.forward_features(images), pre_logits=True)
        assert loaded.embed_images(images).numpy() == pytest.approx(torch.nn.functional.normalize(peer, dim=-1).numpy(), abs=1e-5)
    loaded = elsewhere.load_foreign(str(tmp_path / "tv.pth"), "torchvision/resnet18", image_size=64)
    assert loaded.mean == (0.485, 0.456, 0.406)
    theirs.fc = torch.nn.Identity()
    with torch.inference_mode():
        peer = torch.nn.functional.normalize(theirs(images), dim=-1)
        assert loaded.embed_images(images).numpy() == pytest.approx(peer.numpy(), abs=1e-5)
    common = ["--checkpoint", str(tmp_path / "tv.pth"), "--model", "torchvision/resnet18", "--image-size", "64", "--data", class_folders]
    rows = run(capsys, "knn", *common, "--results", str(tmp_path / "r.jsonl"))
    assert (rows[0]["manifests"], rows[0]["labels"]) == ([], {"data": "unknown"})
    assert main(["zeroshot", *common, "--results", str(tmp_path / "r.jsonl")]) == 2
    assert "reads no text" in capsys.readouterr().err


def test_a_clip_of_open_clip_enters_with_its_text(class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(build_model("tiny-vit-32").state_dict(), tmp_path / "clip.pt")
    common = ["--checkpoint", str(tmp_path / "clip.pt"), "--model", "tiny-vit-32", "--data", class_folders]
    assert run(capsys, "zeroshot", *common, "--results", str(tmp_path / "r.jsonl"))[0]["labels"] == {"data": "unknown"}
    with pytest.raises(UsageError, match="weights of another model"):
        elsewhere.load_foreign(str(tmp_path / "clip.pt"), "tiny-rn-32")
    with pytest.raises(UsageError, match="three numbers each"):
        elsewhere.load_foreign(str(tmp_path / "clip.pt"), "tiny-vit-32", mean=(0.5,))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tag `toy` of tiny-vit-32 and of tiny-vit-32-quickgelu, its file in a cache as the hub's library lays it out; the file's path."""
    from huggingface_hub import constants
    from open_clip import pretrained

    facts = {"url": "", "hf_hub": "org/toy-clip/", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    absent = {**facts, "hf_hub": "org/absent/"}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-vit-32", {"toy": facts, "absent": absent})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/models--org--toy-clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("a1b2")
    file = repository / "snapshots/a1b2/open_clip_pytorch_model.bin"
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build_model("tiny-vit-32").state_dict(), file)
    return str(file)


def test_a_tag_of_open_clip_is_its_file(published: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["zeroshot", "--model", "tiny-vit-32", "--data", class_folders, "--results", str(tmp_path / "r.jsonl")]
    by_tag = run(capsys, *common, "--checkpoint", "toy")
    normalised = ["--mean", "0.1", "0.2", "0.3", "--std", "0.4", "0.5", "0.6"]
    by_file = run(capsys, *common, "--checkpoint", published, *normalised, "--name", "tiny-vit-32 toy")
    assert by_tag == by_file
    for tag, words in (("absent", "hf download org/absent"), ("toi", "did you mean"), ("nothing.pt", "no file, and no tag")):
        assert main([*common, "--checkpoint", tag]) == 2
        assert words in capsys.readouterr().err
    flags = ["--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--checkpoint", "openai"]
    assert main(["zeroshot", "--model", "ViT-B-23", *flags]) == 2
    said = capsys.readouterr().err
    assert "no published weights of a model 'ViT-B-23'" in said
    assert "did you mean" in said


def test_weights_of_quickgelu_have_its_model(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip import pretrained

    facts = {**pretrained._PRETRAINED["tiny-vit-32"]["toy"], "quick_gelu": True}
    monkeypatch.setitem(pretrained._PRETRAINED, "RN50", {"toy": facts})
    assert tags.find("RN50", "toy") == tags.Tag(published, "RN50-quickgelu", facts["mean"], facts["std"])


def test_several_sets_in_one_command(
    checkpoint_file: str, class_folders: str, foreign_tars: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["knn", "--checkpoint", checkpoint_file, "--data", class_folders, foreign_tars, "--results", str(tmp_path / "r.jsonl")]
    rows = run(capsys, *flags)
    assert [row["data"] for row in rows] == ["squares"] * 3 + ["squares/test"] * 3
    assert rows[0]["value"] == rows[3]["value"]
    assert main([*flags, "--data-name", "x"]) == 2
    assert "--data-name x for 2 sets" in capsys.readouterr().err


def test_a_packed_set_brings_its_own_training_and_validation_images(
    images: list[tuple[str, int, bytes]], checkpoint_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, (id, _, content) in enumerate(images):
        split = ("train", "val", "test", "train")[i % 4]
        path = tmp_path / "raw" / split / id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    parts = [f"{split}={tmp_path / 'raw' / split}" for split in ("train", "val", "test")]
    assert main(["pack", "squares", "--kind", "folder", "--parts", *parts, "--output", str(tmp_path / "sets" / "squares")]) == 0
    capsys.readouterr()
    flags = ["--checkpoint", checkpoint_file, "--data", "squares", "--data-root", str(tmp_path / "sets"), "--k", "4"]
    rows = run(capsys, "linear", *flags, "--results", str(tmp_path / "r.jsonl"), "--seeds", "2")
    settings = rows[0]["settings"]
    assert (rows[0]["data"], rows[0]["n"], settings["n_train"], settings["chosen_by"]) == ("squares", 6, 12, "validation images")
    assert rows[0]["interval"].endswith("(all 2 draws are the same images)")
    whole = run(capsys, "probe", *flags, "--train", str(tmp_path / "raw" / "train"), "--results", str(tmp_path / "r.jsonl"))
    assert whole[0]["settings"]["train"] == settings["train"]
