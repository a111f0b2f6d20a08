"""What a protocol answers image by image, and which of it `evaluate` keeps beside the table of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from eval import predictions
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples

Mode = Literal["auto", "all", "none"]
_HALF = 2  # bytes of a logit as it is kept


@dataclass(frozen=True, eq=False)
class Answers:
    """The scores of one run of a model on the images of a set.

    Attributes:
        scores: (n, classes), in the order of the set's classes; the larger, the likelier.
        meta: what names the run beside the model, the set and the protocol, such as the seed.
    """

    examples: Examples
    scores: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Keeper:
    """Keeps the answers of one evaluation as predictions: at once (`all`), never (`none`), or if all of them are few (`auto`).

    With `auto` nothing is written before `finish`, and nothing at all beyond `predictions.MOST_AUTO` bytes of logits: a table
    where some rows have predictions and others have not would be read wrongly.
    """

    results: str
    mode: Mode
    meta: dict[str, Any]
    total: int = 0
    kept: set[str] = field(default_factory=set)
    _waiting: dict[str, predictions.Predictions] = field(default_factory=dict)
    _last: tuple[tuple[Answers, ...], tuple[str, ...]] = ((), ())

    def keep(self, answers: tuple[Answers, ...], k: int | str | None) -> tuple[str, ...]:
        """Take the answers of a score and return their digests; the scores of several metrics may share theirs."""
        if self.mode == "none" or not answers:
            return ()
        if answers is not self._last[0]:
            self._last = answers, tuple(self._keep(part, k) for part in answers)
        return self._last[1]

    def _keep(self, part: Answers, k: int | str | None) -> str:
        self.total += part.scores.size * _HALF
        if self.mode == "auto" and self.total > predictions.MOST_AUTO:
            self._waiting.clear()
            return ""
        meta = {**self.meta, "classes": part.examples.class_digest, "k": k, **part.meta}
        order = _by_content(part.examples)  # so that a digest does not depend on the container that the images came in
        made = predictions.from_scores(part.examples.take(order), part.scores[order], meta)
        if self.mode == "all":
            digest = predictions.write(self.results, made)
            self.kept.add(digest)
            return digest
        digest = made.digest
        self._waiting[digest] = made
        return digest

    def finish(self) -> None:
        """Write what waits; `kept` holds the digests of all that is on disk."""
        if self.mode == "auto" and self.total > predictions.MOST_AUTO:
            where = f"{self.total:,} bytes of logits, more than {predictions.MOST_AUTO:,}; --predictions all keeps them"
            note(1, "[evaluation|evaluations] without predictions by image", where)
            return
        for made in self._waiting.values():
            self.kept.add(predictions.write(self.results, made))
        self._waiting.clear()


def _by_content(examples: Examples) -> np.ndarray:
    """Return the positions of a set's images in the order of their hashes and labels."""
    import numpy as np

    return np.lexsort((examples.labels, examples.hashes))
