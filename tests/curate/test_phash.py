"""The linear hashes against their naive twin, Pillow's resize and scipy's DCT; sums that no order changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from drawing import encoded, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dct

from curate.phash import _linear, _read, _side, phash


def rich(i: int, size: tuple[int, int]) -> Image.Image:
    """Return a picture with structure in all the frequencies that the hash reads."""
    small = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def twin(pixels: np.ndarray) -> np.ndarray:
    """Return the 8×8 coefficients of pixels that Pillow has resized in floating point: no rounding, no clipping."""
    small = np.asarray(Image.fromarray(pixels.astype(np.float32), "F").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    return dct(dct(small, axis=0), axis=1)[:8, :8]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_one_matrix_a_side_resizes_and_transforms(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    (left, a), (right, b) = _side(height), _side(width)
    found, expected = left @ pixels.astype(np.float64) @ right.T / (a * b), twin(pixels)
    assert np.abs(found - expected).max() < 0.002 * np.abs(expected).max()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 255), st.integers(1, 2048), st.integers(0, 2**32 - 1))
def test_sums_are_exact_so_that_no_order_changes_them(height: int, width: int, seed: int) -> None:
    """The sides that a scaled decode leaves; brightest pixels where a weight is positive, for the largest sums."""
    rng = np.random.default_rng(seed)
    left, right = _side(height)[0], _side(width)[0]
    assert (left == np.rint(left)).all()
    assert np.abs(left).max() <= 2**13
    worst = 255 * (np.outer(left[rng.integers(8)], right[rng.integers(8)]) > 0)
    for pixels in (worst, rng.integers(0, 256, (height, width))):
        exact = left.astype(np.int64) @ pixels.astype(np.int64) @ right.astype(np.int64).T
        assert np.abs(exact).max() < 2**53
        assert (left @ pixels.astype(np.float64) @ right.T == exact).all()


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (256, 256), (130, 90), (33, 97), (3000, 40)])
def test_the_linear_hashes_are_near_the_reference(size: tuple[int, int]) -> None:
    bits = {kind: [] for kind in ("scaled", "fast")}
    for i in range(12):
        content = encoded(rich(i, size))
        reference, information = phash(content, size, False, "reference")
        for kind, found in bits.items():
            other, level = phash(content, size, False, kind)
            found.append((reference ^ other).bit_count())
            assert level == pytest.approx(information, rel=0.05, abs=0.5)
    assert np.median(bits["scaled"]) <= 2
    assert max(bits["scaled"]) <= 4
    assert max(bits["fast"]) <= 8


def test_a_gray_jpeg_has_the_hash_of_the_same_gray_in_colour() -> None:
    """Lossless on both ways: a gray file's luma is decoded alike, so the reference of its pixels as RGB is imagededup's, too."""
    from imagededup.methods import PHash

    for i in range(5):
        content = encoded(picture(i, 120, 90).convert("L"))
        array = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert f"{phash(content, (120, 90), True, 'reference')[0]:016x}" == PHash(verbose=False).encode_image(image_array=array)


def test_information_is_a_deviation_in_gray_levels() -> None:
    x = np.arange(320)
    wave = (128 + 50 * np.cos(np.pi * 3 * (x + 0.5) / 320)).round().astype(np.uint8)  # one of the 8×8 coefficients
    assert _linear(np.tile(wave, (200, 1)))[1] == pytest.approx(wave.std(), rel=0.02)
    assert _linear(np.full((200, 320), 90, np.uint8))[1] < 0.2
    assert _read(np.zeros((8, 8)), 1.0) == (2**64 - 1, 0.0)
