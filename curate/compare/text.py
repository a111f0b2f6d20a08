"""A comparison as text tables: sets are called A, B, C …, in the order given."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Any

from shards.core.console import table, visible

QUANTILES = ("min", "p5", "median", "p95", "max")
WORDS = 15  # of a list


def text(found: dict[str, Any], paths: tuple[str, ...]) -> str:
    """Return a comparison as text; `paths`: the sets as they were given."""
    letters = {one["name"]: letter_of(i) for i, one in enumerate(found["sets"])}
    head = [f"{letters[one['name']]}  {visible(path)}: {one['samples']:,} samples" for one, path in zip(found["sets"], paths, strict=True)]
    parts = ["\n".join(head), *_overlap(found["overlap"], letters), *_moved(found["moved"], letters)]
    if "vocabulary" in found:
        parts += [*_recipes(found["recipes"], letters), _spread(found["spread"], letters), *_words(found["vocabulary"], letters)]
    return "\n\n".join(parts)


def letter_of(i: int) -> str:
    """Return A, B … Z, A1, B1 …"""
    return string.ascii_uppercase[i % 26] + (str(i // 26) if i >= 26 else "")


def _overlap(pairs: list[dict[str, Any]], letters: dict[str, str]) -> Iterator[str]:
    if len(pairs) == 1:
        yield table(("shared", "of A in B", "%", "of B in A", "%", "Jaccard"), [_cells(title, one) for title, one in _rows(pairs[0])])
        return
    titles = dict.fromkeys(title for pair in pairs for title, _ in _rows(pair))
    for title in titles:
        cells: dict[tuple[str, str], str] = {}
        for pair in pairs:
            one = dict(_rows(pair)).get(title)
            if one:
                a, b = letters[pair["a"]], letters[pair["b"]]
                _, _, cells[a, b], _, cells[b, a], _ = _cells(title, one)
        rows = [(row, *(cells.get((row, column), "" if row != column else "-") for column in letters.values())) for row in letters.values()]
        yield table((f"{title}, % of … in …", *letters.values()), rows)


def _rows(pair: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield {"uid": "same uid", "source_id": "same native id"}[pair["ids"]["by"]], pair["ids"]
    if "near" in pair:
        near = pair["near"]
        yield "same bytes", pair["bytes"]
        yield f"within {near['radius']} bits of pHash", near
        yield "… and neither uid nor bytes", near["beyond"]


def _cells(title: str, one: dict[str, Any]) -> tuple[Any, ...]:
    shares = [f"{100 * share:.1f}" if known else "" for share, known in zip(one["shares"], one["known"], strict=True)]
    jaccard = one.get("jaccard")
    return (title, one["a_in_b"], shares[0], one["b_in_a"], shares[1], "" if jaccard is None else f"{jaccard:.3f}")


def _moved(pairs: list[dict[str, Any]], letters: dict[str, str]) -> Iterator[str]:
    for pair in pairs:
        a, b = letters[pair["a"]], letters[pair["b"]]
        total = [{"name": "all sources", **pair["total"]}] if len(pair["sources"]) > 1 else []
        rows = [(one["name"] or "(none)", *one["a"].values(), *one["b"].values()) for one in [*pair["sources"], *total]]
        yield table(("source", f"in {a}", f"also in {b}", f"{a} only", f"in {b}", f"also in {a}", f"{b} only"), rows)
        for mine, theirs, side in ((a, b, "a"), (b, a, "b")):
            rows = [(f"{w['decision']} {w['reason']}".strip(), w["count"], f"{w['share']:.1%}", w["why"]) for w in pair["went"][side]]
            if rows:
                yield table((f"{mine} only, by the ledger of {theirs}", "samples", "share", ""), rows)


def _recipes(found: dict[str, Any], letters: dict[str, str]) -> Iterator[str]:
    if found["rows"]:
        rows = [(row["key"], *(value or "" for value in row["values"])) for row in found["rows"]]
        yield table(("recipe", *(letters[name] for name in found["sets"])), rows)


def _spread(found: dict[str, Any], letters: dict[str, str]) -> str:
    kinds = (("side", "shorter side, px"), ("words", "words in a caption"), ("characters", "characters"))
    rows = []
    for key, title in kinds:
        for name, measures in found.items():
            one = measures[key]
            values = [""] * 6 if one is None else [one[q] for q in ("mean", *QUANTILES)]
            rows.append((title, letters[name], *values))
            title = ""
    return table(("", "", "mean", *QUANTILES), rows)


def _words(found: dict[str, Any], letters: dict[str, str]) -> Iterator[str]:
    yield table(
        (f"words of {found['captions']:,} captions each", "words", "distinct"),
        [(letters[one["name"]], one["words"], one["distinct"]) for one in found["sets"]],
    )
    rows = []
    for pair in found["pairs"]:
        if pair["divergence"] is not None:
            low, high = pair["interval"]
            chance = f"{pair['by_chance']:.4f}, to {pair['by_chance_high']:.4f}"
            seen = (f"{pair['divergence']:.4f}", f"{low:.4f} to {high:.4f}", chance, f"{pair['beyond_chance']:.4f}")
            rows.append((f"{letters[pair['a']]} and {letters[pair['b']]}", *seen))
    if rows:
        head = ("Jensen–Shannon divergence, bits", "seen", "95% interval", "by chance, and 97.5%", "beyond chance")
        yield table(head, rows)
    for pair in found["pairs"]:
        a, b = letters[pair["a"]], letters[pair["b"]]
        left, right = ([(w["word"], w["a"], w["b"]) for w in pair[side][:WORDS]] for side in ("more_a", "more_b"))
        if left or right:
            blank = ("", "", "")
            rows = [(*x, *y) for x, y in itertools.zip_longest(left, right, fillvalue=blank)]
            yield table((f"more in {a}", a, b, f"more in {b}", a, b), rows)
