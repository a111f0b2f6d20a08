"""Parameter groups against timm's, open_clip's and wise-ft's rules, and what a schedule does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

from shards.core.errors import UsageError
from tests.train import runs
from train.models.clip import build_clip
from train.models.load import build_model
from train.optim.groups import Grouping, Layers, decays, layers_of, make_groups, set_lr

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")


class Tiny(nn.Module):
    """A trunk, a head and CLIP's temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.bn_scale = nn.Parameter(torch.ones(2, 2))


def by_name(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the group of each parameter by the parameter's name; each has to be in exactly one."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    placed = [(names[parameter], group) for group in groups for parameter in group["params"]]
    assert len(placed) == len(dict(placed)) == sum(p.requires_grad for p in model.parameters())
    return dict(placed)


def vit() -> nn.Module:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=5)


def test_rules_say_what_is_decayed() -> None:
    model = Tiny()
    named = dict(model.named_parameters())
    decayed = {rule: {n for n, p in named.items() if decays(n, p, rule)} for rule in ("open_clip", "ndim", "all")}
    assert decayed["open_clip"] == {"trunk.0.weight", "head.weight"}
    assert decayed["ndim"] == {"trunk.0.weight", "head.weight", "bn_scale"}
    assert decayed["all"] == set(named)
    for rule, names in decayed.items():
        groups = by_name(model, make_groups(model.named_parameters(), Grouping(lr=0.5, weight_decay=0.2, rule=rule)))
        assert {n for n, group in groups.items() if group["weight_decay"] == 0.2} == names
        assert {group["weight_decay"] for n, group in groups.items() if n not in names} <= {0.0}


@pytest.mark.parametrize("layer_decay", [0.75, 0.5])
def test_layers_and_decay_of_a_vit_are_timms(layer_decay: float) -> None:
    from timm.optim import param_groups_layer_decay

    model = vit()
    theirs = by_name(model, param_groups_layer_decay(model, weight_decay=0.05, layer_decay=layer_decay))
    grouping = Grouping(lr=1.0, weight_decay=0.05, rule="ndim", layer_decay=layer_decay, layers=layers_of(model))
    ours = by_name(model, make_groups(model.named_parameters(), grouping))
    for name, group in theirs.items():
        assert ours[name]["lr_scale"] == pytest.approx(group["lr_scale"], rel=1e-12), name
        assert ours[name]["weight_decay"] == group["weight_decay"], name
    assert ours["blocks.0.mlp.fc1.weight"]["lr_scale"] == pytest.approx(layer_decay**3)


