"""The dataset card: README.md as hubs read it, YAML in front of Markdown.

Names, licences, conditions and reasons come from outside. Whatever the template prints is put on one line and escaped, so that no
text breaks a table, makes a heading, a link or HTML; the YAML is written by a YAML library. Only code blocks stand as they are, between
fences longer than any run of back-ticks in them.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from pathlib import Path
from typing import Any

from curate.card.croissant import columns
from curate.card.facts import Facts, one_line
from curate.card.words import CAPTIONS, limits, steps
from curate.config import SOURCES
from curate.report.sections.ledger import why
from shards.core import fs, registry
from shards.core.notices import note
from shards.first_card import ALL_TARS
from shards.inspect import brace, open_clip_command

# The hub's size categories: powers of ten from a thousand on.
_SIZES = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12)
_SHORT = {10**3: "K", 10**6: "M", 10**9: "B", 10**12: "T"}
MAX_TEXT = 400
LONGEST_EXAMPLE = 60  # characters
FILES = {
    "recipe.yaml": "everything that shaped the build",
    "ledger": "a row for each input: kept, or why not",
    "stats": "counts of words, lengths and sizes for each tar",
    "report.html": "what is in the data: words, sizes, drops and duplicates, with pictures",
    "report.json": "the numbers of the report",
    "examples": "small pictures for the report, of dropped samples too",
}
MAX_LICENCES = 30  # rows of the table; alt-text collections state thousands of spellings


class Raw(str):
    """Markdown that is printed as it is."""


def front_matter(facts: Facts) -> dict[str, Any]:
    """Return the metadata that a hub reads.

    `configs` lets `datasets.load_dataset` find the tars, and the number of samples in `dataset_info` makes it check that it read them
    all. Both are left out where the tars hold other samples than the set.
    """
    tasks = ["image-to-text", "text-to-image", "zero-shot-image-classification"] if facts.captioned and facts.image else []
    tasks += ["image-classification"] if "cls" in facts.manifest.members and facts.image else []
    values: dict[str, Any] = {"pretty_name": facts.name, **_licence(facts.config.license)}
    if languages := facts.filters.get("language", {}).get("allowed"):
        values["language"] = languages
    values |= {"task_categories": tasks} if tasks else {}
    values |= {"size_categories": [size_category(facts.manifest.samples)], "tags": ["webdataset", "provender"]}
    if facts.whole:
        folders = dict.fromkeys(e.path.rpartition("/")[0] for e in facts.manifest.shards)
        paths = [fs.join(folder, ALL_TARS) if folder else ALL_TARS for folder in folders]
        values["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": paths[0] if len(paths) == 1 else paths}]}]
        values["dataset_info"] = {"splits": [{"name": "train", "num_examples": facts.manifest.samples}]}
    return values


def size_category(samples: int) -> str:
    """Return the hub's size category of a number of samples: `n<1K`, `1K<n<10K` … `n>1T`."""
    if samples < _SIZES[0]:
        return "n<1K"
    return next((f"{_short(low)}<n<{_short(high)}" for low, high in itertools.pairwise(_SIZES) if samples < high), "n>1T")


def readme(facts: Facts) -> str:
    """Return the card's text; equal facts give equal text."""
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701  # Markdown, not HTML: `finalize` escapes whatever is printed
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(n=_number, percent=lambda x: f"{x:.1%}", code=_code, line=_line, fence=_fence)
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    body = environment.get_template("card.md.jinja").render(
        facts=facts,
        manifest=facts.manifest,
        config=facts.config,
        sources=_sources(facts),
        drops=facts.drops(),
        taken_down=any(reason == "removed" for _, reason, _, _ in facts.drops()),
        why=why,
        licences=facts.licences(),
        shown=MAX_LICENCES,
        steps=steps(facts),
        limits=limits(facts),
        columns=columns(facts),
        files=_files(facts.manifest.folder),
        excluded=facts.manifest.notes.get("excluded") or {},
        parents=[_parent(p) for p in facts.manifest.parents],
        tars=repr(brace([e.path for e in facts.manifest.shards])),
        open_clip=open_clip_command(dataclasses.replace(facts.manifest, folder="")),
        size=f"{facts.manifest.bytes / 1e9:.2f} GB" if facts.manifest.bytes >= 1e9 else f"{facts.manifest.bytes / 1e6:.1f} MB",
    )
    return f"---\n{front}---\n\n{body}"


