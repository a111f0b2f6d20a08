"""BatchNorm whose result does not depend on how a batch is shared out among processes and chunks.

`group_batch_norm` fixes the statistics to groups of consecutive samples. One process with 64 samples, two with 32 and four
chunks of 16 then normalise alike, as long as the group divides the smallest of these numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from shards.core.errors import UsageError
from train import distributed

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GroupBatchNorm(_BatchNorm):
    """BatchNorm over groups of `group` consecutive samples; of any number of dimensions, (n, c, …).

    In training mode every group is normalised by its own mean and variance, and the running statistics take one step towards
    the mean over the groups of the groups' means and unbiased variances. In evaluation mode it is plain BatchNorm.
    """

    def __init__(self, like: _BatchNorm, group: int) -> None:
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self.group = group
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        # timm's BatchNormAct2d holds what follows the normalisation; neither has weights, so no name is added to the state dict.
        self.drop: nn.Module = getattr(like, "drop", nn.Identity())
        self.act: nn.Module = getattr(like, "act", nn.Identity())
        self.train(like.training)
        # While statistics are collected: their sums over groups, (2, c), and the number of groups; else None.
        self.collected: tuple[torch.Tensor, int] | None = None
        self.collecting = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (n, c, …).

        Raises:
            UsageError: in training mode, the group does not divide n.
        """
        if self.training:
            output = self._normalise_groups(input)
        else:
            by_batch = self.running_mean is None
            output = F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, by_batch, 0.0, self.eps)
        return self.act(self.drop(output))

    def _normalise_groups(self, input: torch.Tensor) -> torch.Tensor:
        check_group(self.group, len(input))
        groups = input.split(self.group)
        dtype = torch.float32 if self.running_mean is None else self.running_mean.dtype
        statistics = torch.zeros(len(groups), 2, self.num_features, device=input.device, dtype=dtype)
        outputs = []
        for part, (mean, var) in zip(groups, statistics, strict=True):
            # Momentum 1 leaves the group's own mean and unbiased variance in `mean` and `var`.
            outputs.append(F.batch_norm(part, mean, var, self.weight, self.bias, True, 1.0, self.eps))
        if self.track_running_stats:
            self._take(statistics)
        return torch.cat(outputs)

    def _take(self, statistics: torch.Tensor) -> None:
        """Use statistics of groups, (groups, 2, c), now, or keep them until the collection ends."""
        total, groups = statistics.sum(0), len(statistics)
        if not self.collecting:
            self._update(total / groups)
        elif self.collected is None:
            self.collected = (total, groups)
        else:
            self.collected = (self.collected[0] + total, self.collected[1] + groups)

    def _update(self, statistics: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # torch's rule: without a momentum the running statistics are the mean over all updates.
        rate: Any = self.momentum
        if rate is None:
            rate = 1.0 / self.num_batches_tracked.to(statistics.dtype)
        self.running_mean.lerp_(statistics[0], rate)
        self.running_var.lerp_(statistics[1], rate)

    def commit(self) -> None:
        """End a collection: make one update with the mean over all groups that were seen."""
        collected, self.collected, self.collecting = self.collected, None, False
        if collected is not None:
            self._update(collected[0] / collected[1])

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any number of dimensions."""

    def extra_repr(self) -> str:
        """Return the module's settings, as in torch."""
        return f"{super().extra_repr()}, group={self.group}"


def check_group(group: int, batch: int) -> None:
    """Refuse a group that does not divide the samples of one forward pass.

    Args:
        group: samples per statistic.
        batch: samples that a process, or a chunk of it, passes forward at once.

    Raises:
        UsageError: naming the groups that would do.
    """
    if group < 2 or batch % group:
        allowed = [number for number in range(2, min(batch, 4096) + 1) if batch % number == 0]
        raise UsageError(f"BatchNorm groups of {group} samples in forward passes of {batch}", f"a divisor: {', '.join(map(str, allowed))}")


def group_batch_norm(module: nn.Module, group: int) -> nn.Module:
    """Replace every BatchNorm in a module, in place, by a `GroupBatchNorm` with its weights; state-dict names stay as they are.

    Args:
        group: consecutive samples per statistic.

    Returns:
        The module; another one only where the module is a BatchNorm itself.

    Raises:
        UsageError: a group below 2, or a kind of BatchNorm whose forward pass is not known here.
    """
    if group < 2:
        raise UsageError(f"BatchNorm groups of {group}", "at least 2 samples")
    if isinstance(module, _BatchNorm):
        return _grouped(module, group)
    for path, part in list(module.named_modules()):
        if isinstance(part, _BatchNorm):
            module.set_submodule(path, _grouped(part, group))
    return module


def _grouped(norm: _BatchNorm, group: int) -> GroupBatchNorm:
    if isinstance(norm, GroupBatchNorm) or type(norm) in PLAIN or type(norm).__name__ == "BatchNormAct2d":
        return GroupBatchNorm(norm, group)
    raise UsageError(f"BatchNorm groups over a {type(norm).__name__}", "BatchNorm1d, 2d, 3d, timm's BatchNormAct2d")


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Return the module with every BatchNorm replaced by torch's SyncBatchNorm, whose statistics span all processes.

    Raises:
        UsageError: there is no GPU, without which SyncBatchNorm does not run, or BatchNorms are grouped already.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    if not torch.cuda.is_available():
        raise UsageError(
            "synchronised BatchNorm without a GPU", "CUDA devices", "BatchNorm groups give one result on any number of processes"
        )
    if any(isinstance(part, GroupBatchNorm) for part in module.modules()):
        raise UsageError("synchronised BatchNorm over BatchNorm groups", "one of the two")
    return convert_sync_batchnorm(module)


def smallest_group(module: nn.Module, batch: int) -> int | None:
    """Return the fewest samples over which a BatchNorm of a module takes statistics in training; None without a BatchNorm.

    Args:
        batch: samples that one process passes forward at once. SyncBatchNorm multiplies them by the number of processes.
    """
    samples = []
    for part in module.modules():
        if isinstance(part, GroupBatchNorm):
            samples.append(part.group)
        elif isinstance(part, nn.SyncBatchNorm):
            samples.append(batch * distributed.world_size())
        elif isinstance(part, _BatchNorm):
            samples.append(batch)
    return min(samples, default=None)


def average_running_stats(module: nn.Module) -> None:
    """Replace the running statistics of all BatchNorms by their means over the processes, in place; call it on every process.

    An update is linear in the statistics of the batch. So, with groups, the means are what one process with the whole batch has,
    provided that nothing else overwrote them: DistributedDataParallel must be built with `broadcast_buffers=False`.
    """
    if distributed.world_size() == 1:
        return
    buffers = _running_stats(module)
    if not buffers:
        return
    # In double precision and in one message: the mean of equal values is then the value itself.
    flat = torch.cat([buffer.double().flatten() for buffer in buffers])
    means = distributed.mean(flat).split([buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))


def _running_stats(module: nn.Module) -> list[torch.Tensor]:
    buffers: list[Any] = []
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            buffers += [part.running_mean, part.running_var]
    return [buffer for buffer in buffers if buffer is not None]


def has_running_stats(module: nn.Module) -> bool:
    """Return whether a module keeps statistics of BatchNorm, which averages of weights leave wrong."""
    return bool(_running_stats(module))


@contextlib.contextmanager
def running_stats_anew(module: nn.Module) -> Iterator[None]:
    """Forget the running statistics; the forward passes of the block make them anew, each counting alike, without a momentum.

    As torch's `update_bn` does (Izmailov et al. 2018, arXiv:1803.05407, after averaging weights), but only BatchNorms are in training
    mode: dropout and stochastic depth stay off. Passes should have about equal numbers of samples, drawn at random. Where no pass is
    made in the block, the statistics are those of a new module.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    modes = {part: part.training for part in module.modules()}
    momenta = [part.momentum for part in norms]
    module.eval()
    for part in norms:
        part.reset_running_stats()
        part.momentum = None
        part.train()
    try:
        yield
    finally:
        for part, momentum in zip(norms, momenta, strict=True):
            part.momentum = momentum
        for each, training in modes.items():
            each.training = training


@contextlib.contextmanager
def running_stats_frozen(module: nn.Module) -> Iterator[None]:
    """Let no forward pass in training mode change the running statistics, nor count as a batch.

    For the first of the two passes of GradCache (Gao et al. 2021), which would otherwise count every sample twice.
    """
    tracking = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for part in tracking:
        part.track_running_stats = False  # torch then normalises by the batch and passes no buffers; nothing is multiplied by 0
    try:
        yield
    finally:
        for part in tracking:
            part.track_running_stats = True


@contextlib.contextmanager
def running_stats_collected(module: nn.Module, *, plain: bool = False) -> Iterator[None]:
    """Make one update of the running statistics of several forward passes: the mean over all their groups.

    So a step in chunks ends with the running statistics of a step at once, with `group_batch_norm`. Nothing is updated where
    the block ends with an error.

    Args:
        module: whose BatchNorms collect.
        plain: BatchNorms without groups collect, too: the mean over the passes, also where a pass is done again for
            activations that were not kept. Else they go on updating with each pass.
    """
    grouped = [part for part in module.modules() if isinstance(part, GroupBatchNorm)]
    others = [part for part in module.modules() if isinstance(part, _BatchNorm) and not isinstance(part, GroupBatchNorm)]
    passes = [_Passes(part) for part in others if plain and part.track_running_stats and part.running_mean is not None]
    for part in grouped:
        part.collecting = True
    try:
        yield
    except BaseException:
        for part in grouped:
            part.collected, part.collecting = None, False
        for collection in passes:
            collection.end(update=False)
        raise
    for part in grouped:
        part.commit()
    for collection in passes:
        collection.end(update=True)


class _Passes:
    """The statistics of a BatchNorm without groups, summed over its passes. With momentum 1 a pass leaves its own in the buffers."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm, self.momentum = norm, norm.momentum
        self.before = [buffer.clone() for buffer in norm.buffers(recurse=False)]
        self.total = torch.zeros_like(torch.stack(self._statistics()))
        self.passes = 0
        norm.momentum = 1.0
        self.hook = norm.register_forward_hook(self._take)

    def _statistics(self) -> list[torch.Tensor]:
        buffers: list[Any] = [self.norm.running_mean, self.norm.running_var]
        return buffers

    def _take(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:
            self.total += torch.stack(self._statistics())
            self.passes += 1

    @torch.no_grad()
    def end(self, *, update: bool) -> None:
        """Put momentum and statistics back, and make one update with the mean over the passes."""
        self.hook.remove()
        self.norm.momentum = self.momentum
        for buffer, before in zip(self.norm.buffers(recurse=False), self.before, strict=True):
            buffer.copy_(before)
        if not update or not self.passes:
            return
        tracked: Any = self.norm.num_batches_tracked
        tracked.add_(1)
        rate: Any = 1.0 / tracked.to(self.total.dtype) if self.momentum is None else self.momentum
        for buffer, mean in zip(self._statistics(), self.total / self.passes, strict=True):
            buffer.lerp_(mean, rate)
