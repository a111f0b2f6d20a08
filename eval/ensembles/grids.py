"""The members of one grid on one set: trained from the same weights, then ensembled, averaged and joined by lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.ensembles import report, soups
from eval.ensembles.soups import Refresher, Weights
from eval.ensembles.trainings import Workshop, resuming
from eval.protocols import _shots
from eval.transfer import heads
from eval.transfer.grid import ENOUGH_SHOTS, HELD_OUT, ON_SHOTS, ON_VAL
from shards.core.console import Progress
from shards.core.errors import RunError
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

    from eval.metrics import Score
    from eval.protocols.base import Bench
    from eval.protocols.soups import Config
    from eval.transfer.judge import Judge
    from eval.transfer.tuning import Tuned


@dataclass(frozen=True, eq=False)
class Made:
    """What a draw of the shots gave.

    Attributes:
        models: the members, in the order of the grid.
        trained: positions of the images that they were trained on.
        held: what greedy soups are judged on; None where there is nothing.
    """

    models: list[Tuned]
    trained: np.ndarray
    held: Judge | None

    def accuracies(self) -> list[float]:
        """Return the members' held-out accuracies; none where nothing is held out."""
        held = self.held
        return [held.accuracy(model.classifier) for model in self.models] if held is not None else []


class Grid:
    """The fine-tunings of one trunk on one labelled set."""

    def __init__(self, config: Config, bench: Bench, sides: _shots.Sides, build: Any) -> None:
        """Take the trunk, the encoded images, and the build that trainings read."""
        self.config = config
        self.shop = Workshop(config, bench, sides, build)

    def run(self, shots: Sequence[int | None]) -> Iterator[tuple[str, Score]]:
        """Yield the metrics at every number of shots."""
        total = sum(len(self.config.grid()) * len(_shots.seeds_of(self.config, k)) for k in shots)
        with Progress(f"soups {self.shop.sides.test.examples.name}", total, "trainings") as progress:
            self.shop.progress = progress
            for k in shots:
                yield from self.scores(k)

    def how(self, k: int | None) -> str:
        """Return what greedy soups are judged on at a number of shots; empty where nothing is held out."""
        if self.shop.val is not None:
            return ON_VAL
        return ON_SHOTS if k is None or k >= ENOUGH_SHOTS else ""

    def scores(self, k: int | None) -> Iterator[tuple[str, Score]]:
        """Yield the metrics of members, ensembles, soups, diversity and barriers at k shots."""
        shop, config = self.shop, self.config
        seeds = _shots.seeds_of(config, k)
        made = [self._made(_shots.draw(shop.sides.train.examples, k, seed), seed, self.how(k)) for seed in seeds]
        settings = {**shop.settings(k), "grid": sorted(set(config.lr)), "runs": config.runs, "chosen_by": self.how(k) or "nothing"}
        reporter = report.Reporter(shop, k, {**settings, "n_tuned": len(made[0].trained)})
        logits = [[shop.test.logits(model.classifier) for model in part.models] for part in made]
        accuracies = [part.accuracies() for part in made]
        for at, (lr, run) in enumerate(config.grid()):
            held = [values[at] for values in accuracies if values]
            more = {"val": sum(held) / len(held)} if held else {}
            yield from reporter.rows("member", [of_draw[at] for of_draw in logits], {"member": at + 1, "lr": lr, "run": run, **more})
        yield from reporter.curve("local-ensemble", logits)
        features = [[report.tower_features(shop, model) for model in part.models] for part in made]
        yield from reporter.diversity("local-ensemble", logits, features)
        yield from self._soups(reporter, made, logits, accuracies)
        if config.alphas:
            yield from self._barriers(reporter, made)

    def _made(self, draw: np.ndarray, seed: int, how: str) -> Made:
        """Train the members on a draw, all from the first one's start.

        Raises:
            RunError: a member diverged.
        """
        shop, examples = self.shop, self.shop.sides.train.examples
        held, trained = shop.val, draw
        if how == ON_SHOTS:
            trained, rest = heads.split(draw, examples.labels, HELD_OUT)
            held = shop.judge(examples.take(rest))
        models: list[Tuned] = []
        with shop.trainings(trained, seed) as trainings:
            for number, (lr, _) in enumerate(self.config.grid()):
                begin = resuming(models[0], models[0].start) if models else None
                model = trainings.fit(lr, self.config.epochs, number, begin, warmup=self.config.warmup)
                if model is None:
                    raise RunError(f"a member with lr {lr:g} diverged", advice="lower --lr")
                models.append(model)
        return Made(models, trained, held)

    def _soups(
        self, reporter: report.Reporter, made: Sequence[Made], logits: Sequence[Sequence[np.ndarray]], accuracies: Sequence[Sequence[float]]
    ) -> Iterator[tuple[str, Score]]:
        """Yield the best member by held-out accuracy, the uniform and the greedy soup."""
        refreshers = [self._refresher(part) for part in made]
        members = len(self.config.grid())
        uniform = [
            self._soup(part, soups.uniform([model.end for model in part.models]), fresh)
            for part, fresh in zip(made, refreshers, strict=True)
        ]
        yield from reporter.rows("uniform-soup", [run for run, _ in uniform], {"members": members, "bn": uniform[0][1]})
        if not accuracies[0]:
            note(1, "greedy [soup is|soups are] left out: nothing is held out to judge [it|them] by", "fewer than five shots; --val PATH")
            return
        best = [values.index(max(values)) for values in accuracies]
        runs = [of_draw[at] for of_draw, at in zip(logits, best, strict=True)]
        held = sum(max(values) for values in accuracies) / len(made)
        yield from reporter.rows("best-member", runs, {"member": [at + 1 for at in best], "val": held})
        yield from self._greedy(reporter, made, refreshers, accuracies)

    def _greedy(
        self,
        reporter: report.Reporter,
        made: Sequence[Made],
        refreshers: Sequence[Refresher | None],
        accuracies: Sequence[Sequence[float]],
    ) -> Iterator[tuple[str, Score]]:
        runs, chosen, held, bn = [], [], [], ""
        for part, fresh, values in zip(made, refreshers, accuracies, strict=True):
            states = [model.end for model in part.models]
            weights, members, accuracy = soups.greedy(states, values, self._judged(part, fresh))
            if len(members) == 1:  # the best member itself: it keeps its own statistics
                runs.append(self.shop.test.logits(part.models[members[0]].classifier))
            else:
                logits, bn = self._soup(part, weights, fresh)
                runs.append(logits)
            chosen.append([member + 1 for member in members])
            held.append(accuracy)
        more = {"soup_sizes": [len(members) for members in chosen], "chosen": chosen, "val": sum(held) / len(held), "bn": bn or "its own"}
        yield from reporter.rows("greedy-soup", runs, more)

    def _judged(self, part: Made, fresh: Refresher | None) -> Any:
        """Return weights → held-out accuracy."""

        def accuracy(weights: Weights) -> float:
            assert part.held is not None
            classifier, _ = soups.classifier_at(part.models[0], weights, fresh)
            return part.held.accuracy(classifier)

        return accuracy

    def _soup(self, part: Made, weights: Weights, fresh: Refresher | None) -> tuple[np.ndarray, str]:
        classifier, bn = soups.classifier_at(part.models[0], weights, fresh)
        return self.shop.test.logits(classifier), bn

    def _refresher(self, part: Made) -> Refresher | None:
        train = self.shop.sides.train.examples.take(part.trained)
        return Refresher(train, self.shop.size, self.shop.encoder) if self.config.norm == "recompute" else None

    def _barriers(self, reporter: report.Reporter, made: Sequence[Made]) -> Iterator[tuple[str, Score]]:
        ends = report.ends_of(self.config, len(self.config.grid()))
        walked, bn = [], ""
        for part in made:
            train = self.shop.judge(self.shop.sides.train.examples.take(part.trained))
            lines, bn = report.walk_all(self.shop, part.models, ends, train)
            walked.append(lines)
        names = [("start" if first < 0 else str(first + 1), str(second + 1)) for first, second in ends]
        yield from reporter.barriers("member-barrier", names, walked, bn)