def escaped(value: Any) -> Raw:
    """Return a value as text of one Markdown line in which nothing has a meaning; a web address stays a link."""
    if isinstance(value, Raw):
        return value
    text = one_line(str(value))
    if len(text) > MAX_TEXT:
        note(1, f"[text|texts] of the card cut to {MAX_TEXT} characters", f"such as {text[:LONGEST_EXAMPLE]}…")
        text = text[:MAX_TEXT] + "…"
    if re.fullmatch(r"https?://[^\s<>|`\"\\]+", text):
        return Raw(f"<{text}>")
    return Raw(re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(text, quote=False)))


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _short(size: int) -> str:
    unit = max(u for u in _SHORT if u <= size)
    return f"{size // unit}{_SHORT[unit]}"


def _licence(text: str) -> dict[str, str]:
    """Return the licence as the hub spells it: one of its identifiers, or `other` with a name and a link."""
    if not text:
        return {"license": "unknown"}
    return {"license": "other", "license_name": "stated-at-the-link", "license_link": text} if "://" in text else {"license": text}


def _sources(facts: Facts) -> list[dict[str, Any]]:
    """Return a row for each source: the manifest's counts, its reader in words, and how it was read."""
    known = registry.names(SOURCES)
    specs = {s.get("name") or s.get("reader"): s for s in facts.recipe.get("sources") or []}
    rows = []
    for name, source in facts.manifest.sources.items():
        spec = specs.get(name, {})
        reader = source.get("reader") or spec.get("reader", "")
        rows.append(
            {
                "name": name,
                "reader": reader,
                "about": registry.summary(SOURCES, reader) if reader in known else "",
                "captions": CAPTIONS.get(spec.get("captions", ""), ""),
                "layout": source.get("layout", ""),
                **{k: source.get(k) for k in ("inputs", "kept", "holdout", "spare")},
                "dropped": sum(source["dropped"].values()) if "dropped" in source else None,
            }
        )
    return rows


def _files(folder: str) -> list[tuple[str, str]]:
    """Return (name, meaning) of what lies beside the shards."""
    there = {name: fs.join(folder, name) for name in FILES}
    return [(name + "/" * fs.is_dir(path), FILES[name]) for name, path in there.items() if fs.exists(path)]


def _parent(parent: dict[str, Any]) -> str:
    """Return in words what a set was made of."""
    said = f"{parent.get('samples', 0):,} samples, manifest {str(parent.get('manifest', ''))[:16]}"
    start, stop = parent.get("window") or (None, None)
    said += f"; samples {start:,} up to {stop:,} of them" if stop is not None else ""
    said += f"; where {parent['where']}" if parent.get("where") else ""
    said += f"; those on a list of uids with sha256 {parent['uids'][:16]}" if parent.get("uids") else ""
    return said + (f"; {parent['repeated']:,} left out that stand in another part" if parent.get("repeated") else "")


def _code(value: Any) -> Raw:
    """Return a digest, a name or a path as code in a line."""
    return Raw(f"`{one_line(str(value)).replace('`', chr(39)).replace('|', '/')}`")


def _line(value: Any) -> Raw:
    """Return text as a part of a line in a block of code."""
    return Raw(one_line(str(value)))


def _fence(value: Any) -> Raw:
    """Return text as a block of code."""
    text = str(value).strip()
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return Raw(f"{fence}\n{text}\n{fence}")
