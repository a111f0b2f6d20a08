"""Weights of open_clip, timm, torchvision and SLIP go where they belong: the model then computes what theirs does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shards.core.errors import UsageError
from train.models.clip import build_clip
from train.models.foreign import load_weights, read_weights
from train.models.towers import Tower, build_tower, open_clip

Weights = dict[str, torch.Tensor]


def peer(name: str, seed: int = 1) -> nn.Module:
    """Return open_clip's own model with other weights than ours start from."""
    torch.manual_seed(seed)
    return open_clip().create_model(name).eval()


def tower_of(name: str, image_size: int | None = None) -> Tower:
    torch.manual_seed(0)
    return build_tower(name, image_size).eval()


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: tensor for name, tensor in weights.items()}


WRAPPINGS: dict[str, Callable[[Weights], object]] = {
    "plain": lambda weights: weights,
    "open_clip's trainer": lambda weights: {"epoch": 3, "name": "run", "state_dict": prefixed("module.")(weights), "optimizer": {}},
    "compiled": prefixed("_orig_mod."),
    "compiled, then parallel": lambda weights: {"state_dict": prefixed("module._orig_mod.")(weights)},
    "parallel, then compiled": lambda weights: {"model": prefixed("_orig_mod.module.")(weights)},
    "a compiled part": lambda weights: {name.replace("visual.", "visual._orig_mod."): tensor for name, tensor in weights.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_an_open_clip_file_fills_a_clip_and_gives_a_tower_its_half(wrapping: str, tmp_path: Path) -> None:
    model = peer("tiny-rn-32")
    file = str(tmp_path / "epoch_3.pt")
    torch.save(WRAPPINGS[wrapping](model.state_dict()), file)
    clip = build_clip("tiny-rn-32").eval()
    report = load_weights(clip, file, require="all")
    assert (len(report.loaded), report.missing, report.unexpected, report.mismatched) == (len(model.state_dict()), (), (), ())
    assert report.facts.kind == "open_clip"
    tokens = torch.randint(0, 49408, (2, 24))
    assert torch.equal(clip.encode_image(images(32)), model.encode_image(images(32)))
    assert torch.equal(clip.encode_text(tokens), model.encode_text(tokens))

    tower = tower_of("tiny-rn-32")
    report = load_weights(tower, file)
    assert report.missing == ()
    assert set(report.unexpected) == {name for name in model.state_dict() if not name.startswith("visual.")}
    assert torch.equal(tower(images(32)), model.encode_image(images(32)))


def test_a_bare_image_tower_of_open_clip_fills_a_tower_and_half_a_clip(tmp_path: Path) -> None:
    model = peer("tiny-vit-32")
    file = str(tmp_path / "visual.safetensors")
    save_file(model.visual.state_dict(), file)
    for module in (tower_of("tiny-vit-32"), build_clip("tiny-vit-32").eval()):
        report = load_weights(module, file)
        assert len(report.loaded) == len(model.visual.state_dict())
        assert report.mismatched == report.unexpected == ()
        image_tower = module.visual
        assert torch.equal(image_tower(images(32)), model.encode_image(images(32)))
    with pytest.raises(UsageError, match="not in the file: positional_embedding"):
        load_weights(build_clip("tiny-vit-32"), file, require="all")


def test_files_of_timm_and_torchvision(tmp_path: Path) -> None:
    import timm
    from torchvision.models import resnet18

    torch.manual_seed(1)
    for name, model, side in (("timm/test_vit", timm.create_model("test_vit"), 160), ("torchvision/resnet18", resnet18(), 224)):
        model = model.eval()
        for file, write in (("w.pth", torch.save), ("w.safetensors", save_file)):
            write(model.state_dict(), str(tmp_path / file))
            tower = tower_of(name)
            report = load_weights(tower, str(tmp_path / file))
            assert report.missing == ()
            heads = {"visual.trunk.head.weight", "visual.trunk.head.bias", "visual.trunk.fc.weight", "visual.trunk.fc.bias"}
            assert len(report.unexpected) == 2
            assert set(report.unexpected) <= heads
            assert report.facts.kind == "timm or torchvision"
            classifier = model.head if "vit" in name else model.fc
            torch.testing.assert_close(classifier(tower(images(side))), model(images(side)), rtol=1e-5, atol=1e-5)


def test_a_torchvision_file_fills_timms_twin(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    model = resnet18().eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    tower = tower_of("timm/resnet18", 64)
    load_weights(tower, str(tmp_path / "resnet18.pth"))
    model.fc = nn.Identity()
    torch.testing.assert_close(tower(images(64)), model(images(64)), rtol=1e-4, atol=1e-5)


class SlipClip(nn.Module):
    """SLIP's layout of a CLIP: timm's ViT as `visual`, `image_projection` used as x·P, and an MLP for SimCLR."""

    def __init__(self) -> None:
        import timm

        super().__init__()
        text = build_clip("tiny-vit-32", quick_gelu=True)
        self.visual = timm.create_model("test_vit", num_classes=0)
        self.image_projection = nn.Parameter(torch.randn(64, 128))
        self.image_mlp = nn.Sequential(nn.Linear(64, 8))
        for name in ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale"):
            setattr(self, name, getattr(text, name))
        self.text = [text]


def test_a_slip_checkpoint_becomes_a_clip_with_a_timm_tower(tmp_path: Path) -> None:
    import argparse

    torch.manual_seed(1)
    slip = SlipClip().eval()
    file = str(tmp_path / "checkpoint_best.pt")
    state = {f"module.{name}": tensor for name, tensor in slip.state_dict().items()}
    torch.save({"epoch": 25, "state_dict": state, "best_acc1": 38.3, "args": argparse.Namespace(model="SLIP_VITS16")}, file)
    clip = build_clip("timm/test_vit", text="tiny-vit-32", quick_gelu=True).eval()
    report = load_weights(clip, file, require="all")
    assert report.facts.kind == "slip"
    assert report.unexpected == ("image_mlp.0.weight", "image_mlp.0.bias")
    tokens = torch.randint(0, 49408, (2, 24))
    expected = slip.visual(images(160)) @ slip.image_projection
    torch.testing.assert_close(clip.encode_image(images(160)), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(clip.encode_text(tokens), slip.text[0].encode_text(tokens))
    tower = tower_of("timm/test_vit")
    load_weights(tower, file)
    torch.testing.assert_close(tower(images(160)), slip.visual(images(160)), rtol=1e-5, atol=1e-5)


def test_positions_of_another_image_size_are_resized_as_open_clip_does(tmp_path: Path) -> None:
    model = peer("tiny-vit-32")
    file = str(tmp_path / "w.pt")
    torch.save(model.state_dict(), file)
    expected = build_clip("tiny-vit-32", 64)
    table = {"visual.positional_embedding": model.state_dict()["visual.positional_embedding"]}
    open_clip().model.resize_pos_embed(table, expected)
    for module in (build_clip("tiny-vit-32", 64), tower_of("tiny-vit-32", 64)):
        report = load_weights(module, file)
        assert report.resized == ("visual.positional_embedding",)
        ours = module.state_dict()["visual.positional_embedding"]
        torch.testing.assert_close(ours, table["visual.positional_embedding"], rtol=0, atol=1e-6)
        assert ours.shape == (257, 128)


def test_positions_of_a_resnets_pooling_timms_and_torchvisions_vits_are_resized_too(tmp_path: Path) -> None:
    from timm import create_model
    from timm.layers.pos_embed import resample_abs_pos_embed
    from torchvision.models import vit_b_32

    file = str(tmp_path / "w.pt")
    torch.save(peer("tiny-rn-32").state_dict(), file)
    assert load_weights(tower_of("tiny-rn-32", 96), file).resized == ("visual.attnpool.positional_embedding",)
    for name, model, key in (
        ("timm/test_vit", create_model("test_vit"), "pos_embed"),
        ("torchvision/vit_b_32", vit_b_32(weights=None), "encoder.pos_embedding"),
    ):
        torch.save(model.state_dict(), file)
        tower = tower_of(name, 96)
        assert load_weights(tower, file).resized == (f"visual.trunk.{key}",)
        side = 96 // (16 if "timm" in name else 32)
        expected = resample_abs_pos_embed(model.state_dict()[key], [side, side])
        torch.testing.assert_close(tower.state_dict()[f"visual.trunk.{key}"], expected)


def test_swins_tables_of_relative_positions_are_resized_by_timm(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("swin_tiny_patch4_window7_224")
    file = str(tmp_path / "swin.safetensors")
    save_file(model.state_dict(), file)
    tower = tower_of("timm/swin_tiny_patch4_window7_224", 128)
    report = load_weights(tower, file)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert len(report.resized) == 12  # its blocks
    assert report.mismatched == ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.set_input_size(128)
    torch.testing.assert_close(tower.state_dict()[f"visual.trunk.{name}"], model.state_dict()[name])


def test_a_text_towers_context_is_resized_by_open_clip(tmp_path: Path) -> None:
    model = peer("tiny-vit-32")
    file = str(tmp_path / "w.pt")
    torch.save(model.state_dict(), file)
    longer = open_clip().create_model("tiny-vit-32", force_context_length=48)
    assert load_weights(longer, file, require="all").resized == ("positional_embedding",)
    assert longer.positional_embedding.shape == (48, 64)


def test_scales_of_another_shape_fit(tmp_path: Path) -> None:
    state = peer("tiny-vit-32").state_dict()
    state["logit_scale"] = state["logit_scale"].reshape(1) + 1
    torch.save(state, tmp_path / "w.pt")
    clip = build_clip("tiny-vit-32")
    load_weights(clip, str(tmp_path / "w.pt"), require="all")
    assert clip.logit_scale.item() == state["logit_scale"].item()


@pytest.mark.parametrize(
    ("made", "wanted"),
    [("tiny-rn-32", "tiny-vit-32"), ("tiny-vit-32", "tiny-rn-32"), ("tiny-vit-32", "tiny-vit-64"), ("timm/test_resnet", "timm/test_vit"),
     ("tiny-vit-32", "timm/test_vit"), ("torchvision/resnet34", "torchvision/resnet18"), ("torchvision/resnet18", "torchvision/resnet34")],
)  # fmt: skip
def test_weights_of_another_model_are_refused_and_nothing_changes(made: str, wanted: str, tmp_path: Path) -> None:
    file = str(tmp_path / "other.pt")
    torch.save(build_tower(made, 64).state_dict(), file)
    tower = tower_of(wanted, 64)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    with pytest.raises(UsageError, match="weights of another model") as caught:
        load_weights(tower, file)
    assert file in caught.value.found
    assert "--model" in caught.value.advice
    assert any(words in caught.value.found for words in ("only in the file: visual.", "not in the file: visual.", "other shapes: visual."))
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())


def test_a_checkpoint_of_ours_is_read_like_any_other(tmp_path: Path) -> None:
    from train import checkpoint

    model = peer("tiny-vit-32")
    known = {"task": "clip", "config": {"model": "tiny-vit-32"}, "manifests": [], "samples_seen": 48, "parent": None}
    checkpoint.save(str(tmp_path), {"state_dict": model.state_dict(), "step": 3, **known})
    weights, facts = read_weights(str(tmp_path))
    assert facts.lineage == {"task": "clip", "model": "tiny-vit-32", "manifests": [], "step": 3, "samples_seen": 48, "parent": None}
    assert (facts.kind, facts.provenance, facts.tensors) == ("provender", "recorded", len(model.state_dict()))
    tower = tower_of("tiny-vit-32")
    report = load_weights(tower, str(tmp_path))
    assert torch.equal(tower(images(32)), model.encode_image(images(32)))
    assert report.summary().endswith("0 of another shape, 0 resized")
    assert weights.keys() == model.state_dict().keys()
