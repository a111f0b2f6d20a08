"""One setting among several, chosen on images that were not fitted: validation data, or folds within the shots; never on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FOLDS = 5
# Logits of all folds beyond which one fold is held out instead of each in turn: 2e8 are 1.6 GB in double precision.
MOST_LOGITS = 2 * 10**8
# Fits of all draws and folds for one setting: weights in the order of `Held.weights`, and where the last ones ended.
Fit = Callable[[float, "torch.Tensor", "torch.Tensor | None"], "torch.Tensor"]


@dataclass(frozen=True)
class Held:
    """Which images each fit sees and which judge it.

    Attributes:
        weights: (S, F, n), 1 where fit F of a draw sees an image.
        how: in words, for rows.
    """

    weights: torch.Tensor
    how: str


@dataclass(frozen=True)
class Chosen:
    """The setting of each draw, and how it was found; `edge` counts draws whose setting is the first or the last one."""

    values: tuple[float, ...]
    how: str
    edge: int


def folds(places: torch.Tensor, draws: int, classes: int) -> Held | None:
    """Return folds within the shots; None where no class has two images.

    Args:
        places: of each image within its class in the order of the draw, (n,), from 0: fold F holds out places F, F + FOLDS, …
    """
    import torch

    count = min(FOLDS, int(places.max()) + 1)
    if count < 2:
        return None
    n = len(places)
    turns = 1 if draws * count * n * classes > MOST_LOGITS else count
    weights = torch.stack([places % count != turn for turn in range(turns)]).double()
    how = f"{count} folds within the shots" if turns == count else f"a held-out fold of {count} within the shots"
    return Held(weights[None].expand(draws, -1, -1), how)


def choose(values: Sequence[float], held: Held, fit: Fit, judge: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Chosen:
    """Return for each draw the value that gives most held-out images right; of equal ones the lower log-loss, then the first value.

    Args:
        fit: fits all draws and folds for a value; it may begin where the value before ended.
        judge: from such fits to (images right, log-loss) of the held-out images, (S,) each.
    """
    import torch

    right, losses, before = [], [], None
    for value in values:
        before = fit(value, held.weights, before)
        correct, loss = judge(before)
        right.append(correct)
        losses.append(loss)
    hits, costs = torch.stack(right), torch.stack(losses)  # (values, S)
    best = hits.amax(0)
    costs = torch.where(hits == best, costs, torch.inf)
    places = costs.argmin(0).tolist()
    edge = sum(1 for place in places if len(values) > 2 and place in (0, len(values) - 1))
    return Chosen(tuple(values[place] for place in places), held.how, edge)
