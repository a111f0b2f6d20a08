"""The moving average of weights equals plain arithmetic, torch's AveragedModel and timm's ModelEmaV3."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from train.models.ema import Ema, byol_momentum


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def step(module: nn.Module, seed: int) -> None:
    """Change weights and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    module.train()(torch.randn(8, 3, generator=generator))


def naive(states: list[dict[str, torch.Tensor]], decays: list[float]) -> dict[str, torch.Tensor]:
    """θ ← d·θ + (1 − d)·θ_k number by number, in plain floats."""
    result = {}
    for name, first in states[0].items():
        values = [float(v) for v in first.flatten()]
        for state, d in zip(states[1:], decays, strict=True):
            new = [float(v) for v in state[name].flatten()]
            values = [d * v + (1 - d) * w for v, w in zip(values, new, strict=True)]
        result[name] = torch.tensor(values).reshape(first.shape)
    return result


def snapshots(module: nn.Module, ema: Ema, decays: list[float | None]) -> list[dict[str, torch.Tensor]]:
    states = [copy.deepcopy(module.state_dict())]
    for number, decay in enumerate(decays):
        step(module, number)
        ema.update(module, decay)
        states.append(copy.deepcopy(module.state_dict()))
    return states


def test_updates_equal_plain_arithmetic() -> None:
    module = net()
    ema = Ema(module, decay=0.9)
    states = snapshots(module, ema, [None] * 5)
    expected = naive(states, [0.9] * 5)
    for name, tensor in ema.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    assert ema.module[1].num_batches_tracked == 5
    assert ema.updates == 5
    assert not any(p.requires_grad for p in ema.parameters())


def test_a_teachers_momentum_changes_from_step_to_step_and_its_statistics_are_its_own() -> None:
    module = net()
    ema = Ema(module, buffers="own")
    own = ema.module[1].running_mean.clone()
    momenta = [byol_momentum(k, 5, base=0.5) for k in range(5)]
    expected = naive(snapshots(module, ema, list(momenta)), momenta)
    for name, parameter in ema.module.named_parameters():
        torch.testing.assert_close(parameter.data, expected[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(ema.module[1].running_mean, own)
    assert ema.module[1].num_batches_tracked == 0


def test_copied_buffers_are_the_students() -> None:
    module = net()
    ema = Ema(module, decay=0.9, buffers="copy")
    snapshots(module, ema, [None] * 3)
    for (name, mine), (_, theirs) in zip(ema.module.named_buffers(), module.named_buffers(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("warmup", [False, True])
def test_it_is_timms_average(warmup: bool) -> None:
    from timm.utils.model_ema import ModelEmaV3

    module = net()
    ours, peer = Ema(module, decay=0.9, warmup=warmup), ModelEmaV3(module, decay=0.9, use_warmup=warmup)
    for number in range(40):  # the warm-up reaches 0.9 at update 31
        step(module, number)
        ours.update(module)
        peer.update(module, step=number + 1 if warmup else None)
        assert ours.decay_at(number) == pytest.approx(peer.get_decay(number + 1 if warmup else None))
    for name, tensor in peer.module.state_dict().items():
        torch.testing.assert_close(ours.module.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_it_is_torchs_averaged_model() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    module = net()
    ours, peer = Ema(module, decay=0.8, buffers="copy"), AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    peer.update_parameters(module)  # torch's first update copies
    for number in range(4):
        step(module, number)
        ours.update(module)
        peer.update_parameters(module)
    for mine, theirs in zip(ours.module.parameters(), peer.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_saved_average_goes_on_to_the_same_bits(tmp_path: object) -> None:
    module = net()
    ema = Ema(module, decay=0.99, warmup=True)
    snapshots(module, ema, [None] * 3)
    file = f"{tmp_path}/ema.pt"
    torch.save(ema.state_dict(), file)
    resumed = Ema(net(7), decay=0.99, warmup=True)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.updates == 3
    step(module, 9)
    ema.update(module)
    resumed.update(module)
    for name, tensor in ema.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], tensor), name


def test_mixed_precisions_are_averaged_each_in_its_own() -> None:
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2).double()])
    ema = Ema(module, decay=0.5)
    first = [p.clone() for p in module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    ema.update(module)
    for mine, was in zip(ema.module.parameters(), first, strict=True):
        assert mine.dtype == was.dtype
        torch.testing.assert_close(mine, was + 0.5)


def test_byols_momentum_rises_from_its_base_to_one() -> None:
    assert byol_momentum(0, 100) == pytest.approx(0.996)
    assert byol_momentum(100, 100) == 1
    assert byol_momentum(50, 100) == pytest.approx(1 - 0.004 / 2)
    # cos² form of the same curve, from cos 2x = 2·cos² x − 1
    at = [byol_momentum(k, 100) for k in range(101)]
    assert at == pytest.approx([1 - 0.004 * math.cos(math.pi * k / 200) ** 2 for k in range(101)], abs=1e-15)
    assert at == sorted(at)
    assert byol_momentum(25, 100, base=0.9) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decays_out_of_range_are_refused(decay: float) -> None:
    with pytest.raises(UsageError, match="decay"):
        Ema(net(), decay=decay)
    with pytest.raises(UsageError, match="decay"):
        Ema(net()).update(net(), decay)
