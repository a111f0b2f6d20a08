"""What a count spectrum says about a vocabulary: `types[i]` different words occur `counts[i]` times each, counts ascending.

The order in which the words came is not needed: the type–token curve is its expectation over all orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaln, zeta

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

POINTS = 60  # of a curve
HEAPS_LEAST = 1_000  # tokens, below which no Heaps' law is fitted
HEAPS_DECADES = 2  # fitted over the last two decades of the curve
ZIPF_LEAST = 100  # words that a fitted tail has at least
ZIPF_STARTS = 60  # tails that are tried
EXPONENTS = (1.05, 8.0)  # of the spectrum, between which the fit looks


def rarefied(counts: I64, types: I64, sizes: I64) -> F64:
    """Return how many different words a random sample of the tokens is expected to have, drawn without replacement.

    A word that occurs f times among N tokens is missing from n of them with probability C(N - f, n) / C(N, n); the expectation
    is the sum of the complements (Hurlbert 1971, Ecology 52; exact, hypergeometric). The quotient is that of the beta functions
    B(N - f + 1, f) and B(N - n - f + 1, f), whose logarithms keep their digits where those of factorials would cancel.

    Args:
        sizes: (k,) sample sizes n, 0 to N.

    Returns:
        (k,) expected numbers of types.
    """
    total = int((counts * types).sum())
    expected = np.empty(len(sizes))
    for i, n in enumerate(sizes.tolist()):
        left = total - n - counts + 1
        rest = left > 0  # else the sample cannot do without the word
        missing = np.exp(betaln(total - counts[rest] + 1, counts[rest]) - betaln(left[rest], counts[rest]))
        expected[i] = types.sum() - (missing * types[rest]).sum() if n else 0.0
    return expected


def heaps(counts: I64, types: I64) -> dict[str, Any]:
    """Return the type–token curve, [tokens, expected types] at sizes on a logarithmic scale, and Heaps' law V = k · n^beta.

    The law is fitted by least squares of ln V on ln n at sizes evenly apart on a logarithmic scale, over the last two decades
    (from N / 100 to N tokens); `off` is the furthest that the curve is from it there, as a share of the curve. None of these
    with fewer than HEAPS_LEAST tokens.
    """
    total = int((counts * types).sum())
    sizes = _apart(1, total)
    curve = [[n, round(v, 2)] for n, v in zip(sizes.tolist(), rarefied(counts, types, sizes).tolist(), strict=True)]
    fitted: dict[str, Any] = {"curve": curve, "k": None, "beta": None, "from": None, "to": None, "off": None}
    if total < HEAPS_LEAST:
        return fitted
    sizes = _apart(max(total // 10**HEAPS_DECADES, 1), total)
    k, beta, off = power_law(sizes.astype(np.float64), rarefied(counts, types, sizes))
    return fitted | {"k": float(f"{k:.4g}"), "beta": round(beta, 4), "from": int(sizes[0]), "to": total, "off": round(off, 4)}


def power_law(x: F64, y: F64) -> tuple[float, float, float]:
    """Return k, b of y = k · x^b by least squares of the logarithms, and the furthest that y is from it, as a share of y."""
    log_x, log_y = np.log(x), np.log(y)
    middle = log_x - log_x.mean()
    b = float((middle * log_y).sum() / (middle * middle).sum())
    log_k = float(log_y.mean() - b * log_x.mean())
    return float(np.exp(log_k)), b, float(np.abs(np.expm1(log_k + b * log_x - log_y)).max())


def rank_frequency(counts: I64, types: I64) -> list[list[int]]:
    """Return [rank, count] at ranks on a logarithmic scale; the most frequent word has rank 1."""
    last = np.cumsum(types[::-1])  # the last rank of each count, from the largest count
    ranks = _apart(1, int(last[-1]) if len(last) else 0)
    return [[rank, int(n)] for rank, n in zip(ranks.tolist(), counts[::-1][np.searchsorted(last, ranks)], strict=True)]


def zipf(counts: I64, types: I64) -> dict[str, Any]:
    """Return the rank–frequency curve and Zipf's exponent: frequency ~ rank^-exponent.

    It is fitted to the spectrum, whose words are independent of each other, and not to ranks, which are made from the very
    counts that they are to explain: a discrete power law p(f) ~ f^-gamma of the words that occur `least` times or more, by
    maximum likelihood, with the `least` whose fit is nearest to the data (Kolmogorov–Smirnov distance `ks`), as Clauset, Shalizi
    and Newman (2009, SIAM Review 51) do; exponent = 1 / (gamma - 1) (Corral, Boleda and Ferrer-i-Cancho 2015, PLoS ONE 10).
    `error` is one standard error from the Fisher information at that `least`; `words` is how many words the fit rests on.
    None of these where no tail of ZIPF_LEAST words can be fitted.
    """
    found: dict[str, Any] = dict.fromkeys(("exponent", "error", "gamma", "least", "words", "ks"))
    words = np.cumsum(types[::-1])[::-1]
    starts = np.flatnonzero(words >= ZIPF_LEAST)
    starts = starts[_apart(1, len(starts), ZIPF_STARTS) - 1]
    fits = [fit for start in starts if (fit := _fit(counts[start:], types[start:])) is not None]
    if fits:
        ks, least, gamma, error, n = min(fits)
        exponent = 1 / (gamma - 1)
        found = {
            "exponent": round(exponent, 4),
            "error": round(exponent**2 * error, 4),
            "gamma": round(gamma, 4),
            "least": least,
            "words": n,
            "ks": round(ks, 4),
        }
    return {"curve": rank_frequency(counts, types), **found}


def _fit(counts: I64, types: I64) -> tuple[float, int, float, float, int] | None:
    """Return (distance, least count, gamma, its standard error, words) of a discrete power law; None at the edge of EXPONENTS."""
    least, n = int(counts[0]), int(types.sum())
    mean = float((np.log(counts) * types).sum() / n)
    low, high = EXPONENTS
    gamma = float(minimize_scalar(lambda g: np.log(zeta(g, least)) + g * mean, bounds=(low, high), options={"xatol": 1e-9}).x)
    if not low + 1e-3 < gamma < high - 1e-3:
        return None
    step = 1e-4  # the information of one word is the second derivative of ln zeta
    at = np.log(zeta(gamma + step * np.arange(-1, 2), least))
    error = float(1 / np.sqrt(n * (at[0] - 2 * at[1] + at[2]) / step**2))
    # Between two counts that occur the fitted law goes on and the data stand still: the distance is looked at on both sides.
    above = zeta(gamma, np.concatenate([counts[1:], counts[-1:] + 1])) / zeta(gamma, least)  # beyond the last one before the next
    beyond = zeta(gamma, counts + 1) / zeta(gamma, least)
    seen = 1 - np.cumsum(types) / n
    return float(max(np.abs(seen - above).max(), np.abs(seen - beyond).max())), least, gamma, error, n


def _apart(first: int, last: int, points: int = POINTS) -> I64:
    """Return at most so many different whole numbers from first to last, evenly apart on a logarithmic scale."""
    return np.unique(np.round(np.geomspace(first, last, points)).astype(np.int64)) if last >= first else np.zeros(0, np.int64)
