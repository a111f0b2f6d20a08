"""Norms of the gradient by layer, and spikes of the first one.

A divergence shows first in the first layer: its gradient jumps some steps before the loss does (Chen et al. 2021, MoCo-v3,
section 4; Wortsman et al. 2023). So that layer is looked at in every step, the others when a line of the log is written.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from train.step import Trained

SPIKE = 5.0  # times the median of the steps before
REMEMBERED = 100  # steps whose median a new one is compared with
_LEAST = 10  # steps before anything is called a spike


class GradientNorms:
    """Collects norms, which stay on the device until `row`."""

    def __init__(self) -> None:
        self._first: list[torch.Tensor] = []
        self._layers: dict[str, torch.Tensor] = {}
        self._history: deque[float] = deque(maxlen=REMEMBERED)

    def take(self, trained: Trained, *, every_layer: bool) -> None:
        """Take note of the norms after a backward pass."""
        named = [(name, p.grad) for name, p in trained.named_parameters() if p.grad is not None]
        if not named:
            return
        first = first_layer(named)
        chosen = named if every_layer else [(name, gradient) for name, gradient in named if layer_of(name) == first]
        norms = torch._foreach_norm([gradient for _, gradient in chosen])
        by_layer: dict[str, list[torch.Tensor]] = {}
        for (name, _), norm in zip(chosen, norms, strict=True):
            by_layer.setdefault(layer_of(name), []).append(norm)
        totals = {layer: torch.stack(parts).norm() for layer, parts in by_layer.items()}
        self._first.append(totals[first])
        if every_layer:
            self._layers = totals

    def row(self) -> dict[str, Any]:
        """Return what a line of the log says: norms by layer, the first layer's largest one since the last line, and its spikes."""
        if not self._first:
            return {}
        values = torch.stack(self._first).tolist()
        spikes = 0
        for value in values:
            if len(self._history) >= _LEAST and value > SPIKE * sorted(self._history)[len(self._history) // 2]:
                spikes += 1
            self._history.append(value)
        row: dict[str, Any] = {"first_layer_grad_norm": max(values), "spikes": spikes}
        if self._layers:
            norms = torch.stack(list(self._layers.values())).tolist()
            row["grad_norms"] = dict(zip(self._layers, norms, strict=True))
        self._first, self._layers = [], {}
        return row


def first_layer(named: list[tuple[str, torch.Tensor]]) -> str:
    """Return the first layer of the image tower: that of the first convolution, or of the first matrix where none is trained.

    The first parameter is none of it: in open_clip's CLIP it is the text's positions, in its ViTs the class token.
    """
    images = [(name, tensor) for name, tensor in named if ".visual." in name] or named
    for dimensions in (4, 2):
        for name, tensor in images:
            if tensor.ndim == dimensions:
                return layer_of(name)
    return layer_of(images[0][0])


def layer_of(name: str) -> str:
    """Return the layer that a parameter belongs to: its name up to the first number, or without its last part.

    `model.visual.transformer.resblocks.3.attn.in_proj_weight` is of `model.visual.transformer.resblocks.3`.
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1]) or name
