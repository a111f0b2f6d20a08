"""Linear classifier on frozen features: logistic regression, its regularisation chosen without the test set; or steps, as published.

`--solver lbfgs` is scikit-learn's `LogisticRegression` (multinomial, L2, intercept not penalised) on features less their mean, at one
scale: the mean square length of the draw's images is 1, so that one grid of C serves all models. C is chosen on validation images (`--val`,
or a packed set's own), else by folds within the shots; one shot per class leaves nothing to choose with, so C is then 1. The
classifier is fitted on the shots alone. `--solver adamw` and `sgd` train as wise-ft and SLIP do, on features as the model gives
them; there the learning rate is chosen the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from eval.linear.descent import Recipe
from eval.protocols import _shots
from eval.protocols._shots import FewShotOrPixels
from shards.core.config import option
from shards.core.errors import UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.protocols._linear import Fits
    from eval.protocols.base import Bench, Scores, Sets

VERSION = 1
C_GRID = tuple(10.0 ** (half / 2) for half in range(-4, 9))
RATES = {"adamw": (1e-4, 3e-4, 1e-3, 3e-3), "sgd": (0.1, 1.0, 10.0)}
DECAY = {"adamw": 0.1, "sgd": 0.0}


@dataclass(frozen=True)
class Config(FewShotOrPixels):
    """Flags of `evaluate linear`."""

    PROTOCOL: ClassVar[str] = "linear"

    val: str = option("", "labelled validation set that chooses C or the learning rate; without, folds within the shots", metavar="PATH")
    solver: Literal["lbfgs", "adamw", "sgd"] = option("lbfgs", "lbfgs: logistic regression; adamw: wise-ft's steps; sgd: SLIP's")
    c: tuple[float, ...] = option(C_GRID, "C of lbfgs to choose from, one or more", above=0)
    lr: tuple[float, ...] = option((), "learning rates of adamw or sgd to choose from (default: 1e-4 3e-4 1e-3 3e-3; 0.1 1 10)", above=0)
    epochs: int = option(128, "epochs of adamw and sgd", least=1)
    batch: int = option(128, "images in a step of adamw and sgd", least=1)
    weight_decay: float | None = option(None, "of adamw and sgd (default: 0.1; 0)", least=0)
    warmup: float = option(0.05, "steps of warm-up of adamw and sgd; below 1 a share of all steps", least=0)

    def recipe(self) -> Recipe | None:
        """Return how the layer is trained in steps; None for lbfgs."""
        if self.solver == "lbfgs":
            return None
        decay = DECAY[self.solver] if self.weight_decay is None else self.weight_decay
        return Recipe(self.solver, self.epochs, self.batch, decay, self.warmup)

    def grid(self) -> tuple[float, ...]:
        """Return the settings to choose from, in rising order."""
        return tuple(sorted(set(self.c if self.solver == "lbfgs" else self.lr or RATES[self.solver])))


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if any(value <= 0 for value in (*config.c, *config.lr)):
        raise UsageError("--c and --lr", "numbers above 0")
    if config.val and not config.train:
        raise UsageError("--val without --train", "both, or a packed set", "--train PATH")
    return _shots.prepare(config)


def check(config: Config, sets: Sets, examples: Examples) -> None:
    """Refuse what `_shots.check` refuses, validation data with other classes, and a warm-up that takes all steps.

    Raises:
        UsageError: so it is.
    """
    _shots.check(config, sets, examples)
    recipe = config.recipe()
    if recipe is not None:
        for k in prepare(config):
            recipe.warmup_steps(_images(config, sets, examples, k))
    path = _shots.val_path(config, config.val)
    if path:
        _shots.same_classes(path, sets.open(path, config.classnames), examples)


def _images(config: Config, sets: Sets, examples: Examples, k: int | None) -> int:
    """Return how many images a draw has at most."""
    if k is not None:
        return k * len(examples.classes)
    path = _shots.train_path(config)
    return len(sets.open(path, config.classnames)) if path else len(examples) // 2


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5, mean_per_class, nll, ece and brier for every k.

    Raises:
        UsageError: a class with fewer than k training images, other classes, or flags that make no sense.
    """
    from eval.protocols._linear import fits_of

    shots = prepare(config)
    whole = _shots.checked_sides(config, bench, test, shots)
    val = _validation(config, bench, test, whole)
    for k in shots:
        sides = _shots.for_shots(whole, k, config.small_classes)
        made = fits_of(config, sides, val, k)
        _tell(config, made, k)
        settings = {**sides.settings, **_settings(config), "chosen": list(made.chosen.values), "chosen_by": made.chosen.how}
        for name, score in _shots.over_draws(sides, made.scores, k, probabilistic=True):
            yield name, score.having(k="all" if k is None else k, settings=settings)


def _settings(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = {"solver": config.solver, "grid": list(config.grid()), "seeds": config.seeds}
    recipe = config.recipe()
    if recipe is not None:
        settings |= {"epochs": recipe.epochs, "batch": recipe.batch, "weight_decay": recipe.weight_decay, "warmup": recipe.warmup}
    return settings


def _validation(config: Config, bench: Bench, test: Encoded, whole: _shots.Sides) -> Encoded | None:
    """Return the encoded validation set, standardised as the training images are where features are raw pixels; None without one."""

    val = _shots.validation(_shots.val_path(config, config.val), config, bench, test)
    if val is None:
        return None
    both = val.examples.shared_with(test.examples)
    note(len(both), "validation images are test images too, byte for byte", f"such as {val.examples.ids[both[0]]}" if len(both) else "")
    return whole.alike(val)


def _tell(config: Config, made: Fits, k: int | None) -> None:
    """Tell at the end of settings at the edge of what was tried, and of fits that did not converge."""
    what, shots = ("C" if config.solver == "lbfgs" else "learning rate"), f"with k={'all' if k is None else k}"
    note(made.chosen.edge, f"[draw|draws] chose the smallest or the largest {what} of the grid", f"{shots}; widen it")
    note(made.open, "[fit|fits] of the linear classifier stopped before [it|they] converged", shots)
