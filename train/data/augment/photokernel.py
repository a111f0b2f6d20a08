"""The compiled photometric chain of the CPU: uint8 crops in, normalised crops out, in two to four passes over a sample.

It computes what `train.data.augment.photometric` defines with torch, and equals it within 1e-5. A sample is held as three float
planes, and all operations between two barriers are done row by row while the row is in the cache. The barriers are
contrast, which needs the mean of the image, and the blur. A sample without any operation goes through a table of 256
values per channel, 0.1 ms for 224 pixels, where torch needs 0.7 (in place) to 2.7 ms. Imports numba: import it where there is work.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.uint8]

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
# Beyond so many sigma a Gaussian's weights come to less than 1e-7 together, so they are left out: on average, that is
# half of a kernel of 23 taps with sigma up to 2.
_REACH = 5.5
_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_RED, _GREEN, _BLUE = _F(0.2989), _F(0.587), _F(0.114)  # torchvision's luma
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


@_compiled
def plain(rows: Any, images: Pixels, flip: Any, table: Any, out: Any) -> None:
    """Flip and normalise some samples of a batch of n, in place in `out`.

    Args:
        rows: which samples.
        images: (n, H, W, 3) uint8, C-contiguous.
        flip: (n,) bool.
        table: (3, 256), what each level of a channel becomes; of the type of `out`.
        out: (n, H, W, 3) float32, or uint16 for the upper halves of float32, which are bfloat16.
    """
    height, width = images.shape[1], images.shape[2]
    red, green, blue = table[0], table[1], table[2]
    for i in rows:
        # Worked out before the loop: the compiler cannot know that writing to `out` leaves `flip` as it is.
        first, step = (width - 1, -1) if flip[i] else (0, 1)
        for y in range(height):
            image, target = images[i, y], out[i, y]
            for x in range(width):
                source = np.uint64(first + step * x)  # of a signed index, numba asks whether it counts from the end
                target[x, 0] = red[image[source, 0]]
                target[x, 1] = green[image[source, 1]]
                target[x, 2] = blue[image[source, 2]]


@_compiled
def chain(
    rows: Any, images: Pixels, flip: Any, factors: Floats, order: Any, gray: Any, sigma: Floats, solarize: Any,
    scale: Floats, bias: Floats, out: Any,
) -> None:  # fmt: skip
    """Do all operations of some samples of a batch of n, in place in `out`.

    Args:
        rows: which samples.
        images: (n, H, W, 3) uint8, C-contiguous.
        flip: and the next five: the arrays of AugmentParams.
        factors: (n, 4).
        order: (n, 4).
        gray: (n,).
        sigma: (n,).
        solarize: (n,).
        scale: (3,); the output is value · scale + bias, for a value in [0, 1].
        bias: (3,).
        out: (n, H, W, 3) float32, or uint16 for the upper halves of float32, which are bfloat16.
    """
    height, width = images.shape[1], images.shape[2]
    planes = np.empty((3, height, width), np.float32)
    for i in rows:
        mean = _ZERO
        barrier = _contrast_turn(factors[i], order[i])
        for stage in range(2 if barrier < 4 else 1):  # before and after the barrier, if there is one
            total = 0.0
            for y in range(height):
                red, green, blue = planes[0, y], planes[1, y], planes[2, y]
                if stage == 0:
                    _load(images[i, y], flip[i], red, green, blue)
                else:
                    _blend_constant(red, green, blue, factors[i, _CONTRAST], mean)
                _colour(red, green, blue, factors[i], order[i], 0 if stage == 0 else barrier + 1, barrier if stage == 0 else 4)
                if stage == 0 and barrier < 4:
                    total += _luma_sum(red, green, blue)
                    continue
                if gray[i]:
                    _gray(red, green, blue)
                if not sigma[i] > 0:
                    for channel in range(3):
                        _write(planes[channel, y], out[i, y], channel, solarize[i], scale, bias)
            mean = _F(total / (height * width))
        if sigma[i] > 0:
            _blur(planes, gray[i], sigma[i], solarize[i], scale, bias, out[i])


@_compiled
def _contrast_turn(factors: Floats, order: Any) -> int:
    """Return the turn in which contrast comes; 4 where it changes nothing."""
    for turn in range(4):
        if order[turn] == _CONTRAST and factors[_CONTRAST] != _ONE:
            return turn
    return 4


@_compiled
def _load(pixels: Pixels, flip: bool, red: Floats, green: Floats, blue: Floats) -> None:
    """Split a row of pixels into planes in [0, 1]."""
    width = len(red)
    unit = _F(1 / 255)
    for x in range(width):
        source = width - 1 - x if flip else x
        red[x] = _F(pixels[source, 0]) * unit
        green[x] = _F(pixels[source, 1]) * unit
        blue[x] = _F(pixels[source, 2]) * unit


@_compiled
def _colour(red: Floats, green: Floats, blue: Floats, factors: Floats, order: Any, start: int, stop: int) -> None:
    """Apply the colour operations of some turns to a row; contrast is done elsewhere."""
    for turn in range(start, stop):
        which = order[turn]
        factor = factors[which]
        if which == _BRIGHTNESS and factor != _ONE:
            _blend_constant(red, green, blue, factor, _ZERO)
        elif which == _SATURATION and factor != _ONE:
            _saturation(red, green, blue, factor)
        elif which == _HUE and factor != _ZERO:
            _hue(red, green, blue, factor)


@_compiled
def _clamp(value: Any) -> Any:
    value = value if value > _ZERO else _ZERO
    return value if value < _ONE else _ONE


@_compiled
def _blend_constant(red: Floats, green: Floats, blue: Floats, factor: Any, constant: Any) -> None:
    """Blend with a gray level: brightness (0) and contrast (the mean luma)."""
    offset = (_ONE - factor) * constant
    for x in range(len(red)):
        red[x] = _clamp(factor * red[x] + offset)
        green[x] = _clamp(factor * green[x] + offset)
        blue[x] = _clamp(factor * blue[x] + offset)


@_compiled
def _saturation(red: Floats, green: Floats, blue: Floats, factor: Any) -> None:
    """Blend with luma."""
    rest = _ONE - factor
    for x in range(len(red)):
        luma = rest * (_RED * red[x] + _GREEN * green[x] + _BLUE * blue[x])
        red[x] = _clamp(factor * red[x] + luma)
        green[x] = _clamp(factor * green[x] + luma)
        blue[x] = _clamp(factor * blue[x] + luma)


@_compiled
def _hue(red: Floats, green: Floats, blue: Floats, turns: Any) -> None:
    """Turn the hue; the formula is that of `photometric.hue`."""
    shift = _F(6) * turns
    for x in range(len(red)):
        r, g, b = red[x], green[x], blue[x]
        value = max(r, max(g, b))
        chroma = value - min(r, min(g, b))
        inverse = _ONE / (chroma if chroma > _ZERO else _ONE)
        of_red, of_green, of_blue = (g - b) * inverse, _F(2) + (b - r) * inverse, _F(4) + (r - g) * inverse
        sextant = of_red if value == r else (of_green if value == g else of_blue)
        turned = sextant + shift
        red[x] = value - chroma * _ramp(_F(5) + turned)
        green[x] = value - chroma * _ramp(_F(3) + turned)
        blue[x] = value - chroma * _ramp(_ONE + turned)


@_compiled
def _ramp(k: Any) -> Any:
    """Return max(0, min(k, 4 − k, 1)) of k modulo 6."""
    k -= _F(6) * _F(math.floor(k * _F(1 / 6)))
    return _clamp(min(k, _F(4) - k))


@_compiled
def _luma_sum(red: Floats, green: Floats, blue: Floats) -> Any:
    total = _ZERO
    for x in range(len(red)):
        total += _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
    return total


@_compiled
def _gray(red: Floats, green: Floats, blue: Floats) -> None:
    for x in range(len(red)):
        luma = _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
        red[x], green[x], blue[x] = luma, luma, luma


@_compiled
def _write(values: Floats, out: Any, channel: int, solarize: bool, scale: Floats, bias: Floats) -> None:
    """Solarise, normalise and write one channel of a row; `values` is used up."""
    if solarize:
        for x in range(len(values)):
            values[x] = _ONE - values[x] if values[x] >= _HALF else values[x]
    times, plus = scale[channel], bias[channel]
    for x in range(len(values)):
        values[x] = values[x] * times + plus
    if out.itemsize == 4:
        for x in range(len(values)):
            out[x, channel] = values[x]
    else:
        bits = values.view(np.uint32)
        for x in range(len(values)):
            # bfloat16 is the upper half of float32, rounded to the nearest, ties to even.
            half = (bits[x] + np.uint32(0x7FFF) + ((bits[x] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            out[x, channel] = np.uint16(half)


@_compiled
def _blur(planes: Floats, gray: bool, sigma: Any, solarize: bool, scale: Floats, bias: Floats, out: Any) -> None:
    """Blur with reflected borders, first along rows, then along columns, and write; of a gray image one channel is enough."""
    height, width = planes.shape[1], planes.shape[2]
    weights = _gaussian(sigma, max(int(0.1 * width) | 1, 3) // 2)
    radius = len(weights) - 1
    padded = np.empty(width + 2 * radius, np.float32)
    line, copied = np.empty(width, np.float32), np.empty(width, np.float32)
    for channel in range(1 if gray else 3):
        plane = planes[channel]
        for y in range(height):
            _blur_row(plane[y], padded, weights)
        for y in range(height):
            row = plane[y]
            for x in range(width):
                line[x] = weights[0] * row[x]
            for k in range(1, radius, 2):
                above, below = plane[_reflected(y - k, height)], plane[_reflected(y + k, height)]
                further_above, further_below = plane[_reflected(y - k - 1, height)], plane[_reflected(y + k + 1, height)]
                near, far = weights[k], weights[k + 1]
                for x in range(width):
                    line[x] += near * (above[x] + below[x]) + far * (further_above[x] + further_below[x])
            for target in range(3):
                if gray or target == channel:
                    copied[:] = line
                    _write(copied, out[y], target, solarize, scale, bias)


@_compiled
def _gaussian(sigma: Any, reach: int) -> Floats:
    """Return the weights at distance 0, 1, … of a kernel that reaches so far and sums to 1.

    Those beyond _REACH sigma are left out. An even number of them follows the first, as they are used two at a time: two fused
    steps are 1.3 times as fast as two single ones. The last may be 0.
    """
    radius = min(reach, math.ceil(_REACH * sigma))
    weights = np.zeros(1 + radius + radius % 2, np.float32)
    total = 0.0
    for k in range(reach + 1):
        weight = math.exp(-0.5 * (k / sigma) ** 2)
        total += weight if k == 0 else 2 * weight
        if k <= radius:
            weights[k] = weight
    for k in range(radius + 1):
        weights[k] /= total
    return weights


@_compiled
def _reflected(index: int, size: int) -> int:
    """Return the index that a border reflects to, the border itself not repeated."""
    index = -index if index < 0 else index
    return 2 * (size - 1) - index if index >= size else index


@_compiled
def _blur_row(row: Floats, padded: Floats, weights: Floats) -> None:
    """Blur a row in place; `padded` is scratch."""
    width, radius = len(row), len(weights) - 1
    for x in range(radius):
        padded[x] = row[_reflected(x - radius, width)]
        padded[radius + width + x] = row[_reflected(width + x, width)]
    padded[radius : radius + width] = row
    for x in range(width):
        row[x] = weights[0] * padded[x + radius]
    for k in range(1, radius, 2):
        left, right = padded[radius - k : radius - k + width], padded[radius + k : radius + k + width]
        further_left, further_right = padded[radius - k - 1 : radius - k - 1 + width], padded[radius + k + 1 : radius + k + 1 + width]
        near, far = weights[k], weights[k + 1]
        for x in range(width):
            row[x] += near * (left[x] + right[x]) + far * (further_left[x] + further_right[x])
