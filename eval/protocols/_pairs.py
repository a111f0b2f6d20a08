"""Images with captions as the encoder takes them, and retrieval's ranks and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from eval.datasets.base import Examples
from shards.core.config import digest

if TYPE_CHECKING:
    import numpy as np

    from eval.metrics import Score

METRIC = "mean_recall"
_BLOCK = 2**26  # similarities that are in memory together: 256 MB
_REPLICATES_TOGETHER = 100


class Paired(Protocol):
    """What a set of images with captions has; `eval.datasets.paired.Paired` is one."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def ids(self) -> tuple[str, ...]:
        """One name per image, for messages."""

    def read(self, i: int, /) -> bytes:
        """Return the encoded bytes of an image."""

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """Of each image, at least one."""


@dataclass(frozen=True, eq=False)
class Captioned(Examples):
    """Images of one class, each with its captions: what `Encoder` and `evaluate` take."""

    captions: tuple[tuple[str, ...], ...] = ()

    def take(self, positions: Sequence[int] | np.ndarray) -> Captioned:
        """Return the view of some positions, in that order."""
        part = super().take(positions)
        assert isinstance(part, Captioned)
        return replace(part, captions=tuple(self.captions[int(i)] for i in positions))

    @property
    def digest(self) -> str:
        """sha256 of the images with their captions, whatever their order and the container they came in."""
        return digest(sorted([text, *captions] for text, captions in zip(self.hashes.astype(str).tolist(), self.captions, strict=True)))


def captioned(pairs: Paired) -> Captioned:
    """Return a set of pairs as examples."""
    import numpy as np

    return Captioned(
        name=pairs.name,
        classes=("an image with captions",),
        ids=tuple(pairs.ids),
        labels=np.zeros(len(pairs.ids), np.int64),
        read=pairs.read,
        metric=METRIC,
        named=False,
        told=getattr(pairs, "told", ()),
        known_hashes=getattr(pairs, "known_hashes", None),
        captions=tuple(tuple(texts) for texts in pairs.captions),
    )


@dataclass(frozen=True)
class Ranks:
    """How many others stand before the right one: of each image its best caption, (n,); of each caption its image, (texts,).

    `owners` is the image of each caption, (texts,), not falling.
    """

    of_images: np.ndarray
    of_texts: np.ndarray
    owners: np.ndarray


def ranks(images: np.ndarray, texts: np.ndarray, owners: np.ndarray) -> Ranks:
    """Return the ranks by cosine of unit-length features (n, d) and (texts, d).

    An image's rank counts the captions of other images that are at least as near as its own nearest one, a caption's the other
    images that are at least as near as its own: a model that finds all alike gets no credit for it.
    """
    import numpy as np

    n, count = len(images), len(texts)
    of_images = np.zeros(n, np.int64)
    of_texts = np.zeros(count, np.int64)
    right = np.einsum("td,td->t", texts, images[owners])
    starts = np.searchsorted(owners, np.arange(n + 1))
    rows = max(1, _BLOCK // max(count, 1))
    for at in range(0, n, rows):
        stop = min(at + rows, n)
        near = images[at:stop] @ texts.T
        first, last = starts[at], starts[stop]
        mine = (owners[first:last] - at, np.arange(first, last))
        right[first:last] = near[mine]  # the same rounding as those they are held against
        near[mine] = -np.inf
        best = np.maximum.reduceat(right[first:last], starts[at:stop] - first)
        of_images[at:stop] = (near >= best[:, None]).sum(axis=1)
    for at in range(0, n, rows):
        stop = min(at + rows, n)
        near = images[at:stop] @ texts.T
        near[owners[starts[at] : starts[stop]] - at, np.arange(starts[at], starts[stop])] = -np.inf
        of_texts += (near >= right[None, :]).sum(axis=0)
    return Ranks(of_images, of_texts, owners)


def recalls(found: Ranks, depths: Sequence[int]) -> dict[str, Score]:
    """Return recall at each depth in both directions, and their mean, with 95% bootstrap intervals over images.

    Images are redrawn with their captions (percentiles, fixed seed); the images and captions that are searched stay all of them.
    """
    import numpy as np

    from eval.metrics import LEVEL, REPLICATES, Score

    n = len(found.of_images)
    captions = np.bincount(found.owners, minlength=n).astype(float)
    hits = [(found.of_images < depth).astype(float) for depth in depths]
    hits += [np.bincount(found.owners, weights=found.of_texts < depth, minlength=n) for depth in depths]
    columns = np.stack([*hits, captions], axis=1)
    generator = np.random.Generator(np.random.Philox(0))
    drawn = np.concatenate(
        [
            generator.multinomial(n, np.full(n, 1 / n), size=min(_REPLICATES_TOGETHER, REPLICATES - at)) @ columns
            for at in range(0, REPLICATES, _REPLICATES_TOGETHER)
        ]
    )
    names = [f"image_to_text_recall@{depth}" for depth in depths] + [f"text_to_image_recall@{depth}" for depth in depths]
    half = len(depths)
    totals = np.concatenate([columns.sum(axis=0)[None], drawn])
    shares = np.concatenate([totals[:, :half] / n, totals[:, half : 2 * half] / totals[:, -1:]], axis=1)
    shares = np.concatenate([shares, shares.mean(axis=1, keepdims=True)], axis=1)
    low, high = np.quantile(shares[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {
        name: Score(float(shares[0, i]), float(low[i]), float(high[i]), "bootstrap over images", n=n)
        for i, name in enumerate([*names, METRIC])
    }


def chances(captions: Sequence[int], depths: Sequence[int]) -> dict[str, float]:
    """Return the recall of a random order, by metric; an image's first right caption among all follows the hypergeometric law."""
    from math import comb

    n, total = len(captions), sum(captions)
    chance: dict[str, float] = {}
    for depth in depths:
        missed = [comb(total - own, depth) / comb(total, depth) if depth <= total - own else 0.0 for own in captions]
        chance[f"image_to_text_recall@{depth}"] = 1 - sum(missed) / n
    for depth in depths:
        chance[f"text_to_image_recall@{depth}"] = min(depth / n, 1.0)
    chance[METRIC] = sum(chance.values()) / len(chance)
    return chance
