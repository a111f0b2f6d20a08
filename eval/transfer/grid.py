"""All trainings of one trunk on one set: strategies × shots × draws × learning rates, and the scores of those that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eval.protocols import _shots
from eval.transfer import heads
from eval.transfer.inputs import trunk_of
from eval.transfer.judge import Judge
from eval.transfer.tuning import Schedule, Trunk, Tuned, tune_on
from shards.core.console import Progress
from shards.core.errors import RunError, UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np
    import torch

    from eval.metrics import Score
    from eval.protocols.base import Bench
    from eval.protocols.transfer import Config
    from shards.manifest import Manifest
    from train.run import Run

ALPHAS = tuple(step / 10 for step in range(11))
ALPHA = 0.5  # wise-ft's recommendation
ENOUGH_SHOTS = 5  # from so many per class on, a fifth of the shots is held out to choose the learning rate
HELD_OUT = 0.2
ON_TEST, ON_VAL, ON_SHOTS, FIXED = "best on test", "validation set", "a fifth of the shots", "fixed in advance"

LINES = ("wise-ft", "wise-ft-fisher")  # between the start and the end of a training of ft

Begin = Callable[["Run"], None] | None
Between = Callable[[float], "dict[str, torch.Tensor]"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The models of all draws at the learning rate that was chosen, and how it was."""

    lr: float
    how: str
    models: list[Tuned]
    accuracies: dict[float, float]


