"""Towers are the libraries' own networks, by name: equal outputs, equal names, and errors that say what is meant."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from train.models.clip import build_clip
from train.models.towers import Tower, build_tower, open_clip

NAMES = ("tiny-rn-32", "tiny-vit-32", "timm/test_vit", "timm/test_resnet", "torchvision/resnet18", "torchvision/mobilenet_v3_small")


def built(name: str, image_size: int | None = None) -> Tower:
    torch.manual_seed(0)
    return build_tower(name, image_size).eval()


def images(tower: Tower, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, tower.image_size, tower.image_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_width_and_the_names_a_prefix(name: str) -> None:
    tower = built(name, 64 if "/" in name else None)
    assert tower(images(tower)).shape == (2, tower.width)
    assert tower.name == name
    prefix = "visual.trunk." if "/" in name else "visual."
    assert all(key.startswith(prefix) for key in tower.state_dict())


def test_an_open_clip_tower_is_the_image_half_of_that_clip() -> None:
    for name in ("tiny-rn-32", "tiny-vit-32"):
        tower = built(name)
        torch.manual_seed(0)
        clip = open_clip().create_model(name).eval()
        assert all(torch.equal(clip.state_dict()[key], tensor) for key, tensor in tower.state_dict().items()), name
        assert torch.equal(tower(images(tower)), clip.encode_image(images(tower)))
        outcome = clip.load_state_dict(tower.state_dict(), strict=False)
        assert outcome.unexpected_keys == []


def test_timm_and_torchvision_towers_compute_what_their_library_does() -> None:
    import timm
    from torchvision.models import resnet18

    tower = built("timm/test_resnet")
    peer = timm.create_model("test_resnet", num_classes=0).eval()
    peer.load_state_dict({key.removeprefix("visual.trunk."): tensor for key, tensor in tower.state_dict().items()})
    assert torch.equal(tower(images(tower)), peer(images(tower)))

    tower = built("torchvision/resnet18", 64)
    twin = resnet18(weights=None).eval()
    outcome = twin.load_state_dict({key.removeprefix("visual.trunk."): t for key, t in tower.state_dict().items()}, strict=False)
    assert outcome.unexpected_keys == []
    assert outcome.missing_keys == ["fc.weight", "fc.bias"]
    twin.fc = nn.Identity()
    assert torch.equal(tower(images(tower)), twin(images(tower)))


@pytest.mark.parametrize("name", ["tiny-vit-32", "timm/test_vit", "torchvision/resnet18"])
def test_a_tower_starts_where_the_image_tower_of_the_clip_starts(name: str) -> None:
    tower = built(name)
    torch.manual_seed(0)
    clip = build_clip(name, text="tiny-vit-32" if "/" in name else None).state_dict()
    assert all(torch.equal(clip[key], tensor) for key, tensor in tower.state_dict().items())


@pytest.mark.slow
def test_the_published_towers_have_their_published_widths() -> None:
    widths = {
        "RN50": 1024, "ViT-B-32": 512, "timm/resnet50": 2048, "torchvision/resnet50": 2048, "torchvision/swin_t": 768,
        "timm/swin_tiny_patch4_window7_224": 768, "timm/mobilenetv3_small_050": 1024,
    }  # fmt: skip
    for name, width in widths.items():
        tower = built(name)
        with torch.no_grad():
            assert tower(images(tower, 1)).shape == (1, width), name
        assert (tower.width, tower.image_size) == (width, 224)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("RN5O", "RN50"), ("tiny-rn-3", "tiny-rn-32"), ("timm/resnet5O", "timm/resnet50"), ("torchvision/swin_y", "torchvision/swin_t"),
     ("resnet50", "timm/resnet50"), ("ViT-B/32", "ViT-B-32"), ("local-dir:x", "")],
)  # fmt: skip
def test_a_misspelt_name_is_refused_with_the_closest(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_tower(name)
    assert repr(name) in caught.value.found
    assert caught.value.advice == (f"did you mean {meant!r}?" if meant else "")
    for place in ("open_clip.list_models()", "timm.list_models()", "torchvision.models.list_models"):
        assert place in caught.value.allowed


@pytest.mark.parametrize(
    ("name", "size"),
    [("tiny-rn-32", 63), ("tiny-rn-32", 16), ("tiny-vit-32", 30), ("tiny-vit-32", 0), ("timm/test_vit", 60), ("torchvision/vit_b_32", 50),
     ("timm/test_resnet", 0), ("EVA02-B-16", 8)],
)  # fmt: skip
def test_an_image_size_that_cannot_be_is_refused(name: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"image size {size}"):
        build_tower(name, size)


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "torchvision/googlenet", "torchvision/squeezenet1_0"])
def test_networks_that_are_no_towers_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        build_tower(name)


def test_another_image_size_resizes_the_grid_of_patches() -> None:
    assert built("tiny-vit-32", 64).visual.positional_embedding.shape[0] == 1 + (64 // 4) ** 2
    tower = built("timm/test_vit", 64)
    assert tower.image_size == 64
    assert tower.visual.trunk.pos_embed.shape[1] == 1 + (64 // 16) ** 2


def test_checkpointing_changes_no_gradient_and_is_refused_where_there_is_none() -> None:
    gradients = []
    for enable in (False, True):
        tower = built("tiny-vit-32").train()
        tower.set_grad_checkpointing(enable)
        tower(images(tower)).square().sum().backward()
        gradients.append(tower.visual.conv1.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)
    assert gradients[0].abs().sum() > 0
    for name in ("tiny-rn-32", "torchvision/resnet18"):
        with pytest.raises(UsageError, match="checkpointing"):
            built(name).set_grad_checkpointing()
