"""What a resumed run repeated, lost and reordered, from the lists of what it consumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

Consumed = list[tuple[int, str]]  # (epoch, key) in the order of the steps


class Tally(NamedTuple):
    """Counts over the epochs of a run.

    Attributes:
        repeated: deliveries of a sample beyond its first one in an epoch.
        lost: samples that an epoch did not deliver.
        foreign: deliveries of keys that are not in the set.
    """

    repeated: int
    lost: int
    foreign: int


def tally(consumed: Iterable[tuple[int, str]], keys: Collection[str], epochs: int) -> Tally:
    """Count the repeated and the lost samples of a run in which each epoch should deliver each key once."""
    times = Counter(consumed)
    wanted = {(epoch, key) for epoch in range(epochs) for key in keys}
    repeated = sum(count - 1 for count in times.values())
    foreign = sum(count for delivery, count in times.items() if delivery not in wanted)
    return Tally(repeated, len(wanted - times.keys()), foreign)


def common_start(one: Consumed, two: Consumed) -> int:
    """Return how many deliveries two runs have in common before they first differ."""
    length = 0
    for first, second in zip(one, two, strict=False):
        if first != second:
            break
        length += 1
    return length
