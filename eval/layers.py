"""Features of every block or stage of an image tower, pooled over space, by forward hooks.

Blocks are the library's own: `transformer.resblocks` of open_clip's ViTs, `blocks` and `stages` of timm's, `encoder.layers` and
`features` of torchvision's, and `layer1` … `layer4` (with the stem before them) of ResNets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards.core.config import digest
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Containers whose children are blocks, by their path in the tower, the first that is there.
_CONTAINERS = ("transformer.resblocks", "blocks", "stages", "encoder.layers", "layers", "features")
_RESNET = ("layer1", "layer2", "layer3", "layer4")
_STEMS = ("maxpool", "avgpool")  # what ends a ResNet's stem: torchvision's and timm's, and open_clip's
CLS, LAST = "cls", "output"
VERSION = 1


@dataclass(frozen=True)
class Place:
    """A part of the features: a layer by its name in the tower, and how it was pooled: `cls`, or the number of tokens; (start, stop)."""

    layer: str
    pooled: str
    start: int
    stop: int


@dataclass(frozen=True)
class Layered:
    """A model whose features are those of all its layers beside each other, each part of unit length.

    `places` is filled by the first batch.
    """

    loaded: Any
    tokens: tuple[int, ...] = (1,)
    places: list[Place] = field(default_factory=list)

    @property
    def model(self) -> Any:
        """The module whose device and mode are set."""
        return self.loaded.model

    @property
    def image_size(self) -> int:
        """Pixels to a side."""
        return int(self.loaded.image_size)

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from images."""
        return tuple(self.loaded.mean)

    @property
    def std(self) -> tuple[float, ...]:
        """What images are divided by."""
        return tuple(self.loaded.std)

    @property
    def digest(self) -> str:
        """Names the weights, the tokens and the rule of pooling."""
        return digest({"checkpoint": self.loaded.digest, "layers": VERSION, "tokens": list(self.tokens)})

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of all layers, (n, sum of widths) float32; `places` says which columns are whose."""
        import torch

        visual = tower_of(self.loaded.model)
        with recorded(visual) as outputs:
            last = self.loaded.embed_images(images)
        parts: list[torch.Tensor] = []
        places: list[Place] = []
        start = 0
        for layer, pooled, part in self._pooled(visual, outputs, last):
            parts.append(torch.nn.functional.normalize(part.float(), dim=-1))
            places.append(Place(layer, pooled, start, start + part.shape[1]))
            start += part.shape[1]
        self.places[:] = places
        return torch.cat(parts, dim=1)

    def _pooled(self, visual: nn.Module, outputs: dict[str, torch.Tensor], last: torch.Tensor) -> Iterator[tuple[str, str, torch.Tensor]]:
        for layer, output in outputs.items():
            grid, cls = as_map(output, visual, len(last))
            if cls is not None:
                yield layer, CLS, cls
            for count in self.tokens:
                yield layer, str(count), pooled(grid, count)
        yield LAST, "1", last


def check_tokens(tokens: Sequence[int]) -> None:
    """Refuse numbers of tokens that make no square.

    Raises:
        UsageError: naming them.
    """
    if not tokens or any(count < 1 or math.isqrt(count) ** 2 != count for count in tokens):
        raise UsageError(f"--tokens {' '.join(map(str, tokens))}", "square numbers: 1, 4, 9, …")


def tower_of(model: Any) -> Any:
    """Return the library's image tower inside a CLIP or a Tower: open_clip's `visual`, or the `trunk` in it."""
    visual = getattr(model, "visual", model)
    return getattr(visual, "trunk", visual)


def blocks_of(visual: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks or stages of an image tower by name, in order.

    Raises:
        UsageError: the tower has none that is known.
    """
    names = dict(visual.named_modules())
    if all(name in names for name in _RESNET):
        stem = [name for name in _STEMS if name in names][:1]
        return {name: names[name] for name in (*stem, *_RESNET)}
    container = next((name for name in _CONTAINERS if name in names and list(names[name].children())), "")
    if not container:
        raise UsageError(f"an image tower of the kind {type(visual).__name__} has no known blocks", f"one with {', '.join(_CONTAINERS)}")
    return {f"{container}.{name}": child for name, child in names[container].named_children()}


@contextmanager
def recorded(visual: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a mapping that a forward pass fills with the output of every block."""
    outputs: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_: Any, __: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple | list) else output

        return keep

    handles = [block.register_forward_hook(hook(name)) for name, block in blocks_of(visual).items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def as_map(output: torch.Tensor, visual: Any, n: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a block's output as a map (n, channels, rows, columns), and its class token (n, channels) where it has one.

    Tokens are (n, tokens, channels), or (tokens, n, channels) in a tower that is not `batch_first`; those before the square of the
    patches are no part of the map, and the first of them is the class token.

    Raises:
        UsageError: the output has another shape.
    """
    if output.ndim == 4:
        channels_last = getattr(visual, "output_fmt", "NCHW") == "NHWC" or type(visual).__name__ == "SwinTransformer"
        return (output.permute(0, 3, 1, 2) if channels_last else output), None
    if output.ndim != 3:
        raise UsageError(f"a block of {type(visual).__name__} gives {output.ndim} dimensions", "maps or tokens")
    tokens = output if output.shape[0] == n else output.transpose(0, 1)
    side = math.isqrt(tokens.shape[1])
    before = tokens.shape[1] - side * side
    if before > 8:  # class and register tokens are 0 to 8: more means that patches make no square
        raise UsageError(f"{tokens.shape[1]} tokens of {type(visual).__name__}", "a square of patches")
    grid = tokens[:, before:].transpose(1, 2).unflatten(2, (side, side))
    return grid, tokens[:, 0] if before else None


def pooled(grid: torch.Tensor, count: int) -> torch.Tensor:
    """Return a map averaged to `count` tokens beside each other, (n, count · channels); a smaller map stays as it is."""
    import torch

    side = math.isqrt(count)
    side = min(side, grid.shape[2], grid.shape[3])
    return torch.nn.functional.adaptive_avg_pool2d(grid.float(), side).flatten(1)
