"""Our resizing against Pillow's and against plain loops: drawn pictures, both filters, up and down, boxes with fractional edges, odd shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import differences, photo
from PIL import Image

from train.data.decode.resample import BICUBIC, BILINEAR, FILTERS, resize_into

PILLOW = {BICUBIC: Image.Resampling.BICUBIC, BILINEAR: Image.Resampling.BILINEAR}
Box = tuple[float, float, float, float]  # left, top, right, bottom


def ours(image: np.ndarray, box: Box, size: tuple[int, int], kind: int) -> np.ndarray:
    """Return the box resized to (height, width), between two rows of ones that must stay."""
    guarded = np.ones((size[0] + 2, size[1], 3), np.uint8)
    left, top, right, bottom = box
    resize_into(guarded[1:-1], image, top, left, bottom - top, right - left, kind)
    assert (guarded[[0, -1]] == 1).all()
    return guarded[1:-1]


def pillows(image: np.ndarray, box: Box, size: tuple[int, int], kind: int) -> np.ndarray:
    """Return what Pillow makes of the box, cut out first."""
    left, top = math.floor(box[0]), math.floor(box[1])
    cut = Image.fromarray(image).crop((left, top, math.ceil(box[2]), math.ceil(box[3])))
    inside = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(cut.resize(size[::-1], PILLOW[kind], box=inside))


@pytest.mark.parametrize("kind", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("size", [(24, 24), (96, 96), (224, 224), (57, 113), (500, 20)])
@pytest.mark.parametrize("box", [(0, 0, 200, 150), (13, 21, 143, 112), (0.25, 0.5, 199.75, 149.125), (50.3, 60.7, 61.1, 73.9)])
def test_equals_pillow(kind: int, size: tuple[int, int], box: Box) -> None:
    image = np.asarray(photo(200, 150))
    one, two = ours(image, box, size, kind), pillows(image, box, size, kind)
    mean, _ = differences(one, two)
    assert mean <= 0.5
    # Pillow rounds between its passes: half a level, which the second pass may weigh by up to 1.3, and half at the end.
    assert np.abs(one.astype(int) - two.astype(int)).max() <= 2


@pytest.mark.parametrize("kind", [BICUBIC, BILINEAR])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 300), (300, 2), (3, 3)])
def test_odd_shapes_equal_pillow(kind: int, shape: tuple[int, int]) -> None:
    # Between its passes Pillow clips what overshoots; levels from 64 on do not reach the limits.
    image = np.random.default_rng(0).integers(64, 192, (*shape, 3), np.uint8)
    box = (0, 0, shape[1], shape[0])
    for size in ((1, 1), (8, 8), (60, 60)):
        apart = np.abs(ours(image, box, size, kind).astype(int) - pillows(image, box, size, kind))
        assert apart.max() <= 2, size


@pytest.mark.parametrize("kind", [BICUBIC, BILINEAR])
def test_white_stays_white_and_edges_are_clipped(kind: int) -> None:
    white = np.full((30, 40, 3), 255, np.uint8)
    assert (ours(white, (1.3, 2.6, 38.9, 27.1), (24, 24), kind) == 255).all()
    edge = np.zeros((30, 40, 3), np.uint8)
    edge[:, 20:] = 255  # bicubic overshoots on both sides of it
    one, two = ours(edge, (0, 0, 40, 30), (90, 120), kind), pillows(edge, (0, 0, 40, 30), (90, 120), kind)
    assert np.abs(one.astype(int) - two.astype(int)).max() <= 1


def test_the_whole_at_its_own_size_is_itself() -> None:
    image = np.asarray(photo(61, 47))
    for kind in FILTERS.values():
        assert np.array_equal(ours(image, (0, 0, 61, 47), (47, 61), kind), image)


def test_an_image_that_may_not_be_written_is_read() -> None:
    image = np.asarray(photo(61, 47))
    assert not image.flags.writeable
    copy = image.copy()
    for picture in (image, copy):
        assert np.array_equal(ours(picture, (3, 4, 60, 40), (24, 24), BICUBIC), ours(copy, (3, 4, 60, 40), (24, 24), BICUBIC))


@st.composite
def cases(draw: Any) -> tuple[tuple[int, int], Box, tuple[int, int], int]:
    """Draw an image's shape, a box inside it, an output size and a filter."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    edges = []
    for length in (width, height):
        a, b = sorted((draw(st.floats(0, length)), draw(st.floats(0, length))))
        edges.append((a, b) if b - a >= 0.5 else (0.0, float(length)))
    (left, right), (top, bottom) = edges
    size = (draw(st.integers(1, 130)), draw(st.integers(1, 130)))
    return (height, width), (left, top, right, bottom), size, draw(st.sampled_from([BICUBIC, BILINEAR]))


def naive_weights(start: float, extent: float, length: int, size: int, kind: int) -> np.ndarray:
    """Return the weight of each input in each output, (size, length), in plain loops: the filters by their definitions."""
    scale = extent / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, length))
    for output in range(size):
        centre = start + (output + 0.5) * scale
        support = stretch * (1 if kind == BILINEAR else 2)
        lowest, highest = math.floor(start), min(length, math.ceil(start + extent))
        for i in range(max(lowest, int(centre - support + 0.5)), min(highest, int(centre + support + 0.5))):
            x = abs(i + 0.5 - centre) / stretch
            if kind == BILINEAR:
                weights[output, i] = max(0.0, 1 - x)
            elif x < 1:
                weights[output, i] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weights[output, i] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights[output] /= weights[output].sum()
    return weights


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(0, 9))
def test_any_box_equals_the_definition(case: tuple[tuple[int, int], Box, tuple[int, int], int], seed: int) -> None:
    shape, box, size, kind = case
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    rows = naive_weights(box[1], box[3] - box[1], shape[0], size[0], kind)
    columns = naive_weights(box[0], box[2] - box[0], shape[1], size[1], kind)
    exact = np.clip(np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(float)), 0, 255)
    assert np.abs(ours(image, box, size, kind) - exact).max() <= 0.501  # rounded once; sums are 32-bit floats
