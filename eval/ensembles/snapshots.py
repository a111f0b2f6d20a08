"""All SSE or StarSSE runs of one trunk on one set: the cycle that is chosen, the snapshots, and what rows say of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.ensembles import cycles, report, softmax, soups
from eval.ensembles.cycles import Cycle
from eval.ensembles.trainings import Trainings, Workshop
from eval.protocols import _shots
from eval.transfer import heads
from eval.transfer.grid import ENOUGH_SHOTS, FIXED, HELD_OUT, ON_SHOTS, ON_TEST, ON_VAL, accuracy_of
from shards.core.console import Progress
from shards.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np

    from eval.metrics import Score
    from eval.protocols.base import Bench
    from eval.protocols.sse import Config
    from eval.transfer.judge import Judge
    from eval.transfer.tuning import Tuned


@dataclass(frozen=True, eq=False)
class Chosen:
    """The snapshots of all draws with the cycle that was chosen, and how it was.

    Attributes:
        accuracies: of the ensembles by cycle, on what chose; empty where nothing did.
    """

    cycle: Cycle
    how: str
    draws: list[list[Tuned]]
    accuracies: dict[Cycle, float]


class Snapshots:
    """The runs of one trunk on one labelled set."""

    def __init__(self, config: Config, bench: Bench, sides: _shots.Sides, build: Any) -> None:
        """Take the trunk, the encoded images, and the build that trainings read."""
        self.config = config
        self.shop = Workshop(config, bench, sides, build)
        self.cycles = cycles.grid(config.lr, config.epochs, config.cycle_lr, config.cycle_epochs)
        self.star = config.schedule == "star"
        self.name = "starsse" if self.star else "sse"

    def run(self, shots: Sequence[int | None]) -> Iterator[tuple[str, Score]]:
        """Yield the metrics at every number of shots."""
        total = sum(map(self.trainings, shots))
        with Progress(f"{self.name} {self.shop.sides.test.examples.name}", total, "trainings") as progress:
            self.shop.progress = progress
            for k in shots:
                yield from self.scores(k)

    def how(self, k: int | None) -> str:
        """Return what the cycle is chosen on at a number of shots."""
        if len(self.cycles) == 1:
            return FIXED
        if self.config.select == "test":
            return ON_TEST
        if self.shop.val is not None:
            return ON_VAL
        return ON_SHOTS if k is None or k >= ENOUGH_SHOTS else FIXED

    def trainings(self, k: int | None) -> int:
        """Return how many trainings a number of shots takes, first models and cycles."""
        again = self.config.members - 1
        whole = 1 + again * len(self.cycles)
        each = {FIXED: 1 + again, ON_SHOTS: whole + 1 + again}.get(self.how(k), whole)
        return each * len(_shots.seeds_of(self.config, k))

    def scores(self, k: int | None) -> Iterator[tuple[str, Score]]:
        """Yield the metrics of ensembles, snapshots, diversity, soups and barriers at k shots."""
        config, shop = self.config, self.shop
        draws = [_shots.draw(shop.sides.train.examples, k, seed) for seed in _shots.seeds_of(config, k)]
        chosen = self._chosen(k, draws)
        reporter = report.Reporter(shop, k, self._settings(k, chosen))
        logits = [[shop.test.logits(model.classifier) for model in models] for models in chosen.draws]
        yield from reporter.curve(self.name, logits)
        for at in range(config.members):
            yield from reporter.rows(f"{self.name}-snapshot", [of_draw[at] for of_draw in logits], {"snapshot": at + 1})
        features = [[report.tower_features(shop, model) for model in models] for models in chosen.draws]
        yield from reporter.diversity(self.name, logits, features)
        if config.soup:
            yield from self._soup(reporter, draws, chosen)
        if config.alphas:
            yield from self._barriers(reporter, draws, chosen)

    def _settings(self, k: int | None, chosen: Chosen) -> dict[str, Any]:
        config = self.config
        settings = {
            **self.shop.settings(k),
            "schedule": config.schedule,
            "lr": config.lr,
            "cycle_lr": chosen.cycle.lr,
            "cycle_epochs": chosen.cycle.epochs,
            "cycle_lr_ratios": list(config.cycle_lr),
            "cycle_epochs_ratios": list(config.cycle_epochs),
            "per": config.per,
            "chosen_by": chosen.how,
            "acc1_by_cycle": {f"{c.lr:g} x {c.epochs}": round(value, 6) for c, value in chosen.accuracies.items()},
        }
        if chosen.how == ON_TEST:
            settings["selected_on"] = "test"
        elif chosen.cycle in chosen.accuracies:
            settings["val"] = chosen.accuracies[chosen.cycle]
        return settings

    def _chosen(self, k: int | None, draws: list[np.ndarray]) -> Chosen:
        """Try the cycles that have to be tried, and return the snapshots with the best one."""
        how = self.how(k)
        if how == FIXED:
            cycle = cycles.middle(self.cycles, self.config.lr, self.config.epochs)
            return Chosen(cycle, how, self._trained(draws, cycle), {})
        if how == ON_SHOTS:
            accuracies = self._on_shots(draws)
            cycle = best_of(accuracies)
            return Chosen(cycle, how, self._trained(draws, cycle), accuracies)
        judge = self.shop.test if how == ON_TEST or self.shop.val is None else self.shop.val
        return self._by(judge, how, draws)

    def _by(self, judge: Judge, how: str, draws: list[np.ndarray]) -> Chosen:
        """Choose among snapshots of all shots; the first model of a draw is trained once for all cycles.

        Raises:
            RunError: trainings diverged with every cycle.
        """
        accuracies: dict[Cycle, float] = {}
        kept: list[list[Tuned]] = []
        with contextlib.ExitStack() as stack:
            trainings = [stack.enter_context(self.shop.trainings(draw, seed)) for seed, draw in enumerate(draws)]
            firsts = [self._first(part) for part in trainings]
            for cycle in self.cycles:
                runs = [self._from(part, first, cycle) for part, first in zip(trainings, firsts, strict=True)]
                whole = [models for models in runs if models is not None]
                complete = len(whole) == len(draws)
                accuracies[cycle] = sum(ensemble_accuracy(judge, models) for models in whole) / len(draws) if complete else 0.0
                if complete and best_of(accuracies) == cycle:  # nothing but the best ones stay in memory
                    kept = whole
        if not kept:
            raise RunError(f"{self.name}: trainings diverged with every cycle", advice="lower --lr")
        return Chosen(best_of(accuracies), how, kept, accuracies)

    def _on_shots(self, draws: list[np.ndarray]) -> dict[Cycle, float]:
        """Return each cycle's accuracy on the held-out fifth of the draws, after training on the rest: means over draws."""
        examples = self.shop.sides.train.examples
        totals = dict.fromkeys(self.cycles, 0.0)
        for seed, draw in enumerate(draws):
            kept, held = heads.split(draw, examples.labels, HELD_OUT)
            judge = self.shop.judge(examples.take(held))
            with self.shop.trainings(kept, seed) as trainings:
                first = self._first(trainings)
                for cycle in self.cycles:
                    models = self._from(trainings, first, cycle)
                    totals[cycle] += ensemble_accuracy(judge, models) / len(draws) if models is not None else 0.0
        return totals

    def _trained(self, draws: list[np.ndarray], cycle: Cycle) -> list[list[Tuned]]:
        """Return the snapshots of all draws.

        Raises:
            RunError: a training diverged.
        """
        trained = []
        for seed, draw in enumerate(draws):
            with self.shop.trainings(draw, seed) as trainings:
                models = self._from(trainings, self._first(trainings), cycle)
            if models is None:
                raise RunError(f"{self.name}: a cycle with lr {cycle.lr:g} diverged", advice="lower --lr or --cycle-lr")
            trained.append(models)
        return trained

    def _first(self, trainings: Trainings) -> Tuned:
        config = self.config
        first = trainings.fit(config.lr, config.epochs, 0, warmup=config.warmup, per=config.per)
        if first is None:
            raise RunError(f"{self.name}: the first model diverged", advice="lower --lr")
        return first

    def _from(self, trainings: Trainings, first: Tuned, cycle: Cycle) -> list[Tuned] | None:
        train = cycles.train_cycle(trainings, cycle, self.config.per)
        return cycles.snapshots(first, self.config.members, star=self.star, cycle=train)

    def _soup(self, reporter: report.Reporter, draws: list[np.ndarray], chosen: Chosen) -> Iterator[tuple[str, Score]]:
        runs, bn = [], ""
        for draw, models in zip(draws, chosen.draws, strict=True):
            train = self.shop.sides.train.examples.take(draw)
            refresher = soups.Refresher(train, self.shop.size, self.shop.encoder) if self.config.norm == "recompute" else None
            classifier, bn = soups.classifier_at(models[0], soups.uniform([model.end for model in models]), refresher)
            runs.append(self.shop.test.logits(classifier))
        yield from reporter.rows(f"{self.name}-soup", runs, {"members": self.config.members, "bn": bn})

    def _barriers(self, reporter: report.Reporter, draws: list[np.ndarray], chosen: Chosen) -> Iterator[tuple[str, Score]]:
        """Yield the barriers from the trunk's start to each snapshot and between snapshots."""
        ends = report.ends_of(self.config, self.config.members, star=True)
        walked, bn = [], ""
        for draw, models in zip(draws, chosen.draws, strict=True):
            from_trunk = [with_start(model, models[0].start) for model in models]
            train = self.shop.judge(self.shop.sides.train.examples.take(draw))
            lines, bn = report.walk_all(self.shop, from_trunk, ends, train)
            walked.append(lines)
        names = [("start" if first < 0 else str(first + 1), str(second + 1)) for first, second in ends]
        yield from reporter.barriers(f"{self.name}-barrier", names, walked, bn)


def with_start(model: Tuned, start: Any) -> Tuned:
    """Return a snapshot with the trunk's start in place of the snapshot that its cycle began from."""
    from eval.transfer.tuning import Tuned

    return Tuned(model.classifier, start)


def best_of(accuracies: dict[Cycle, float]) -> Cycle:
    """Return the cycle of the highest accuracy; of equal ones the lowest rate, then the fewest epochs."""
    return max(sorted(accuracies), key=lambda cycle: accuracies[cycle])


def ensemble_accuracy(judge: Judge, models: Sequence[Tuned]) -> float:
    """Return the accuracy of the models' mean softmax."""
    return accuracy_of(softmax.mean_softmax([judge.logits(model.classifier) for model in models]), judge.examples.labels)
