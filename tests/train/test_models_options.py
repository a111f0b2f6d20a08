"""Options of towers: the libraries' own settings where they have them, MoCo-v3's and AugReg's definitions, and no name changed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from train.models.options import sincos_table
from train.models.towers import build_tower

VITS = ("tiny-vit-32", "timm/test_vit")


def naive_sincos(side: int, width: int) -> torch.Tensor:
    """MoCo-v3's positions in plain loops: a row and a column, each as sines, then cosines, over a quarter of the width."""
    rows = [[0.0] * width]
    for r in range(side):
        for c in range(side):
            row = []
            for place in (r, c):
                angles = [place / 10000 ** (k / (width // 4)) for k in range(width // 4)]
                row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(row)
    return torch.tensor(rows)


def test_sincos_is_moco_v3s_definition() -> None:
    torch.testing.assert_close(sincos_table((5, 5), 24, 1), naive_sincos(5, 24), rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="width of 30"):
        sincos_table((5, 5), 30, 1)


@pytest.mark.parametrize("name", [*VITS, "torchvision/vit_b_32"])
def test_sincos_positions_are_in_place_and_fixed(name: str) -> None:
    tower = build_tower(name, sincos=True)
    parameters = dict(tower.named_parameters())
    ending = {"tiny-vit-32": "positional_embedding", "timm/test_vit": "pos_embed"}.get(name, "pos_embedding")
    table = next(p for key, p in parameters.items() if key.endswith(ending))
    side = math.isqrt(table.shape[-2] - 1)
    assert not table.requires_grad
    torch.testing.assert_close(table.reshape(-1, table.shape[-1]), naive_sincos(side, table.shape[-1]), rtol=0, atol=1e-5)
    assert sum(not p.requires_grad for p in parameters.values()) == 1


def test_a_frozen_patch_projection_alone_stays_where_it_was() -> None:
    expected = {
        "tiny-vit-32": {"visual.conv1.weight"},
        "timm/test_vit": {"visual.trunk.patch_embed.proj.weight", "visual.trunk.patch_embed.proj.bias"},
        "torchvision/swin_t": {"visual.trunk.features.0.0.weight", "visual.trunk.features.0.0.bias"},
    }
    for name, frozen in expected.items():
        tower = build_tower(name, frozen_patch_embed=True)
        assert {key for key, p in tower.named_parameters() if not p.requires_grad} == frozen


def rates(module: nn.Module, kind: type[nn.Module], attribute: str) -> list[float]:
    return [getattr(part, attribute) for part in module.modules() if isinstance(part, kind)]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_stochastic_depth_is_that_of_timm(name: str) -> None:
    import timm
    from timm.layers.drop import DropPath

    peer = timm.create_model(name, num_classes=0, drop_path_rate=0.3)
    expected = [p for p in rates(peer, DropPath, "drop_prob") if p > 0]
    ours = rates(build_tower(f"timm/{name}", drop_path=0.3), DropPath, "drop_prob")
    assert ours == pytest.approx(expected)
    assert len(ours) > 0
    assert rates(build_tower(f"timm/{name}", drop_path=0.0), DropPath, "drop_prob") == []


def test_stochastic_depth_is_that_of_torchvisions_swin() -> None:
    from torchvision.models import SwinTransformer
    from torchvision.ops import StochasticDepth

    shape = {"patch_size": [4, 4], "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": [7, 7]}
    expected = rates(SwinTransformer(**shape, stochastic_depth_prob=0.1), StochasticDepth, "p")
    assert rates(build_tower("torchvision/swin_t", drop_path=0.1), StochasticDepth, "p") == pytest.approx(expected)
    assert max(rates(build_tower("torchvision/swin_t"), StochasticDepth, "p")) == pytest.approx(0.2)  # its own default


def test_open_clips_blocks_are_left_out_as_often_as_said() -> None:
    """With a rate near 1 the last block's two branches are skipped, so the tower is its first blocks alone."""
    torch.manual_seed(0)
    tower = build_tower("tiny-vit-32", drop_path=0.999999).train()
    blocks = tower.visual.transformer.resblocks
    x = torch.randn(2, 5, 128)
    assert torch.equal(blocks[-1](x), x)
    assert not torch.equal(blocks[0](x), x)
    depths = [block.ls_1[-1].drop_prob for block in blocks]
    assert depths == pytest.approx([0.999999 * i / 3 for i in range(4)])


def test_dropout_stands_where_augreg_has_it_and_only_in_training() -> None:
    import timm

    plain, dropping = build_tower("tiny-vit-32"), build_tower("tiny-vit-32", drop_rate=0.1)
    # Behind the positions, and in each of 4 blocks behind attention, GELU and MLP.
    assert rates(dropping, nn.Dropout, "p") == [0.1] * (1 + 4 * 3)
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    assert not torch.equal(plain.train()(x), dropping.train()(x))

    peer = timm.create_model("test_vit", num_classes=0, proj_drop_rate=0.1, pos_drop_rate=0.1)
    assert rates(build_tower("timm/test_vit", drop_rate=0.1), nn.Dropout, "p") == rates(peer, nn.Dropout, "p")
    swin = build_tower("torchvision/swin_t", drop_rate=0.1)
    assert {m.dropout for m in swin.modules() if type(m).__name__ == "ShiftedWindowAttention"} == {0.1}


@pytest.mark.parametrize("name", VITS)
def test_patches_are_dropped_in_training_alone(name: str) -> None:
    lengths: list[int] = []
    tower = build_tower(name, 64 if "/" in name else None, patch_dropout=0.5)
    inside = tower.visual.ln_pre if name == "tiny-vit-32" else tower.visual.trunk.norm_pre
    inside.register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))
    x = torch.randn(2, 3, tower.image_size, tower.image_size)
    tower.train()(x)
    tower.eval()(x)
    patches = (tower.image_size // (4 if name == "tiny-vit-32" else 16)) ** 2
    assert lengths == [1 + patches // 2, 1 + patches]


def test_no_option_changes_a_name_or_a_shape() -> None:
    everything = {"frozen_patch_embed": True, "sincos": True, "drop_rate": 0.1, "drop_path": 0.1, "patch_dropout": 0.25}
    for name in VITS:
        plain, changed = build_tower(name), build_tower(name, **everything)
        shapes = [{key: t.shape for key, t in tower.state_dict().items()} for tower in (plain, changed)]
        assert shapes[0] == shapes[1]
        side = changed.image_size
        changed.train()(torch.randn(2, 3, side, side)).sum().backward()


@pytest.mark.parametrize(
    ("name", "option", "named"),
    [("tiny-rn-32", {"frozen_patch_embed": True}, "ViT-B-32"), ("tiny-rn-32", {"sincos": True}, "ViT-B-32"),
     ("torchvision/swin_t", {"sincos": True}, "torchvision/vit_"), ("tiny-rn-32", {"drop_rate": 0.1}, "timm/vit_"),
     ("timm/test_resnet", {"drop_rate": 0.1}, "timm/vit_"), ("torchvision/resnet18", {"drop_path": 0.1}, "torchvision's Swin"),
     ("tiny-rn-32", {"drop_path": 0.1}, "ViT-B-32"), ("torchvision/swin_t", {"patch_dropout": 0.5}, "timm/vit_")],
)  # fmt: skip
def test_an_option_without_a_place_is_refused_and_those_with_one_named(name: str, option: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_tower(name, **option)
    assert next(iter(option)) in caught.value.found
    assert named in caught.value.allowed


@pytest.mark.parametrize("option", [{"drop_path": 1.0}, {"drop_rate": -0.1}, {"patch_dropout": float("nan")}, {"drop_pth": 0.1}])
def test_rates_and_names_of_options_are_checked(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(option))):
        build_tower("tiny-vit-32", **option)
