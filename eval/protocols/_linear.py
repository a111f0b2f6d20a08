"""The fits behind `evaluate linear`: all draws of a number of shots together, on as few columns as they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.linear import choice, descent, logistic
from eval.protocols import _shots

if TYPE_CHECKING:
    import numpy as np
    import torch

    from eval.features import Encoded
    from eval.protocols.linear import Config

ONE_SHOT = 1.0  # C where nothing can be held out
# Bytes of the numbers that L-BFGS keeps for the fits of one batch (2 · MEMORY + 5 times their weights); more draws go one by one.
MOST_BYTES = 2**30
# Multiplications of one pass over a draw's images below which a second thread slows it: 2e7 take 3 ms.
SMALL = 2 * 10**7


@dataclass(frozen=True)
class Fits:
    """The scores of the test images after each draw, (n, classes) float32 each; what was chosen; fits that did not converge."""

    scores: list[np.ndarray]
    chosen: choice.Chosen
    open: int


@dataclass(frozen=True)
class Draws:
    """Draws of as many images each: features (S, n, d), labels (S, n), and each image's place within its class, (n,)."""

    x: torch.Tensor
    y: torch.Tensor
    places: torch.Tensor
    classes: int
    seeds: list[int]


def fits_of(config: Config, sides: _shots.Sides, val: Encoded | None, k: int | None) -> Fits:
    """Fit the classifiers of all draws of k shots, choose their setting, and score the test images."""
    if val is not None and len(val.examples.classes) != len(sides.test.examples.classes):
        val = _shots.like(val, sides.test)
    seeds = list(_shots.seeds_of(config, k))
    per_draw = 8 * sides.train.features.shape[1] * len(sides.test.examples.classes) * (2 * logistic.MEMORY + 5) * choice.FOLDS
    together = max(1, MOST_BYTES // per_draw)
    parts = [_fits(config, sides, val, k, seeds[at : at + together]) for at in range(0, len(seeds), together)]
    chosen = choice.Chosen(
        tuple(value for part in parts for value in part.chosen.values), parts[0].chosen.how, sum(part.chosen.edge for part in parts)
    )
    return Fits([scores for part in parts for scores in part.scores], chosen, sum(part.open for part in parts))


@contextmanager
def _threads(numbers: int) -> Iterator[None]:
    """Keep small fits on one thread: their products take microseconds, and threads that wait for each other milliseconds."""
    import torch

    before = torch.get_num_threads()
    if numbers < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fits(config: Config, sides: _shots.Sides, val: Encoded | None, k: int | None, seeds: list[int]) -> Fits:
    draws = _drawn(sides, k, seeds)
    size = draws.x.numel() * draws.classes * choice.FOLDS
    with _threads(min(size, size * draws.x.shape[1] // draws.x.shape[2])):
        return _fitted(config, draws, sides.test.features, val)


def _fitted(config: Config, draws: Draws, test: np.ndarray, val: Encoded | None) -> Fits:
    import numpy as np

    judged = None if val is None else val.features
    if config.solver == "lbfgs":
        space = Space.of(draws.x)
        draws = Draws(space.inside(draws.x), draws.y, draws.places, draws.classes, draws.seeds)
        made = _logistic(config, draws, None if judged is None else space.inside_of(judged), val)
        scores = logistic.scores(made[0], space.inside_of(test))
    else:
        made = _descent(config, draws, None if judged is None else _double(judged), val)
        scores = logistic.scores(made[0], _double(test))
    return Fits([part.astype(np.float32) for part in scores[:, 0].numpy()], made[1], made[2])


def _double(features: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(features).double()


def _drawn(sides: _shots.Sides, k: int | None, seeds: list[int]) -> Draws:
    import numpy as np
    import torch

    examples = sides.train.examples
    chosen = [_shots.draw(examples, k, seed) for seed in seeds]
    labels = examples.labels[chosen[0]]  # of every draw: classes follow each other, each with as many images
    starts = np.searchsorted(labels, labels)
    x = torch.from_numpy(np.stack([sides.train.features[positions] for positions in chosen])).double()
    y = torch.from_numpy(np.stack([labels] * len(seeds)))
    return Draws(x, y, torch.from_numpy(np.arange(len(labels)) - starts), len(examples.classes), seeds)


@dataclass(frozen=True)
class Space:
    """The columns that a draw's fits can use: features less their mean, at the scale where their mean square length is 1.

    With fewer images than features, the weights of an L2-penalised fit are sums of the images, so these are turned into as many
    columns as there are images: the same classifier from a smaller problem.
    """

    mean: torch.Tensor  # (S, 1, d)
    scale: torch.Tensor  # (S, 1, 1)
    axes: torch.Tensor | None  # (S, d, r), orthonormal

    @classmethod
    def of(cls, x: torch.Tensor) -> Space:
        """Return the space of draws (S, n, d)."""
        import torch

        mean = x.mean(1, keepdim=True)
        centred = x - mean
        scale = centred.square().sum(-1).mean(-1)[:, None, None].sqrt().clamp_min(1e-12)
        n, d = x.shape[1:]
        axes = torch.linalg.qr(centred.mT)[0] if n < d else None
        return cls(mean, scale, axes)

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (S, n, d), or (n, d) for all draws alike, in the space: (S, n, r)."""
        centred = (x - self.mean) / self.scale
        return centred if self.axes is None else centred @ self.axes

    def inside_of(self, features: np.ndarray) -> torch.Tensor:
        """Return features (n, d) of other images in the space of each draw, (S, n, r)."""
        return self.inside(_double(features)[None])


Made = tuple["torch.Tensor", choice.Chosen, int]


def _logistic(config: Config, draws: Draws, judged: torch.Tensor | None, val: Encoded | None) -> Made:
    import torch

    def fit(c: float, weights: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        same = torch.full(weights.shape[:2], c, dtype=weights.dtype)
        return logistic.fit(draws.x, draws.y, draws.classes, weights, same, before).weights

    chosen = _chosen(config.grid(), ONE_SHOT, draws, fit, judged, val)
    c = torch.tensor(chosen.values, dtype=torch.float64)[:, None]
    final = logistic.fit(draws.x, draws.y, draws.classes, _all(draws), c)
    return final.weights, chosen, final.open


def _descent(config: Config, draws: Draws, judged: torch.Tensor | None, val: Encoded | None) -> Made:
    import torch

    recipe = config.recipe()
    assert recipe is not None

    def fit(rate: float, weights: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        rates = torch.full(weights.shape[:2], rate, dtype=weights.dtype)
        return descent.train(draws.x, draws.y, draws.classes, weights, rates, recipe, draws.seeds)

    grid = config.grid()
    chosen = _chosen(grid, grid[len(grid) // 2], draws, fit, judged, val)
    rates = torch.tensor(chosen.values, dtype=torch.float64)[:, None]
    return descent.train(draws.x, draws.y, draws.classes, _all(draws), rates, recipe, draws.seeds), chosen, 0


def _all(draws: Draws) -> torch.Tensor:
    """Return the weights of fits that see all images, (S, 1, n)."""
    return draws.x.new_ones((draws.x.shape[0], 1, draws.x.shape[1]))


def _chosen(
    grid: tuple[float, ...], usual: float, draws: Draws, fit: choice.Fit, judged: torch.Tensor | None, val: Encoded | None
) -> choice.Chosen:
    """Choose the setting of each draw: on validation images, else by folds, else the usual one."""
    import torch

    count = len(draws.seeds)
    if len(grid) == 1:
        return choice.Chosen(grid * count, "stated", 0)
    if judged is not None and val is not None:
        wanted = torch.from_numpy(val.examples.labels)

        def by_validation(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return _judged(logistic.scores(weights, judged)[:, 0], wanted.expand(count, -1), torch.ones((), dtype=torch.float64))

        return choice.choose(grid, choice.Held(_all(draws), "validation images"), fit, by_validation)
    held = choice.folds(draws.places, count, draws.classes)
    if held is None:
        return choice.Chosen((usual,) * count, "fixed: one shot leaves none to choose with", 0)

    def by_folds(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logistic.scores(weights, draws.x)
        labels = draws.y[:, None].expand(-1, logits.shape[1], -1)
        correct, loss = _judged(logits, labels, 1 - held.weights)
        return correct.sum(-1), loss.sum(-1)

    return choice.choose(grid, held, fit, by_folds)


def _judged(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (images right, log-loss), both weighted and summed over images."""
    import torch

    correct = (logits.argmax(-1) == labels).double() * weights
    loss = -torch.log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0] * weights
    return correct.sum(-1), loss.sum(-1)