class Study:
    """The trainings of one trunk on one labelled set."""

    def __init__(self, config: Config, bench: Bench, sides: _shots.Sides, build: Manifest) -> None:
        """Take the trunk, the encoded images, and the build that trainings read."""
        from eval.protocols.transfer import schedule_of

        self.config = config
        self.sides = sides
        self.build = build
        self.trunk = trunk_of(config)
        self.schedule = schedule_of(config, bench.encoder.device)
        size = bench.encoder.loaded.image_size
        self.test = Judge(sides.test.examples, size, bench.encoder)
        path = _shots.val_path(config, config.val)
        val = _shots.validation(path, config, bench, sides.test)
        self.val = Judge(val.examples, size, bench.encoder) if val is not None else None
        self._size, self._encoder = size, bench.encoder
        self._leaks = 0 if val is None else len(val.examples.shared_with(sides.test.examples))
        note(self._leaks, "validation [image is a test image|images are test images] too: the learning rate is chosen on test", path)
        self._progress: Progress | None = None
        self._zero_shot = self._first_head()
        self._probes: dict[tuple[int, bytes], np.ndarray] = {}

    def run(self, shots: list[int | None]) -> Iterator[tuple[str, Score]]:
        """Yield the metrics of every strategy at every number of shots."""
        with Progress(f"transfer {self.sides.test.examples.name}", sum(map(self.trainings, shots)), "trainings") as progress:
            self._progress = progress
            for k in shots:
                yield from self.scores(k)

    def trainings(self, k: int | None) -> int:
        """Return how many trainings a number of shots takes."""
        grid = len(self.config.grid())
        draws = len(_shots.seeds_of(self.config, k))
        how = self.how(k)
        each = {FIXED: 1, ON_SHOTS: grid + 1}.get(how, grid)
        return each * draws * len(self._trained())

    def how(self, k: int | None) -> str:
        """Return what the learning rate is chosen on at a number of shots."""
        if len(self.config.grid()) == 1:
            return FIXED
        if self.config.procedure == "paper":
            return ON_TEST
        if self.val is not None:
            return ON_VAL
        return ON_SHOTS if k is None or k >= ENOUGH_SHOTS else FIXED

    def _trained(self) -> list[str]:
        """Return the strategies that train: those of LINES come from the trainings of `ft`."""
        return list(dict.fromkeys("ft" if name in LINES else name for name in self.config.strategies))

    def scores(self, k: int | None) -> Iterator[tuple[str, Score]]:
        """Yield the metrics of every strategy at k shots."""
        draws = [_shots.draw(self.sides.train.examples, k, seed) for seed in _shots.seeds_of(self.config, k)]
        for name in self._trained():
            chosen = self._chosen(name, k, draws)
            if name in self.config.strategies:
                yield from self._rows(name, k, chosen, [self.test.logits(model.classifier) for model in chosen.models], {})
            for line in LINES if name == "ft" else ():
                if line in self.config.strategies:
                    yield from self._on_line(line, k, chosen, draws)

    def _on_line(self, name: str, k: int | None, chosen: Chosen, draws: list[np.ndarray]) -> Iterator[tuple[str, Score]]:
        """Yield the metrics at α = 0.5, with the accuracies of all α among the settings."""
        weigh = self._by_fisher if name == "wise-ft-fisher" else _evenly
        lines = [self._line(model, weigh(model, draw, seed)) for seed, (model, draw) in enumerate(zip(chosen.models, draws, strict=True))]
        labels = self.sides.test.examples.labels
        curve = {alpha: sum(accuracy_of(line[at], labels) for line in lines) / len(lines) for at, alpha in enumerate(ALPHAS)}
        middle = [line[ALPHAS.index(ALPHA)] for line in lines]
        settings = {"alpha": ALPHA, "acc1_by_alpha": {f"{alpha:g}": round(value, 6) for alpha, value in curve.items()}}
        yield from self._rows(name, k, chosen, middle, settings)

    def _line(self, model: Tuned, between: Between) -> list[np.ndarray]:
        """Return the logits of the models between a training's start and its end, one for each α."""
        return [self.test.logits(model.at(between(alpha))) for alpha in ALPHAS]

    def _by_fisher(self, model: Tuned, draw: np.ndarray, seed: int) -> Between:
        """Return the weights at α, each end's weighing by its Fisher information on the first training images of a draw."""
        from eval.transfer import fisher
        from train.models.average import interpolate_by_fisher

        shown = Judge(self.sides.train.examples.take(draw[: fisher.MOST_IMAGES]), self._size, self._encoder)
        ends = (model.at(model.start), model.classifier)
        of_start, of_end = (fisher.diagonal(end, shown.images(end), seed) for end in ends)
        return lambda alpha: interpolate_by_fisher(model.start, model.end, alpha, of_start, of_end)

    def _rows(self, name: str, k: int | None, chosen: Chosen, runs: list[np.ndarray], more: dict[str, Any]) -> Iterator[tuple[str, Score]]:
        config = self.config
        settings = {
            **_shots.for_shots(self.sides, k, config.small_classes).settings,
            "lr": chosen.lr,
            "grid": list(config.grid()),
            "chosen_by": chosen.how,
            "acc1_by_lr": {f"{lr:g}": round(value, 6) for lr, value in chosen.accuracies.items()},
            "epochs": config.epochs,
            "batch": config.batch,
            "weight_decay": config.weight_decay,
            "augment": self.schedule.augment,
            "tune": config.tune,
            "procedure": config.procedure,
            "head": self._head_of(name),
            "seeds": config.seeds,
            **more,
        }
        if self.config.procedure == "paper":
            settings["epoch"] = [model.epoch for model in chosen.models]
            settings["selected_on"] = "test"
        elif chosen.how == ON_TEST or (chosen.how == ON_VAL and self._leaks):
            settings["selected_on"] = "test"
        elif chosen.lr in chosen.accuracies:
            settings["val"] = chosen.accuracies[chosen.lr]
        for metric, score in _shots.over_draws(self.sides, runs, k, probabilistic=True):
            yield metric, score.having(k="all" if k is None else k, settings=settings, protocol=name)

    def _chosen(self, name: str, k: int | None, draws: list[np.ndarray]) -> Chosen:
        """Train all draws at the learning rates that have to be tried, and return the models at the best one."""
        grid = self.config.grid()
        how = self.how(k)
        if how == FIXED:
            lr = grid[min(1, len(grid) - 1)]
            return Chosen(lr, how, self._all_of(name, k, draws, lr), {})
        if how == ON_TEST:
            return self._by(self.test, how, name, k, draws)
        if how == ON_VAL and self.val is not None:
            return self._by(self.val, how, name, k, draws)
        tried = {lr: self._held_out(name, k, draws, lr) for lr in grid}
        accuracies = {lr: accuracy for lr, accuracy in tried.items() if accuracy is not None}
        if not accuracies:
            self._whole([], name, k)
        lr = best_of(accuracies)
        return Chosen(lr, how, self._all_of(name, k, draws, lr), accuracies)

    def _by(self, judge: Judge, how: str, name: str, k: int | None, draws: list[np.ndarray]) -> Chosen:
        """Choose among models that were trained on all shots."""
        accuracies: dict[float, float] = {}
        kept: list[Tuned] = []
        for lr in self.config.grid():
            models = [self._train(name, k, draw, lr, seed) for seed, draw in enumerate(draws)]
            whole = [model for model in models if model is not None]
            if len(whole) < len(models):
                continue  # a learning rate at which a draw diverges cannot be chosen
            accuracies[lr] = sum(judge.accuracy(model.classifier) for model in whole) / len(models)
            if best_of(accuracies) == lr:
                kept = whole
        self._whole(kept, name, k)
        return Chosen(best_of(accuracies), how, kept, accuracies)

    def _held_out(self, name: str, k: int | None, draws: list[np.ndarray], lr: float) -> float | None:
        """Return the mean accuracy on the held-out fifth of each draw, after training on the rest of it; None where a draw diverged."""
        total = 0.0
        for seed, draw in enumerate(draws):
            kept, held = heads.split(draw, self.sides.train.examples.labels, HELD_OUT)
            model = self._train(name, k, kept, lr, seed)
            if model is None:
                return None
            total += Judge(self.sides.train.examples.take(held), self._size, self._encoder).accuracy(model.classifier)
        return total / len(draws)

    def _all_of(self, name: str, k: int | None, draws: list[np.ndarray], lr: float) -> list[Tuned]:
        models = [self._train(name, k, draw, lr, seed) for seed, draw in enumerate(draws)]
        return self._whole([model for model in models if model is not None], name, k, len(draws))

    def _whole(self, models: list[Tuned], name: str, k: int | None, wanted: int = 1) -> list[Tuned]:
        """Return the models of all draws.

        Raises:
            RunError: a training diverged at the learning rate that was chosen.
        """
        if len(models) < wanted:
            raise RunError(f"{name}, {k or 'all'} shots: the training diverged", advice="lower --lr")
        return models

    def _train(self, name: str, k: int | None, draw: np.ndarray, lr: float, seed: int) -> Tuned | None:
        """Train one draw; None where it diverged."""
        trunk, schedule, begin = self._start(name, draw, seed)
        positions = self.sides.train.positions
        places = draw if positions is None else positions[draw]
        judge = self.test.accuracy if self.config.procedure == "paper" else None
        model = tune_on(trunk, schedule, self.build, places, lr, seed, begin, judge)
        if self._progress is not None:
            self._progress.add(1)
        if model is None:
            note(
                1,
                "[training diverged: its|trainings diverged: their] learning rate cannot be chosen",
                f"{name}, {k or 'all'} shots, lr {lr:g}, draw {seed}",
            )
        return model

    def _start(self, name: str, draw: np.ndarray, seed: int) -> tuple[Trunk, Schedule, Begin]:
        """Return what a strategy starts from."""
        if name == "scratch":
            model = self.trunk.model or self._encoder.loaded.config["model"]
            loaded = self._encoder.loaded
            scratch = Trunk("", model, self._size, tuple(loaded.mean), tuple(loaded.std))
            return scratch, replace(self.schedule, head="normal"), None
        if name == "lp-ft":
            return self.trunk, replace(self.schedule, head="normal"), heads.beginning(self._probe(draw, seed))
        if self._zero_shot is not None:
            return self.trunk, replace(self.schedule, head="normal"), heads.beginning(self._zero_shot)
        return self.trunk, self.schedule, None

    def _probe(self, draw: np.ndarray, seed: int) -> np.ndarray:
        """Return the linear probe on a draw, fitted once: every learning rate of LP-FT starts from it."""
        key = seed, draw.tobytes()
        if key not in self._probes:
            self._probes[key] = heads.probe(self.sides.train, draw, seed)
        return self._probes[key]

    def _head_of(self, name: str) -> str:
        """Return what rows say a strategy's classifier starts from."""
        if name == "lp-ft":
            return "probe"
        if name == "scratch":
            return "normal"
        return "zeroshot" if self._zero_shot is not None else self.schedule.head

    def _first_head(self) -> np.ndarray | None:
        """Return the zero-shot head that `ft` starts from, made once; None where it starts from another one.

        Raises:
            UsageError: a zero-shot head without a text tower or class names.
        """
        config, examples, loaded = self.config, self.sides.test.examples, self._encoder.loaded
        possible = loaded.reads_text and examples.named
        wanted = config.head == "zeroshot" or bool(set(LINES) & set(config.strategies)) or (config.head == "auto" and possible)
        if not wanted or "ft" not in self._trained():
            return None
        if not examples.named:
            raise UsageError(f"a zero-shot head for {examples.name}, whose classes have no names", "class names", "--head normal")
        return heads.zero_shot(loaded, examples, config.templates, self._encoder.device)


def _evenly(model: Tuned, draw: np.ndarray, seed: int) -> Between:
    """Return the weights at α, all of them weighing alike."""
    from train.models.average import interpolate

    return lambda alpha: interpolate(model.start, model.end, alpha)


def best_of(accuracies: dict[float, float]) -> float:
    """Return the learning rate of the highest accuracy; of equal ones the lowest."""
    return max(sorted(accuracies), key=lambda lr: accuracies[lr])


def accuracy_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that are classified rightly."""
    from eval.metrics import ranks

    return float((ranks(logits, labels) == 0).mean())
