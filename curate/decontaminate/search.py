"""Which images of a build are near which test images: pure functions over arrays, and exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.dedup import pairs_between

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    I64 = NDArray[np.int64]

BLOCK = 4096  # rows of a matrix product: 64 MB of float32


@dataclass(frozen=True)
class Matches:
    """Pairs of a build's image and a test image, each once, sorted by (build, distance, test image).

    Attributes:
        build, image: positions in what was given, shape (n,).
        view: the view that is nearest, the first of equals, shape (n,).
        distance: bits of 64 that differ, shape (n,).
    """

    build: I64
    image: I64
    view: I64
    distance: I64


def near_views(build: NDArray[np.uint64], views: NDArray[np.uint64], usable: NDArray[np.bool_], radius: int, threads: int = 0) -> Matches:
    """Return the test images that have a view within the radius of a build's hash.

    Args:
        build: shape (n,), no two the same, those of low information left out: they are near everything that is as flat.
        views: shape (images, views).
        usable: shape (images,): False for test images of low information and for those that could not be read.
        radius: bits of 64.
        threads: 0 means one per core.
    """
    import numpy as np

    images = np.flatnonzero(usable)
    flat = views[images].ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=~flat[order[:1]]) != 0)
    ends = np.append(starts[1:], len(flat))
    found, group = pairs_between(build, flat[order[starts]], radius, threads)
    # Many views may share a hash: a pair with the hash is one with each of them.
    times = (ends - starts)[group]
    offset = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    member = order[np.repeat(starts[group], times) + offset]
    left, image, view = np.repeat(found, times), images[member // views.shape[1]], member % views.shape[1]
    distance = np.bitwise_count(build[left] ^ flat[member]).astype(np.int64)
    best = np.lexsort((view, distance, image, left))
    best = best[_first_of_runs(left[best], image[best])]
    best = best[np.lexsort((image[best], distance[best], left[best]))]
    return Matches(left[best], image[best], view[best], distance[best])


def _first_of_runs(a: I64, b: I64) -> NDArray[np.bool_]:
    """Mark where a pair differs from the one before it."""
    import numpy as np

    first = np.ones(len(a), np.bool_)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return first


def near_embeddings(
    build: NDArray[np.floating], tests: NDArray[np.floating], distance: float, block: int = BLOCK
) -> tuple[I64, I64, NDArray[np.float32]]:
    """Return all (build, test, cosine distance) that are nearer than `distance`, sorted by (build, distance, test).

    Args:
        build: unit-length rows, shape (n, width); rows of zeros are near nothing. Read in blocks: a memory map will do.
        tests: unit-length rows, shape (m, width).
        distance: cosine distance, 1 - cosine.
        block: rows of either side in one product.
    """
    import numpy as np

    if not 0 <= distance < 1:
        raise ValueError(f"a cosine distance of {distance}")
    rows, columns, far = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for i in range(0, len(build), block):
        left = np.asarray(build[i : i + block], np.float32)
        for j in range(0, len(tests), block):
            apart = 1 - left @ np.asarray(tests[j : j + block], np.float32).T
            row, column = np.nonzero(apart < distance)
            rows.append(row + i)
            columns.append(column + j)
            far.append(apart[row, column])
    row, column, apart = np.concatenate(rows), np.concatenate(columns), np.concatenate(far)
    order = np.lexsort((column, apart, row))
    return row[order], column[order], apart[order]
