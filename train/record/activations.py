"""How many bytes autograd keeps between the forward and the backward pass."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import nn


class _Kept:
    """A tensor that is kept for the backward pass, until autograd lets it go."""

    def __init__(self, tensor: torch.Tensor, counter: Activations) -> None:
        self.tensor, self.counter = tensor, counter
        counter.keep(tensor)

    def __del__(self) -> None:
        self.counter.release(self.tensor)


class Activations:
    """A context in which everything that autograd keeps is counted; parameters and buffers, which are there anyway, are not.

    Tensors that share memory count once. What an operation keeps outside autograd's saved tensors is not seen.

    Attributes:
        now: bytes that are kept.
        peak: the most that were kept at once.
    """

    def __init__(self, module: nn.Module) -> None:
        """Prepare to count what is kept of a module's passes."""
        self.now = self.peak = 0
        own = (*module.parameters(), *module.buffers())
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._uses: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def __enter__(self) -> Self:
        """Start to count."""
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop to count."""
        self._hooks.__exit__(kind, error, trace)

    def _pack(self, tensor: torch.Tensor) -> _Kept:
        return _Kept(tensor.detach(), self)

    def keep(self, tensor: torch.Tensor) -> None:
        """Take note of a tensor that is kept once more."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._own:
            return
        if place not in self._uses:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self._uses[place] = self._uses.get(place, 0) + 1

    def release(self, tensor: torch.Tensor) -> None:
        """Take note of a tensor that is kept once less."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._own:
            return
        self._uses[place] -= 1
        if not self._uses[place]:
            del self._uses[place]
            self.now -= storage.nbytes()
