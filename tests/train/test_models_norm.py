"""BatchNorm by groups: torch's BatchNorm on each group by hand, in outputs, gradients and running statistics."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from train.models import norm
from train.models.heads import projection_mlp
from train.models.towers import build_tower

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def convnet() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6))
    with torch.no_grad():
        body[1].weight.uniform_(0.5, 1.5)
        body[1].bias.uniform_(-1, 1)
    return body.double()


def batch(n: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_each_group_is_what_torch_makes_of_it() -> None:
    plain = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        plain.weight.uniform_(0.5, 1.5)
    grouped = norm.group_batch_norm(copy.deepcopy(plain), 4)
    x = batch().requires_grad_()
    y = grouped(x)
    y.square().mean().backward()

    twin = batch().requires_grad_()
    means, variances, parts = [], [], []
    for part in twin.split(4):
        by_hand = copy.deepcopy(plain)
        by_hand.momentum = 1.0
        parts.append(by_hand(part))
        means.append(by_hand.running_mean)
        variances.append(by_hand.running_var)
    expected = torch.cat(parts)
    expected.square().mean().backward()
    torch.testing.assert_close(y, expected, **EXACT)
    torch.testing.assert_close(x.grad, twin.grad, **EXACT)
    torch.testing.assert_close(grouped.running_mean, 0.9 * plain.running_mean + 0.1 * torch.stack(means).mean(0), **EXACT)
    torch.testing.assert_close(grouped.running_var, 0.9 * plain.running_var + 0.1 * torch.stack(variances).mean(0), **EXACT)
    assert grouped.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_one_group_is_plain_batch_norm(momentum: float | None) -> None:
    plain = convnet()
    for part in plain.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.momentum = momentum
    grouped = norm.group_batch_norm(copy.deepcopy(plain), 16)
    for seed in range(3):
        x = torch.randn(16, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        a, b = plain(x), grouped(x)
        torch.testing.assert_close(a, b, **EXACT)
        (a.square().sum() + b.square().sum()).backward()
    for (name, mine), (other, theirs) in zip(grouped.named_parameters(), plain.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(mine.grad, theirs.grad, **EXACT)
    for name, buffer in plain.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[name], buffer, **EXACT)
    torch.testing.assert_close(plain.eval()(batch()), grouped.eval()(batch()), **EXACT)


def test_chunks_of_a_batch_give_the_whole_batchs_numbers() -> None:
    whole, chunked = (norm.group_batch_norm(convnet(), 4) for _ in range(2))
    whole(batch()).pow(3).sum().backward()
    with norm.running_stats_frozen(chunked):  # GradCache's first pass
        for part in batch().split(8):
            chunked(part)
    with norm.running_stats_collected(chunked):
        for part in batch().split(8):
            chunked(part).pow(3).sum().backward()
    for mine, other in zip(chunked.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, **EXACT)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(chunked.state_dict()[name], tensor, **EXACT)
    assert chunked[1].num_batches_tracked == 1


def test_an_error_while_collecting_updates_nothing() -> None:
    module = norm.group_batch_norm(convnet(), 4)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RuntimeError), norm.running_stats_collected(module):
        module(batch())
        raise RuntimeError
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    module(batch())
    assert module[1].num_batches_tracked == 1


@pytest.mark.parametrize("grouped", [False, True])
def test_frozen_running_stats_stay_to_the_bit_and_outputs_are_those_of_training(grouped: bool) -> None:
    module = norm.group_batch_norm(convnet(), 4) if grouped else convnet()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    poisoned = batch()
    poisoned[0, 0, 0, 0] = float("nan")  # with a momentum of 0 this would reach the buffers
    with norm.running_stats_frozen(module):
        frozen = module(batch())
        module(poisoned)
        torch.testing.assert_close(module.eval()(batch()), module(batch()), **EXACT)
        assert not torch.allclose(module.train()(batch()), module.eval()(batch()))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    torch.testing.assert_close(module.train()(batch()), frozen, **EXACT)
    assert not torch.equal(module.state_dict()["1.running_mean"], before["1.running_mean"])


def test_real_towers_keep_names_and_become_independent_of_the_batch_beside() -> None:
    for name, size in (("tiny-rn-32", None), ("timm/test_resnet", 64), ("timm/test_efficientnet", 64)):
        torch.manual_seed(0)
        tower = build_tower(name, size)
        names = list(tower.state_dict())
        tower = norm.group_batch_norm(tower, 4)
        assert list(tower.state_dict()) == names
        assert norm.smallest_group(tower, 8) == 4
        x = torch.randn(8, 3, tower.image_size, tower.image_size)
        with norm.running_stats_frozen(tower):
            torch.testing.assert_close(tower(x)[:4], tower(x[:4]), rtol=1e-4, atol=1e-5)


def test_a_norm_with_an_activation_keeps_it() -> None:
    from timm.layers.norm_act import BatchNormAct2d

    plain = BatchNormAct2d(4)
    x = torch.randn(8, 4, 5, 5)
    expected = plain(x)
    assert expected.min() == 0
    torch.testing.assert_close(norm.group_batch_norm(copy.deepcopy(plain), 8)(x), expected, rtol=1e-5, atol=1e-6)


def test_norms_without_gain_or_running_statistics() -> None:
    for plain in (nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, track_running_stats=False)):
        x = torch.randn(8, 3)
        grouped = norm.group_batch_norm(copy.deepcopy(plain), 4)
        torch.testing.assert_close(grouped(x), torch.cat([plain(x[:4]), plain(x[4:])]), rtol=1e-5, atol=1e-6)


def test_bfloat16_autocast_keeps_single_precision_statistics() -> None:
    module = norm.group_batch_norm(convnet().float(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        module(batch().float()).sum().backward()
    assert module[1].running_mean.dtype == torch.float32
    assert torch.isfinite(module[1].running_var).all()


def test_groups_that_do_not_divide_are_refused() -> None:
    module = norm.group_batch_norm(convnet(), 5)
    with pytest.raises(UsageError, match="groups of 5 samples in forward passes of 16") as caught:
        module(batch())
    assert caught.value.allowed == "a divisor: 2, 4, 8, 16"
    module.eval()(batch())  # evaluation knows no groups
    with pytest.raises(UsageError, match="groups of 1"):
        norm.group_batch_norm(convnet(), 1)
    with pytest.raises(UsageError, match="SyncBatchNorm"):
        norm.group_batch_norm(nn.Sequential(nn.SyncBatchNorm(3)), 4)


def test_the_smallest_group_is_counted() -> None:
    assert norm.smallest_group(convnet(), 16) == 16
    assert norm.smallest_group(norm.group_batch_norm(projection_mlp(4, 4, 4), 8), 16) == 8
    assert norm.smallest_group(nn.Sequential(nn.SyncBatchNorm(3)), 16) == 16
    assert norm.smallest_group(nn.Linear(3, 3), 16) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU alone")
def test_synchronised_norms_need_a_gpu() -> None:
    with pytest.raises(UsageError, match="without a GPU"):
        norm.sync_batch_norm(convnet())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_synchronised_norms_keep_names() -> None:
    names = list(convnet().state_dict())
    synchronised = norm.sync_batch_norm(convnet())
    assert list(synchronised.state_dict()) == names
    assert isinstance(synchronised[1], nn.SyncBatchNorm)


TWO = """
import sys, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, sys.argv[2])
from test_models_norm import batch, convnet
from train import distributed
from train.models import norm

with distributed.session("cpu"):
    module = norm.group_batch_norm(convnet(), 4)
    parallel = DistributedDataParallel(module, broadcast_buffers=False) if distributed.world_size() > 1 else module
    mine = slice(None) if distributed.world_size() == 1 else slice(8 * distributed.rank(), 8 * distributed.rank() + 8)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        parallel(batch()[mine]).pow(3).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    norm.average_running_stats(module)
    gathered = distributed.gather_objects(module.state_dict()["1.running_var"])
    if distributed.rank() == 0:
        assert all(torch.equal(gathered[0], other) for other in gathered)
        torch.save(module.state_dict(), sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    root, here = str(Path(__file__).parents[2]), str(Path(__file__).parent)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    for command, out in (([sys.executable], "one.pt"), (torchrun, "two.pt")):
        subprocess.run([*command, str(script), str(tmp_path / out), here], check=True, env=env)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-9, atol=1e-11)