def test_layers_of_open_clips_transformers() -> None:
    model = build_model("tiny-vit-32")
    numbered = layers_of(model)
    layers = numbered.numbers
    image_depth = len(model.visual.transformer.resblocks)
    text_depth = len(model.transformer.resblocks)
    top = max(image_depth, text_depth) + 1
    assert layers.keys() == dict(model.named_parameters()).keys()
    for k in range(image_depth):
        assert layers[f"visual.transformer.resblocks.{k}.ln_1.weight"] == top - image_depth + k
    for k in range(text_depth):
        assert layers[f"transformer.resblocks.{k}.ln_1.weight"] == top - text_depth + k
    of_images = {n for n in layers if layers[n] == top - image_depth - 1 and n.startswith("visual.")}
    embeddings = {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding"}
    assert of_images == embeddings | {"visual.ln_pre.weight", "visual.ln_pre.bias"}
    of_texts = {n for n in layers if layers[n] == top - text_depth - 1 and not n.startswith("visual.")}
    assert of_texts == {"positional_embedding", "token_embedding.weight"}
    assert {layers[n] for n in ("visual.proj", "visual.ln_post.weight", "text_projection", "ln_final.bias")} == {top}
    grouping = Grouping(lr=1.0, weight_decay=0.1, layer_decay=0.5, layers=numbered)
    groups = by_name(model, make_groups(model.named_parameters(), grouping))
    assert groups["visual.conv1.weight"]["lr_scale"] == 0.5 ** (image_depth + 1)
    assert groups["logit_scale"]["lr_scale"] == groups["text_projection"]["lr_scale"] == 1


@pytest.mark.parametrize("task", ["supervised", "simclr", "clip"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_timm_tower_learns_at_timms_rates_in_every_task(task: str, name: str, make_shards: Callable[..., str]) -> None:
    import timm
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(name, num_classes=5)
    theirs = by_name(model, param_groups_layer_decay(model, layer_decay=0.5))
    made, _ = runs.built(task, make_shards(20, classes=True), model=f"timm/{name}", image_size=160, layer_decay=0.5, decay_rule="ndim")
    ours = by_name(made.trained, made.optimizer.param_groups)
    trunk = {name.removeprefix("model.visual.trunk."): group for name, group in ours.items() if ".trunk." in name}
    assert trunk.keys() == {name for name in theirs if not name.startswith(("head.", "fc."))}
    assert len({group["lr_scale"] for group in trunk.values()}) > 2
    for name, group in trunk.items():
        assert group["lr_scale"] == pytest.approx(theirs[name]["lr_scale"], rel=1e-12), name
    after = [name for name in ours if name.startswith(("heads.", "model.visual.head.", "model.ln_final", "model.text_projection"))]
    assert after
    assert {ours[name]["lr_scale"] for name in after} == {1.0}


def test_a_shallow_text_tower_is_numbered_by_itself() -> None:
    model = build_clip("tiny-vit-32", text="micro-vit")
    layers = layers_of(model)
    depth = len(model.transformer.resblocks)
    assert depth < len(model.visual.transformer.resblocks)
    assert layers.numbers["token_embedding.weight"] == layers.top - depth - 1
    assert layers.numbers["transformer.resblocks.0.ln_1.weight"] == layers.top - depth
    assert layers.numbers["visual.conv1.weight"] == 0


@pytest.mark.parametrize("name", ["micro-rn", "torchvision/resnet18"])
@pytest.mark.parametrize("task", ["clip", "simclr"])
def test_an_image_tower_without_numbered_blocks_is_refused(task: str, name: str, make_shards: Callable[..., str]) -> None:
    with pytest.raises(UsageError, match=r"layer_decay for \w*ResNet, whose blocks have no numbers\n  allowed: open_clip's ViTs"):
        runs.built(task, make_shards(20), model=name, image_size=32, layer_decay=0.5)


def test_the_head_has_its_own_rate_and_decay() -> None:
    model = Tiny()
    grouping = Grouping(lr=0.1, weight_decay=0.2, heads=("head.",), head_lr=0.7, head_weight_decay=0.03)
    groups = by_name(model, make_groups(model.named_parameters(), grouping))
    assert [groups["head.weight"][k] for k in ("name", "lr", "weight_decay")] == ["head.decayed", pytest.approx(0.7), 0.03]
    assert [groups["head.bias"][k] for k in ("name", "lr", "weight_decay")] == ["head.plain", pytest.approx(0.7), 0.0]
    assert [groups["trunk.0.weight"][k] for k in ("name", "lr", "weight_decay")] == ["trunk.decayed", 0.1, 0.2]


def test_the_head_of_a_layered_vit_is_not_slowed() -> None:
    model = vit()
    grouping = Grouping(lr=0.1, weight_decay=0.2, heads=("head.",), head_lr=0.7, layer_decay=0.5, layers=layers_of(model), rule="ndim")
    groups = by_name(model, make_groups(model.named_parameters(), grouping))
    assert groups["head.weight"]["lr"] == pytest.approx(0.7)
    assert groups["patch_embed.proj.weight"]["lr"] == pytest.approx(0.1 * 0.5**4)


def test_a_schedule_keeps_the_ratios_and_leaves_a_fixed_temperature_alone() -> None:
    model = Tiny()
    grouping = Grouping(lr=0.1, weight_decay=0.2, heads=("head.",), head_lr=0.3, temperature_lr=2e-4)
    optimizer = torch.optim.SGD(make_groups(model.named_parameters(), grouping), lr=9.0)
    set_lr(optimizer, 0.01)
    groups = by_name(model, optimizer.param_groups)
    assert groups["trunk.0.weight"]["lr"] == 0.01
    assert groups["head.weight"]["lr"] == pytest.approx(0.03)
    assert groups["logit_scale"]["lr"] == 2e-4
    assert groups["logit_scale"]["name"] == "temperature.plain"
    plain = torch.optim.SGD(model.parameters(), lr=9.0)
    set_lr(plain, 0.01)
    assert plain.param_groups[0]["lr"] == 0.01


def test_frozen_parameters_are_left_out_and_lars_adapts_matrices_only() -> None:
    model = Tiny()
    model.trunk.requires_grad_(False)
    groups = by_name(model, make_groups(model.named_parameters(), Grouping(lr=1.0, weight_decay=0.1)))
    assert groups.keys() == {"head.weight", "head.bias", "logit_scale", "bn_scale"}
    assert {n for n, group in groups.items() if group["adapt"]} == {"head.weight", "bn_scale"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "opn_clip"}, "unknown weight-decay rule 'opn_clip'"),
        ({"lr": 0.0}, "lr: 0"),
        ({"weight_decay": -0.1}, "weight_decay: -0.1"),
        ({"heads": ("head.",), "head_lr": -1.0}, "head_lr: -1"),
        ({"layer_decay": 1.5, "layers": Layers({"a": 0}, 1)}, "layer_decay: 1.5"),
        ({"layer_decay": 0.5}, "layers are not known"),
        ({"head_lr": 0.1}, "but no head"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Grouping(**({"lr": 0.1, "weight_decay": 0.1} | values))


def test_what_is_not_there_is_refused() -> None:
    model = Tiny()
    with pytest.raises(UsageError, match=r"head 'fc\.'"):
        make_groups(model.named_parameters(), Grouping(lr=1.0, weight_decay=0.1, heads=("fc.",)))
    with pytest.raises(UsageError, match="layer_decay for Tiny"):
        layers_of(model)
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter to train"):
        make_groups(model.named_parameters(), Grouping(lr=1.0, weight_decay=0.1))
