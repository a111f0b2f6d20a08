"""Losses by sample: their means by source, and the last one of every sample.

A sample is (source, position), so what stands in for an undecodable sample is itself. Everything here is on the host: the
log hands over what it read from the device when a line was due.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shards.core.errors import RunError
from train import distributed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

BYTES_PER_SAMPLE = 12


def source_names(paths: Sequence[str]) -> list[str]:
    """Return a name for each source: its path as given; a build that is named again gets `#2`, `#3`, …"""
    names: list[str] = []
    for path in paths:
        times = 1 + sum(name.rpartition("#")[0] == path or name == path for name in names)
        names.append(path if times == 1 else f"{path}#{times}")
    return names


def means_by_source(names: Sequence[str], sources: Ints, losses: Floats) -> dict[str, float | None]:
    """Return the mean loss of the samples of each source, over all ranks; None where there were none.

    Args:
        names: of the sources.
        sources: the number of each sample's source, of any shape.
        losses: of the same samples; NaN where a sample has none.
    """
    import numpy as np

    known = ~np.isnan(losses)
    sums = np.bincount(sources[known], losses[known].astype(np.float64), len(names))
    counts = np.bincount(sources[known], minlength=len(names))
    ranks = distributed.gather_objects((sums, counts))
    all_sums = np.sum([rank_sums for rank_sums, _ in ranks], axis=0)
    all_counts = np.sum([rank_counts for _, rank_counts in ranks], axis=0)
    return {name: float(total / n) if n else None for name, total, n in zip(names, all_sums, all_counts, strict=True)}


class SampleLosses:
    """The loss of each sample when it was last seen, kept by the first rank: 12 bytes a sample, in memory and in checkpoints.

    Attributes:
        loss: (samples,) float32, 0 where a sample was never seen; the mean, where one step had it several times.
        seen: how often it was seen with a loss, (samples,) int32.
        last: the step that saw it last, counted as in the log, from 1, (samples,) int32; 0 for never.
    """

    def __init__(self, samples: Sequence[int]) -> None:
        """Make room for the samples of each source."""
        import numpy as np

        self.starts = np.concatenate([[0], np.cumsum(samples, dtype=np.int64)])
        total = int(self.starts[-1])
        # zeros take no memory before they are written to, so the other ranks have none
        self.loss = np.zeros(total, np.float32)
        self.seen = np.zeros(total, np.int32)
        self.last = np.zeros(total, np.int32)

    def take(self, steps: Sequence[int], sources: Ints, positions: Ints, losses: Floats) -> None:
        """Take the losses of some steps from all ranks. Every rank calls it; the order of ranks changes nothing.

        Args:
            steps: s of them, as the log counts them.
            sources: number of each sample's source, (s, n) of this rank.
            positions: where it stands there, (s, n).
            losses: (s, n); NaN where a sample has none.
        """
        import numpy as np

        here = ((self.starts[sources] + positions).astype(np.uint32), losses)
        ranks = distributed.gather_objects(here)
        if distributed.rank() != 0:
            return
        for row, step in enumerate(steps):
            numbers = np.concatenate([of_rank[row] for of_rank, _ in ranks])
            values = np.concatenate([of_rank[row] for _, of_rank in ranks])
            self._take_step(step, numbers, values)

    def _take_step(self, step: int, numbers: NDArray[np.uint32], values: Floats) -> None:
        import numpy as np

        known = ~np.isnan(values)
        distinct, which, times = np.unique(numbers[known], return_inverse=True, return_counts=True)
        sums = np.bincount(which, values[known].astype(np.float64), len(distinct))
        self.loss[distinct] = sums / times
        self.seen[distinct] += times.astype(np.int32)
        self.last[distinct] = step

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint keeps: tensors over the same memory."""
        import torch

        return {name: torch.from_numpy(getattr(self, name)) for name in ("loss", "seen", "last")}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept.

        Raises:
            RunError: it is of another number of samples.
        """
        for name in ("loss", "seen", "last"):
            values = state[name].numpy()
            if len(values) != len(self.loss):
                raise RunError(f"losses of {len(values):,} samples in the checkpoint", f"{len(self.loss):,}, as many as the builds have")
            getattr(self, name)[:] = values
