"""A report as one HTML file: nothing loaded from anywhere, pictures as data: URIs, at most 5 MB.

Captions are hostile input: templates escape everything, control characters are made visible, data for the script is JSON
without markup, and the page's content security policy allows only its own style sheet and script (by hash) and pictures.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.report.numbers import SECTIONS, section
from shards.upright import open_image, upright_rgb

if TYPE_CHECKING:
    import jinja2

MAX_BYTES = 5_000_000
MAX_TEXT, MAX_CELL = 400, 80  # characters of a text, and of one in a large table
CLASSES = 8  # the style sheet has the colours of sources as .c0 … .c7
# What pictures shrink to, (longest side, WebP quality), until the page is small enough; then fewer of them are shown.
SMALLER = ((64, 60), (48, 50))
_DIGITS = 12
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks that turn the order of writing


def render(report: dict[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the page of a report; `pictures` are WebP thumbnails by the names that its rows have in `picture`."""
    from curate.report.plots import colours_of

    present = [name for name in SECTIONS if report[name]]
    sources = [source["name"] for source in report["sources"]]
    figures = {name: section(name).figures(report[name], colours_of(sources)) for name in present}
    headings = [(name, SECTIONS[name]) for name in present]
    return render_page("report.html", report, pictures, sources, headings, report=report, figures=figures)


def render_page(
    template: str,
    values: dict[str, Any],
    pictures: Mapping[str, bytes],
    sources: Sequence[str],
    sections: Sequence[tuple[str, str]],
    **variables: Any,
) -> str:
    """Return a page of a template that extends base.html, its pictures shrunk so that it stays within MAX_BYTES.

    Args:
        values: what the JSON holds; lists of rows in it name pictures, and their first rows keep theirs longest.
        pictures: WebP thumbnails by name.
        sources: what has a colour, in order.
        sections: the id and heading of each section.
        given: more for the template.
    """
    here = Path(__file__).parent
    page = template_environment().get_template(template)
    fixed = {
        "sources": sources,
        "classes": {source: f"c{i % CLASSES}{' again' * (i >= CLASSES)}" for i, source in enumerate(sources)},
        "sections": sections,
        "style": (here / "style.css").read_text(encoding="utf-8"),
        "script": (here / "page.js").read_text(encoding="utf-8"),
        **variables,
    }
    bare = page.render(**fixed, pictures={}, hidden_pictures="")
    pictures_by_name, left_out = fit(named(values), pictures, MAX_BYTES - len(bare.encode()) - 1000)
    return page.render(**fixed, pictures=pictures_by_name, hidden_pictures=left_out)


def named(value: Any, place: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (place in its list, name) of each picture that rows name."""
    if isinstance(value, dict):
        if isinstance(value.get("picture"), str):
            yield place, value["picture"]
        for inner in value.values():
            yield from named(inner, place)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from named(inner, i)


def fit(wanted: Iterator[tuple[int, str]], pictures: Mapping[str, bytes], most: int) -> tuple[dict[str, str], str]:
    """Return data: URIs of all the pictures if they fit into `most` bytes, else of smaller ones, else of the first ones; and what was done.

    A picture that is named twice counts twice: it stands in the page twice.
    """
    names = [name for _, name in sorted(wanted, key=lambda pair: pair[0]) if pictures.get(name)]
    fitting: Mapping[str, bytes] = {name: pictures[name] for name in names}
    for shrink in (None, *SMALLER):
        if shrink:
            fitting = {name: _smaller(content, *shrink) for name, content in fitting.items()}
        uris = {name: "data:image/webp;base64," + base64.b64encode(content).decode() for name, content in fitting.items()}
        if sum(len(uris[name]) for name in names) <= most:
            return uris, f"Pictures are {shrink[0]} pixels small, to keep this page under 5 MB." if shrink else ""
    by_name: dict[str, str] = {}
    for name in dict.fromkeys(names):
        most -= len(uris[name]) * names.count(name)
        if most < 0:
            break
        by_name[name] = uris[name]
    return (
        by_name,
        f"{number(len(by_name))} of {number(len(uris))} pictures are shown, the first of each list, so that this page stays under 5 MB.",
    )


def _smaller(content: bytes, side: int, quality: int) -> bytes:
    image = upright_rgb(open_image(content))
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


@functools.cache
def template_environment() -> jinja2.Environment:
    """Return what renders the templates of `templates/`, with the page's filters: made once, so that each is compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        n=number, percent=percent, size=file_size, text=visible, sha256=sha256, short=lambda digest: digest[:_DIGITS]
    )
    environment.globals.update(json_data=json_data, steps=steps)
    return environment


def compile_templates() -> None:
    """Compile all templates, as the first page would."""
    environment = template_environment()
    for name in environment.list_templates():
        environment.get_template(name)


def sha256(text: str) -> str:
    """Return the hash of a style sheet or script as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_data(name: str, value: Any) -> Any:
    """Return a <script> of JSON for page.js to read: its texts as the page may show them; nothing in it can end the element."""
    import markupsafe

    text = json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup('<script type="application/json" id="{}">{}</script>').format(name, markupsafe.Markup(text))  # noqa: S704  escaped above


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return visible(value, MAX_CELL) if isinstance(value, str) else value


def steps(source: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a source's waterfall: each step with its bar, from `start` to `start + share` of the inputs (0 to 1)."""
    inputs = source["inputs"]

    def step(kind: str, label: str, count: int, left: int, why: str = "", examples: Sequence[Any] = ()) -> dict[str, Any]:
        bar = {"share": _part(count, inputs), "start": _part(left, inputs)}
        return {"kind": kind, "label": label, "count": count, **bar, "why": why, "examples": examples}

    rows = [step("inputs", "inputs", inputs, 0)]
    rows += [step("dropped", d["reason"], d["count"], d["left"], d["why"], d["examples"]) for d in source["dropped"]]
    kept, spare = source["kept"]["count"], source["spare"]["count"]
    explained = {"holdout": "set aside as the recipe asks", "spare": "survived, but not needed for the samples asked for"}
    for name, left in (("holdout", kept + spare), ("spare", kept)):
        if source[name]["count"]:
            rows.append(step(name, name, source[name]["count"], left, explained[name]))
    return [*rows, step("kept", "kept", kept, 0)]


def _part(n: int, of: int) -> float:
    return n / of if of else 0.0


def visible(text: str | None, most: int = MAX_TEXT) -> str:
    """Return a text as the page may show it: control characters as their pictures, marks that turn the
    order of writing and tags, which nobody sees, as escapes; at most so many characters."""
    text = text or ""
    cut = text if len(text) <= most else f"{text[:most]}… ({number(len(text))} characters)"
    return "".join(_visible(c) for c in cut)


def _visible(c: str) -> str:
    code = ord(c)
    if code < 0x20 and c not in "\n\t":
        return chr(0x2400 + code)
    if 0x7F <= code < 0xA0:
        return "\u2421"
    return f"\\U{code:08x}" if 0xE0000 <= code < 0xE0080 else f"\\u{code:04x}" if c in _TURNING else c


def number(value: int | float) -> str:
    """Return 1234567 as `1,234,567`, and 11.9 as `11.90`."""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def percent(share: float | None) -> str:
    """Return 0.12345 as `12.3%`; what is not quite nothing, or not quite all, does not look like it. Not known is blank."""
    if share is None:
        return ""
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
