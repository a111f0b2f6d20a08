"""Layers: their features against the libraries' own intermediates, and the saturation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import layers
from eval.cli import main
from eval.metrics import Score
from eval.protocols.layers import saturation
from shards.core.errors import UsageError
from train.models.load import Loaded, build_model
from train.models.towers import build_tower


def loaded_tower(name: str, size: int) -> Loaded:
    torch.manual_seed(0)
    tower = build_tower(name, size).eval()
    return Loaded(tower, None, size, (0.5,) * 3, (0.5,) * 3, "digest", 0, 0, [], {"task": "another tool"})


def parts_of(layered: layers.Layered, images: torch.Tensor) -> dict[tuple[str, str], np.ndarray]:
    with torch.inference_mode():
        together = layered.embed_images(images).numpy()
    assert together.shape[1] == layered.places[-1].stop
    return {(place.layer, place.pooled): together[:, place.start : place.stop] for place in layered.places}


def same_direction(own: np.ndarray, peer: torch.Tensor) -> None:
    assert own == pytest.approx(torch.nn.functional.normalize(peer.float(), dim=-1).numpy(), abs=1e-5)


def test_a_vit_of_open_clip() -> None:
    torch.manual_seed(0)
    model = build_model("tiny-vit-32").eval()
    loaded = Loaded(model, lambda texts: texts, 32, (0.5,) * 3, (0.5,) * 3, "digest", 0, 0, [], {})
    images = torch.randn(3, 3, 32, 32)
    parts = parts_of(layers.Layered(loaded, (1, 4)), images)
    with torch.inference_mode():
        peer = model.visual.forward_intermediates(images, output_fmt="NCHW", output_extra_tokens=True)
    for i, (grid, extra) in enumerate(zip(peer["image_intermediates"], peer["image_intermediates_prefix"], strict=True)):
        name = f"transformer.resblocks.{i}"
        same_direction(parts[name, "cls"], extra[:, 0])
        same_direction(parts[name, "1"], grid.mean((2, 3)))
        same_direction(parts[name, "4"], torch.nn.functional.avg_pool2d(grid, 4).flatten(1))
    with torch.inference_mode():
        same_direction(parts["output", "1"], model.encode_image(images))
    assert len(parts) == 4 * 3 + 1


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/resnet18", "timm/swin_tiny_patch4_window7_224", "timm/convnext_atto"])
def test_towers_of_timm(name: str) -> None:
    loaded = loaded_tower(name, 224 if "swin" in name else 64)
    images = torch.randn(2, 3, loaded.image_size, loaded.image_size)
    parts = parts_of(layers.Layered(loaded), images)
    trunk = loaded.model.visual.trunk
    with torch.inference_mode():
        peer = trunk.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")
    own = [part for (layer, pooled), part in parts.items() if pooled == "1" and layer not in ("maxpool", "output")]
    peer = peer[-len(own) :]
    assert len(own) >= 4
    for mine, grid in zip(own, peer, strict=True):
        same_direction(mine, grid.mean((2, 3)))


def test_towers_of_torchvision_by_hooks() -> None:
    loaded = loaded_tower("torchvision/vit_b_16", 32)
    images = torch.randn(2, 3, 32, 32)
    kept: list[torch.Tensor] = []
    encoder = loaded.model.visual.trunk.encoder
    handle = encoder.layers[5].register_forward_hook(lambda module, inputs, output: kept.append(output))
    parts = parts_of(layers.Layered(loaded), images)
    handle.remove()
    (tokens,) = kept
    same_direction(parts["encoder.layers.encoder_layer_5", "cls"], tokens[:, 0])
    same_direction(parts["encoder.layers.encoder_layer_5", "1"], tokens[:, 1:].mean(1))
    resnet = loaded_tower("torchvision/resnet18", 64)
    assert list(layers.blocks_of(layers.tower_of(resnet.model))) == ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    assert not layers.tower_of(resnet.model).layer1._forward_hooks


def test_the_saturation_is_the_first_layer_within_a_point() -> None:
    best = {"a": [0.5, 0.6], "b": [0.795], "c": [0.7, 0.8], "output": [0.79]}
    scores = {name: [Score(value, n=10) for value in values] for name, values in best.items()}
    score, layer = saturation(scores)
    assert (score.value, layer) == (0.5, "b")


def test_layers_from_the_command_line(checkpoint_file: str, class_folders: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--checkpoint", checkpoint_file, "--data", class_folders, "--results", str(tmp_path / "r.jsonl"), "--json"]
    flags += ["--cache", str(tmp_path / "cache")]
    assert main(["layers", *flags, "--k", "2,all", "--seeds", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [f"acc1@transformer.resblocks.{i}:{pooled}" for i in range(4) for pooled in ("cls", "1")]
    assert [(r["k"], r["metric"]) for r in rows] == [(k, m) for k in (2, "all") for m in (*names, "acc1", "saturation")]
    assert main(["layers", *flags, "--k", "2,all", "--seeds", "2"]) == 0  # from the cache
    assert json.loads(capsys.readouterr().out) == rows
    assert main(["probe", *flags, "--k", "2,all", "--seeds", "2"]) == 0
    probe = {row["k"]: row["value"] for row in json.loads(capsys.readouterr().out) if row["metric"] == "acc1"}
    assert {row["k"]: row["value"] for row in rows if row["metric"] == "acc1"} == probe
    assert main(["layers", *flags, "--tokens", "3"]) == 2
    assert "square numbers" in capsys.readouterr().err


def test_a_tower_without_known_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="no known blocks"):
        layers.blocks_of(torch.nn.Linear(2, 2))
