"""The report as one HTML file: no script, nothing loaded from anywhere, pictures as data: URIs.

Captions are hostile input: the template escapes everything, control characters are made visible, and the page's
content security policy forbids all but its own style sheet (by hash) and its own pictures.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

MAX_BYTES = 5_000_000
# Pictures shown per reason, group and for the kept ones; the first row of numbers with which the page is small enough.
_PICTURES = ((12, 8, 50), (12, 6, 50), (6, 6, 50), (3, 4, 50), (1, 2, 12), (0, 0, 0))
MAX_TEXT = 400
# Okabe and Ito's palette, told apart by colour-blind readers; the style sheet has the colours as .c0 … .c7.
COLOURS = 8
_DIGITS = 12


def render(report: dict[str, Any], examples: list[dict[str, Any]]) -> str:
    """Return the page of a report and its examples (rows with thumbnails), at most 5 MB long.

    Where the pictures would make it longer, fewer of them are shown.
    """
    for limits in _PICTURES:
        page = _render(report, examples, limits)
        if len(page.encode()) <= MAX_BYTES:
            break
    return page


def _render(report: dict[str, Any], examples: list[dict[str, Any]], limits: tuple[int, int, int]) -> str:
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(n=number, percent=percent, size=file_size, text=visible, short=lambda digest: digest[:_DIGITS])
    style = (here / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=report,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        colour={source["name"]: f"c{i % COLOURS}" for i, source in enumerate(report["sources"])},
        steps={source["name"]: steps(source) for source in report["sources"]},
        recipe=list(flattened(report["recipe"])),
        filters=filter_line(report["recipe"]),
        **_pictures(report, examples, limits),
    )


def _pictures(report: dict[str, Any], examples: list[dict[str, Any]], limits: tuple[int, int, int]) -> dict[str, Any]:
    """Sort the examples into dropped[source, reason], groups, kept, and pairs with test images, each row with its picture or none."""
    per_reason, per_group, per_kept = limits
    dropped: dict[str, dict[str, list[dict[str, Any]]]] = {source["name"]: {} for source in report["sources"]}
    groups: dict[int, list[dict[str, Any]]] = {}
    kept = []
    pairs: dict[int, list[dict[str, Any]]] = {}
    for row in examples:
        shown = {**row, "picture": _data_uri(row["thumbnail"])}
        if row["kind"] == "dropped" and row["position"] < max(per_reason, 1):
            dropped.setdefault(row["source"], {}).setdefault(row["reason"], []).append(shown)
        elif row["kind"] == "group" and row["position"] < max(per_group, 1):
            groups.setdefault(row["group"], []).append(shown)
        elif row["kind"] == "kept":
            kept.append(shown)
        elif row["kind"] == "test" and row["group"] < per_kept:
            pairs.setdefault(row["group"], []).append(shown)
        for limit, kind in ((per_reason, "dropped"), (per_group, "group"), (per_kept, "kept")):
            if row["kind"] == kind and row["position"] >= limit:
                shown["picture"] = ""
    by_survivor = {rows[0]["uid"]: rows for rows in groups.values()}
    largest = [{**group, "rows": by_survivor.get(group["survivor"], [])} for group in report["duplicates"]["largest"]]
    return {"dropped": dropped, "groups": largest, "kept": kept, "pairs": [pair for pair in pairs.values() if len(pair) == 2]}


def _data_uri(content: bytes | None) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}" if content else ""


def steps(source: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a source's waterfall: each step with its bar, from `start` to `start + share` of the inputs (0 to 1)."""
    inputs = source["inputs"]

    def step(kind: str, label: str, count: int, left: int, why: str = "") -> dict[str, Any]:
        return {"kind": kind, "label": label, "count": count, "share": _part(count, inputs), "start": _part(left, inputs), "why": why}

    rows = [step("inputs", "inputs", inputs, 0)]
    rows += [step("dropped", d["reason"], d["count"], d["left"], d["why"]) for d in source["dropped"]]
    kept, spare = source["kept"]["count"], source["spare"]["count"]
    explained = {"holdout": "set aside as the recipe asks", "spare": "survived, but not needed for the samples asked for"}
    for name, left in (("holdout", kept + spare), ("spare", kept)):
        if source[name]["count"]:
            rows.append(step(name, name, source[name]["count"], left, explained[name]))
    return [*rows, step("kept", "kept", kept, 0)]


def _part(n: int, of: int) -> float:
    return n / of if of else 0.0


def filter_line(recipe: dict[str, Any]) -> list[str]:
    """Return the recipe's filters in order, each with its options: `caption_length (min_words 1)`."""
    lines = []
    for entry in recipe.get("filters") or []:
        options = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "name" and value not in (None, "", []))
        lines.append(f"{entry.get('name')} ({options})" if options else str(entry.get("name")))
    return lines


def flattened(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Return a recipe as (dotted key, value) pairs."""
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in flattened(inner, f"{at}.{key}" if at else str(key))]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [pair for i, inner in enumerate(value) for pair in flattened(inner, f"{at}[{i}]")]
    if isinstance(value, list):
        return [(at, ", ".join(map(str, value)))]
    words = {True: "true", False: "false", None: "none"}
    return [(at, words[value] if value is None or isinstance(value, bool) else str(value))] if at else []


def visible(text: str | None) -> str:
    """Return a text as the page may show it: control characters as their pictures, at most 400 characters."""
    text = text or ""
    cut = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({number(len(text))} characters)"
    return "".join(_visible(c) for c in cut)


def _visible(c: str) -> str:
    code = ord(c)
    if code < 0x20 and c not in "\n\t":
        return chr(0x2400 + code)
    return "\u2421" if 0x7F <= code < 0xA0 else c


def number(value: int | float) -> str:
    """Return 1234567 as `1,234,567`, and 11.9 as `11.90`."""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def percent(share: float) -> str:
    """Return 0.12345 as `12.3%`; what is not quite nothing, or not quite all, does not look like it."""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else f"{share:.1%}"


def file_size(n: int) -> str:
    """Return bytes as `3.4 MB`, in powers of ten."""
    value, unit = float(n), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
