"""What is learned of a source on the report's random sample: its rows, shares with their intervals, languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

CAPTIONS = 2000  # most captions per source whose language is named
CHARACTERS = 1000  # of a caption, from its start: enough for the language, and a long one costs no second
CONFIDENCE = 0.5  # least probability of a language that counts as sure, as in the filter
UNSURE, NONE = "unsure", "none"
_Z = 1.959963984540054  # the normal distribution's quantile at 0.975


def sample_of(sample: pa.Table, source: str) -> list[dict[str, Any]]:
    """Return the sample's rows of a source, lowest rank first."""
    import pyarrow.compute as pc

    return sample.filter(pc.equal(sample["source"], source)).to_pylist()


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the sample as the page shows it; `picture` names its picture."""
    return {**{name: row[name] for name in ("source", "uid", "caption", "width", "height")}, "picture": row["at"]}


def estimated(count: int, n: int) -> dict[str, Any]:
    """Return a share that was seen in a random sample of n > 0: count, share, and its 95% interval, low and high.

    The interval is Wilson's (1927, J. Am. Stat. Assoc. 22, 209).
    """
    share = count / n
    centre, half = share + _Z**2 / (2 * n), _Z * (share * (1 - share) / n + _Z**2 / (4 * n * n)) ** 0.5
    low, high = ((centre + sign * half) / (1 + _Z**2 / n) for sign in (-1, 1))
    return {"count": count, "share": round(share, 6), "low": round(max(0.0, low), 6), "high": round(min(1.0, high), 6)}


def languages(captions: Sequence[str]) -> dict[str, Any] | None:
    """Return the languages of a sample's first CAPTIONS captions: n, and shares by ISO 639 code, most frequent first.

    UNSURE are those that the model (py3langid) is not sure of, such as very short ones; NONE those without a letter.
    None where there is no caption.
    """
    from curate.filters.language import identify

    codes: Counter[str] = Counter()
    for caption in captions[:CAPTIONS]:
        code, confidence = identify(caption[:CHARACTERS])
        codes[(code if confidence >= CONFIDENCE else UNSURE) if code else NONE] += 1
    n = codes.total()
    order = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    return {"n": n, "shares": [{"code": code, **estimated(count, n)} for code, count in order]} if n else None
