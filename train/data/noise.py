"""Controlled noise: a stated share of samples gets another sample's caption, or a wrong label.

Which samples are noisy is a function of (noise seed, uid) alone, so that a study knows the truth that it planted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.core.config import option
from shards.core.errors import UsageError
from train.data.order import NOISE, few_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CAPTIONS, _LABELS = 0, 1  # which kind of noise a random word is for


@dataclass(frozen=True)
class Noise:
    """Shares of the samples that are given something wrong."""

    captions: float = option(0.0, "share of samples that get another sample's caption")
    labels: float = option(0.0, "share of samples that get another class")
    seed: int = option(0, "which samples these are")

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            UsageError: naming the key.
        """
        for name in ("captions", "labels"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"noise.{name}: {getattr(self, name)}", "a share, 0 to 1")

    def has_wrong_caption(self, identity: tuple[int, int]) -> bool:
        """Return whether a sample (its uid's halves, `order.identity`) gets another one's caption."""
        return _share(self._words(identity, _CAPTIONS)) < self.captions

    def has_wrong_label(self, identity: tuple[int, int]) -> bool:
        """Return whether a sample gets another label."""
        return _share(self._words(identity, _LABELS)) < self.labels

    def caption_row(self, identity: tuple[int, int], row: int, rows: int) -> int:
        """Return whose caption a sample gets: its own row of its shard, or another one of the shard's `rows` samples in use."""
        drawn = self._words(identity, _CAPTIONS)
        if rows < 2 or _share(drawn) >= self.captions:
            return row
        return (row + 1 + int(drawn[1]) % (rows - 1)) % rows

    def label(self, identity: tuple[int, int], label: int, classes: int) -> int:
        """Return the label a sample gets: its own, or one of the others."""
        drawn = self._words(identity, _LABELS)
        if classes < 2 or _share(drawn) >= self.labels:
            return label
        return (label + 1 + int(drawn[1]) % (classes - 1)) % classes

    def _words(self, identity: tuple[int, int], kind: int) -> NDArray[np.uint64]:
        return few_words(self.seed, NOISE, (kind, *identity), 2)


def _share(drawn: NDArray[np.uint64]) -> float:
    """Return a random word as a number in [0, 1)."""
    return (int(drawn[0]) >> 11) * 2.0**-53
