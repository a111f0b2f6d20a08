"""CLIP by name: open_clip's own, and other libraries' image towers beside its text tower."""

from __future__ import annotations

import math

import pytest
import torch

from shards.core.errors import UsageError
from train.models.clip import build_clip, clip_settings, context_length
from train.models.load import build_tokenizer, image_size_of
from train.models.towers import open_clip


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet", "torchvision/resnet18"])
def test_another_librarys_tower_has_open_clips_api(name: str) -> None:
    model = build_clip(name, 64, text="tiny-vit-32").eval()
    images, tokens = torch.randn(2, 3, 64, 64), build_tokenizer(name, "tiny-vit-32")(["a red circle", "a cross"])
    assert tokens.shape == (2, 24)
    seen, read = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
    assert seen.shape == read.shape == (2, 128)
    torch.testing.assert_close(seen.norm(dim=-1), torch.ones(2))
    features = model.visual.trunk(images)
    torch.testing.assert_close(model.encode_image(images), features @ model.visual.head.proj.weight.T, rtol=1e-5, atol=1e-6)
    assert image_size_of(model) == 64


def test_timms_clip_is_open_clips_clip_of_the_same_settings() -> None:
    torch.manual_seed(0)
    ours = build_clip("timm/test_resnet", text="tiny-vit-32").eval()
    peer = open_clip().CLIP(**clip_settings("timm/test_resnet", text="tiny-vit-32")).eval()
    peer.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, image_size_of(ours), image_size_of(ours))
    tokens = torch.randint(0, 49408, (2, 24))
    assert torch.equal(ours.encode_image(images), peer.encode_image(images))
    assert torch.equal(ours.encode_text(tokens), peer.encode_text(tokens))


def test_an_open_clip_name_is_what_open_clip_creates() -> None:
    torch.manual_seed(0)
    ours = build_clip("tiny-rn-32").state_dict()
    torch.manual_seed(0)
    peer = open_clip().create_model("tiny-rn-32").state_dict()
    assert ours.keys() == peer.keys()
    assert all(torch.equal(ours[key], peer[key]) for key in peer)


def test_the_default_text_tower_is_that_of_vit_b_32() -> None:
    settings = clip_settings("torchvision/resnet50")
    assert settings["embed_dim"] == 512
    assert {key: settings["text_cfg"][key] for key in ("width", "heads", "layers")} == {"width": 512, "heads": 8, "layers": 12}
    assert context_length("torchvision/resnet50") == 77
    assert context_length("timm/resnet50", "tiny-rn-32") == 24
    assert clip_settings("timm/resnet50", embed_dim=256)["embed_dim"] == 256


@pytest.mark.parametrize("name", ["tiny-vit-32", "torchvision/resnet18"])
def test_siglips_scale_and_bias(name: str) -> None:
    text = None if name == "tiny-vit-32" else "tiny-vit-32"
    model = build_clip(name, text=text, siglip=True)
    assert model.logit_scale.item() == pytest.approx(math.log(10), abs=1e-6)
    assert model.logit_bias.item() == -10
    plain = build_clip(name, text=text)
    assert plain.logit_scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-6)
    assert plain.logit_bias is None


def test_quick_gelu_is_openais() -> None:
    model = build_clip("tiny-vit-32", quick_gelu=True)
    x = torch.linspace(-3, 3, 7)
    for tower in (model.transformer, model.visual.transformer):
        torch.testing.assert_close(tower.resblocks[0].mlp.gelu(x), x * torch.sigmoid(1.702 * x))


def test_an_open_clip_image_tower_takes_another_text_tower_and_options() -> None:
    model = build_clip("tiny-vit-32", 64, embed_dim=64, drop_path=0.1)
    assert model.encode_image(torch.randn(1, 3, 64, 64)).shape == (1, 64)
    assert model.encode_text(torch.zeros(1, 24, dtype=torch.long)).shape == (1, 64)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [("ViT-B-16-SigLIP", {}, "tokenizer"), ("roberta-ViT-B-32", {}, "tokenizer"), ("timm/resnet50", {"text": "timm/resnet50"}, "no text tower"),
     ("timm/mobilenetv3_small_050", {}, "hidden layer"), ("tiny-rn-32", {"text": "tiny-rn-3"}, "unknown model"), ("RN51", {}, "unknown model"),
     ("tiny-rn-32", {"sincos": True}, "sincos")],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build_clip(name, **options)
