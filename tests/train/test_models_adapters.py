"""Adapters: the identity at first, formulas against plain ones, what trains, and checkpoints that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from shards.core.errors import UsageError
from tests.train import runs
from train import loop
from train.models.adapters import Bottleneck, LowRank, adapt, merge
from train.models.load import load_checkpoint
from train.models.towers import build_tower

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
VITS = ("micro-vit", "timm/vit_tiny_patch16_224")


def tower(name: str) -> Any:
    torch.manual_seed(0)
    return build_tower(name, None if name == "micro-vit" else 32).eval()


@pytest.mark.parametrize("kind", ["houlsby", "lora"])
@pytest.mark.parametrize("name", VITS)
def test_the_first_step_sees_the_pretrained_model(name: str, kind: Any) -> None:
    plain, adapted = tower(name), tower(name)
    trained = adapt(adapted, kind, 4)
    images = torch.randn((3, 3, 32, 32))
    with torch.no_grad():
        assert torch.allclose(adapted(images), plain(images), atol=1e-6)
    share = sum(p.numel() for p in adapted.parameters() if p.requires_grad) / sum(p.numel() for p in plain.parameters())
    assert 0 < share < 0.3
    kept = {"houlsby": ("down", "up", "ln_", "norm"), "lora": ("parametrizations",)}[kind]
    assert all(any(word in parameter for word in kept) for parameter in trained)
    adapted.train()(images).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in adapted.parameters())


def test_the_formulas() -> None:
    adapter, x = Bottleneck(6, 3), torch.randn(2, 5, 6)
    torch.nn.init.normal_(adapter.up.weight)
    by_hand = x + F.gelu(x @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
    assert torch.allclose(adapter(x), by_hand, atol=1e-6)
    update, weight = LowRank(torch.Size((8, 6)), 2), torch.randn(8, 6)
    assert torch.equal(update(weight), weight)
    torch.nn.init.normal_(update.b)
    assert torch.allclose(update(weight), weight + 2 * update.b @ update.a)


def test_merged_updates_give_the_same_features_under_the_librarys_names() -> None:
    adapted, names = tower("micro-vit"), set(tower("micro-vit").state_dict())
    adapt(adapted, "lora", 2)
    for name, parameter in adapted.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randn((2, 3, 32, 32))
    with torch.no_grad():
        before = adapted(images)
        merge(adapted)
        assert torch.allclose(adapted(images), before, atol=1e-5)
    assert set(adapted.state_dict()) == names


def test_a_tower_without_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="no blocks of a ViT"):
        adapt(tower("micro-rn"), "lora", 2)


@pytest.mark.parametrize("kind", ["houlsby", "lora"])
def test_a_fine_tuning_with_adapters_comes_back(kind: str, make_shards: Any, tmp_path: Path) -> None:
    build, out = make_shards(16, classes=True), tmp_path / "out"
    made = runs.config("finetune", build, out, model="micro-vit", tune=kind, adapter_width=2, epochs=2.0)
    assert loop.train(made) == 0
    loaded = load_checkpoint(str(out))
    fitted = loop.fit(made)
    images = torch.randn((2, 3, 32, 32))
    with torch.no_grad():
        theirs = fitted.task.heads["classifier"](fitted.task.model(images))
        assert torch.allclose(loaded.classify(images), theirs, atol=1e-6)
    assert loop.train(made) == 0  # resumes: nothing is left to do
