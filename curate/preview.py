"""Before a build: what each reason takes, as counts and a few samples, for the console and as one page of HTML.

`curate decide` has measured, so its samples have thumbnails; `--dry-run` has read captions alone, and says what it cannot know.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.config import FILTERS, filter_options
from curate.recipe import Recipe
from shards.core import fs, registry
from shards.core.console import visible
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import duckdb

SHOWN = 3  # samples of a source and a reason on the console; the page has all that are chosen
_WIDTH = 100
# Columns that are known once an image was opened, and the digests that some filters make of it.
_OF_IMAGES = re.compile(
    r"\b(width|height|original_\w+|bytes|sha256|md5|phash|information|colours?|frames|clip_score)\b",
)
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child"
    "{text-align:left}ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.8rem}li{width:9rem;font-size:13px;"
    "overflow-wrap:anywhere}img{max-width:96px;max-height:96px;display:inline-block}small{color:#666}"
)


def check_report(path: str) -> None:
    """Refuse a place where no page can be written, before any work.

    Raises:
        UsageError: it is a folder, or no name of a page.
    """
    if path and (fs.is_dir(path) or not path.endswith((".html", ".htm"))):
        raise UsageError(f"--report {path}", "a file that is made or replaced: page.html")


def show_ranked(con: duckdb.DuckDBPyConnection) -> None:
    """Make the view `ranked` of all decided samples that may be seen; those without a rank stand by their rank key."""
    con.execute("CREATE OR REPLACE VIEW shown AS FROM decided ANTI JOIN hidden USING (place)")
    ranked = "SELECT * REPLACE (CASE WHEN rank < 0 THEN rank_key ELSE rank END AS rank) FROM shown"
    con.execute(f"CREATE OR REPLACE VIEW ranked AS {ranked}")


def dropped_samples(con: duckdb.DuckDBPyConnection, pictures: bool, workers: int, engine: str) -> list[dict[str, Any]]:
    """Return samples of each source and reason: lowest ranks first, so a random draw that stays the same.

    Args:
        pictures: make thumbnails, too (WebP bytes, None where there is none): `thumbnail`, and `twin` of the copy that stays.
    """
    from curate.report.examples import POINTER, choose_examples, thumbnails

    show_ranked(con)
    rows = [row for row in choose_examples(con, "ranked").to_pylist() if row["kind"] in ("dropped", "twin")]
    made: Mapping[Any, bytes | None] = {}
    if pictures:
        keys = {tuple(row[name] for name, _ in POINTER) for row in rows}
        made = dict(thumbnails(sorted(key for key in keys if key[0]), workers, engine))
    for row in rows:
        row["thumbnail"] = made.get(tuple(row.pop(name) for name, _ in POINTER))
    twins = {(row["source"], row["reason"], row["position"]): row["thumbnail"] for row in rows if row["kind"] == "twin"}
    names = ("source", "reason", "uid", "caption_raw", "detail", "thumbnail")
    dropped = [row for row in rows if row["kind"] == "dropped"]
    return [{name: row[name] for name in names} | {"twin": twins.get((row["source"], row["reason"], row["position"]))} for row in dropped]


def as_text(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return a few of the samples of each reason, a line each, safe for a terminal; nothing where there are none."""
    lines: list[str] = []
    for reason in dict.fromkeys(row["reason"] for row in samples):
        of_reason = [row for row in samples if row["reason"] == reason]
        lines += ["", f"{reason}, such as:"]
        for source in dict.fromkeys(row["source"] for row in of_reason):
            lines += [line(row) for row in of_reason if row["source"] == source][:SHOWN]
    return "\n".join(["", *lines]) if lines else ""


def line(row: Mapping[str, Any]) -> str:
    """Return a sample as one line: source, caption and detail, safe for a terminal."""
    caption = visible(" ".join(row["caption_raw"].split())) or "(no caption)"
    caption = caption if len(caption) <= _WIDTH else f"{caption[: _WIDTH - 1]}…"
    detail = f" ({visible(row['detail'])})" if row["detail"] else ""
    return f"  {visible(row['source'])}: {caption}{detail}"


def unknown(recipe: Recipe, all_read: bool, some_missing: bool) -> list[str]:
    """Return what cannot be known of a recipe before an image was opened.

    Args:
        all_read: every record was read.
        some_missing: the records themselves tell that some have no picture.
    """
    lines = [f"which {'further ' if some_missing else ''}pictures are missing or do not decode"]
    asking = []
    for spec in recipe.filters:
        sql = registry.get(FILTERS, spec["name"]).refuse(filter_options(spec))
        if _OF_IMAGES.search(sql):
            asking.append(spec["name"])
    lines += [f"what {', '.join(asking)} would remove"] if asking else []
    kinds = {"exact": recipe.dedup.exact, "near": recipe.dedup.near, "by meaning": recipe.dedup.semantic}
    sought = [kind for kind, wanted in kinds.items() if wanted]
    lines += [f"which pictures are duplicates ({', '.join(sought)})"] if sought else []
    lines += ["which pictures are those of test sets"] if recipe.exclude.sets else []
    lines += [] if all_read else ["what lies behind the records that were read"]
    return lines


def page(title: str, counts: Mapping[str, Mapping[str, int]], samples: Sequence[Mapping[str, Any]], unknowns: Sequence[str] = ()) -> str:
    """Return a page of its own, without a script and without anything from elsewhere.

    Args:
        counts: by row (inputs, reasons, kept …), then by source.
        samples: with source, reason, caption_raw and detail, and maybe thumbnail and twin.
        unknowns: what the counts cannot know yet.
    """
    sources = list(dict.fromkeys(source for row in counts.values() for source in row))
    head = "".join(f"<th>{_text(source)}</th>" for source in sources)
    rows = "".join(f"<tr><td>{_text(name)}</td>{_cells(row, sources)}</tr>" for name, row in counts.items())
    parts = [f"<h1>{_text(title)}</h1><table><tr><th></th>{head}</tr>{rows}</table>"]
    if unknowns:
        parts.append(f"<h2>Not known yet</h2><p>{'; '.join(map(_text, unknowns))}.</p>")
    for reason in dict.fromkeys(row["reason"] for row in samples):
        cards = "".join(_card(row) for row in samples if row["reason"] == reason)
        parts.append(f"<h2>{_text(reason)}</h2><ul>{cards}</ul>")
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
    head = f'<meta charset="utf-8">{policy}<title>{_text(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _cells(row: Mapping[str, int], sources: Sequence[str]) -> str:
    return "".join(f"<td>{row.get(source, 0):,}</td>" for source in sources)


def _card(row: Mapping[str, Any]) -> str:
    pictures = "".join(_picture(row.get(name), alt) for name, alt in (("thumbnail", "dropped"), ("twin", "the copy that stays")))
    caption = _text(row["caption_raw"]) or "(no caption)"
    return f"<li>{pictures}<div><bdi>{caption}</bdi></div><small>{_text(row['source'])} {_text(row['detail'])}</small></li>"


def _picture(content: bytes | None, alt: str) -> str:
    if not content:
        return ""
    return f'<img alt="{alt}" title="{alt}" src="data:image/webp;base64,{base64.b64encode(content).decode()}">'


def _text(value: str) -> str:
    return html.escape(visible(value))
