"""What protocols of several fine-tunings say of their models: rows of ensembles, members, diversity and lines, over draws of the shots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval import metrics
from eval.ensembles import diversity, lines, softmax
from eval.ensembles.soups import Refresher, classifier_at
from eval.metrics import Score
from eval.protocols import _shots

if TYPE_CHECKING:
    import numpy as np

    from eval.ensembles.config import Several
    from eval.ensembles.lines import Line, Weights
    from eval.ensembles.trainings import Workshop
    from eval.transfer.judge import Judge
    from eval.transfer.tuning import Tuned

Scores = Iterator[tuple[str, Score]]
Named = tuple[str, int, int]  # what an end of a line is called, and both members' places; -1 is the trunk's start


class Reporter:
    """Yields the scores of models at a number of shots.

    Attributes:
        settings: of all rows.
    """

    def __init__(self, shop: Workshop, k: int | None, settings: Mapping[str, Any]) -> None:
        self.shop, self.k, self.settings = shop, k, dict(settings)

    def rows(self, protocol: str, runs: Sequence[np.ndarray], more: Mapping[str, Any]) -> Scores:
        """Yield the metrics of models' logits, one (n, classes) for each draw."""
        settings = {**self.settings, **more}
        for metric, score in _shots.over_draws(self.shop.sides, runs, self.k, probabilistic=True):
            yield metric, score.having(k="all" if self.k is None else self.k, settings=settings, protocol=protocol)

    def curve(self, protocol: str, draws: Sequence[Sequence[np.ndarray]]) -> Scores:
        """Yield the metrics of the ensembles of the first 1 … M members, in the order in which these were trained.

        Args:
            draws: of each draw, the logits of its members.
        """
        for size in range(1, len(draws[0]) + 1):
            yield from self.rows(protocol, [softmax.mean_softmax(logits[:size]) for logits in draws], {"members": size})

    def diversity(self, protocol: str, draws: Sequence[Sequence[np.ndarray]], features: Sequence[Sequence[np.ndarray]]) -> Scores:
        """Yield disagreement, error correlation and κ of the members' answers, and CKA of their features: means over pairs and draws."""
        import numpy as np

        labels = self.shop.sides.test.examples.labels
        measured = [diversity.between(np.stack([member.argmax(axis=1) for member in logits]), labels) for logits in draws]
        by_metric = {metric: [draw[metric] for draw in measured if metric in draw] for metric in diversity.METRICS}
        by_metric["cka"] = [diversity.cka(towers) for towers in features]
        for metric, values in by_metric.items():
            if not values:
                continue
            pairs = {f"{i + 1}-{j + 1}": round(value, 6) for (i, j), value in values[0].pairs.items()}
            more = {"members": len(draws[0]), "pairs": pairs, "undefined_pairs": sum(value.undefined for value in values)}
            yield metric, self._over(metric, [value.value for value in values], protocol, more)

    def barriers(self, protocol: str, ends: Sequence[tuple[str, str]], walked: Sequence[Sequence[tuple[Line, Line]]], bn: str) -> Scores:
        """Yield loss and error barriers of lines, on test and training images.

        Args:
            ends: what both ends of each line are called.
            walked: of each draw and line, what it is on test and on training images.
        """
        for at, (first, second) in enumerate(ends):
            errors = [draw[at][1].error_barrier for draw in walked]
            low = sum(errors) / len(errors) < self.shop.config.basin
            verdict = {"in_basin" if first == "start" else "connected": low, "basin": self.shop.config.basin}
            for number, side in enumerate(("test", "train")):
                on_side = [draw[at][number] for draw in walked]
                more = {"line": f"{first} to {second}", "side": side, "bn": bn, **verdict, **_mean_curve(on_side)}
                yield "barrier", self._over("barrier", [line.barrier for line in on_side], protocol, more)
                yield "error_barrier", self._over("error_barrier", [line.error_barrier for line in on_side], protocol, more)

    def _over(self, metric: str, values: Sequence[float], protocol: str, more: Mapping[str, Any]) -> Score:
        score = metrics.over_runs([Score(value) for value in values], metric)
        k = "all" if self.k is None else self.k
        n = len(self.shop.sides.test.examples)
        return score.having(k=k, n=n, settings={**self.settings, **more}, protocol=protocol)


def _mean_curve(side: Sequence[Line]) -> dict[str, list[float]]:
    """Return α, and the means over draws of loss and accuracy there."""
    by_loss = [round(sum(losses) / len(side), 6) for losses in zip(*(line.losses for line in side), strict=True)]
    by_accuracy = [round(sum(values) / len(side), 6) for values in zip(*(line.accuracies for line in side), strict=True)]
    return {"alphas": [round(alpha, 6) for alpha in side[0].alphas], "losses": by_loss, "accuracies": by_accuracy}


def ends_of(config: Several, members: int, *, star: bool = False) -> list[tuple[int, int]]:
    """Return the lines that are walked: from the start (−1) to each member, then between members, at most `--lines` of them.

    Args:
        star: lines of the first member with each other one come before those between others.
    """
    pairs = [(i, j) for i in range(members) for j in range(i + 1, members)]
    if star:
        pairs.sort(key=lambda pair: pair[0] > 0)
    return [(-1, member) for member in range(members)] + pairs[: config.lines]


def walk_all(shop: Workshop, models: Sequence[Tuned], ends: Sequence[tuple[int, int]], train: Judge) -> tuple[list[tuple[Line, Line]], str]:
    """Return each line on test and on training images, and what was done with BatchNorm statistics on it.

    With `--norm recompute` they are recomputed at all points, the ends too: so all points of a line are made alike.
    """
    refresher = Refresher(train.examples, shop.size, shop.encoder) if shop.config.norm == "recompute" else None
    alphas = lines.points(shop.config.alphas)
    labels = (shop.test.examples.labels, train.examples.labels)
    done = ""
    walked = []
    for first, second in ends:
        model = models[second]

        def logits(weights: Weights, model: Tuned = model) -> list[np.ndarray]:
            nonlocal done
            classifier, done = classifier_at(model, weights, refresher)
            return [shop.test.logits(classifier), train.logits(classifier)]

        start = model.start if first < 0 else models[first].end
        test_side, train_side = lines.walk(start, model.end, alphas, logits, labels)
        walked.append((test_side, train_side))
    return walked, done


def tower_features(shop: Workshop, model: Tuned) -> np.ndarray:
    """Return a model's features of the test images before its classifier, (n, d)."""
    import torch
    from torch import nn

    from eval.transfer.judge import Classifier

    old = model.classifier
    identity = nn.ModuleDict({"tower": old.model["tower"], "head": nn.Identity()})
    with torch.inference_mode():
        return shop.test.logits(Classifier(identity, old.unit_features, old.image_size, old.mean, old.std))
