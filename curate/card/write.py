"""`curate card`: write the dataset card and the Croissant metadata of a finished set."""

from __future__ import annotations

import datetime
import json

from curate.card.config import CardConfig
from curate.card.facts import Facts, gather
from shards.core import fs
from shards.core.console import emit, say
from shards.core.errors import UsageError
from shards.core.notices import note
from shards.first_card import CARD, FIRST_CARD
from shards.manifest import NAME, read_manifest

CROISSANT = "croissant.json"


def card(config: CardConfig) -> int:
    """Write README.md and croissant.json; equal sets and flags give equal bytes. The README.md of the build itself gives way.

    Raises:
        UsageError: no manifest, a date or web page that is none, or a file there that says something else.
    """
    from curate.card.croissant import metadata
    from curate.card.markdown import readme

    _check(config)
    facts = gather(read_manifest(config.build.rstrip("/")), config)
    if not facts.manifest.samples:
        raise UsageError(f"{config.build!r} holds no samples", "a set with samples")
    output = config.output.rstrip("/") or facts.manifest.folder
    texts = {
        fs.join(output, CARD): readme(facts),
        fs.join(output, CROISSANT): json.dumps(metadata(facts), ensure_ascii=False, indent=1) + "\n",
    }
    other = [path for path, text in texts.items() if fs.exists(path) and fs.read_bytes(path) not in (text.encode(), FIRST_CARD.encode())]
    if other and not config.overwrite:
        raise UsageError(f"{other[0]} is there and says something else", "no such file, or the same text", "--overwrite, or --output DIR")
    fs.make_dirs(output)
    for path, text in texts.items():
        fs.write_text(path, text)
    if config.json:
        emit({"files": list(texts), "samples": facts.manifest.samples, "whole": facts.whole})
    else:
        emit("\n".join(texts))
    _note(facts)
    return 0


def _note(facts: Facts) -> None:
    """Tell what the files leave out of the set."""
    from curate.card.croissant import left_out
    from curate.card.markdown import MAX_LICENCES

    columns = left_out(facts)
    where = f"such as {columns[0]}" if columns else ""
    note(len(columns), f"[column|columns] without a data type in Croissant, left out of {CROISSANT}", where)
    note(len(facts.licences()) - MAX_LICENCES, f"[licence|licences] summed up in one line of {CARD}", fs.join(facts.manifest.folder, NAME))
    if not facts.whole:
        say(f"the tars of this folder are not the set, and other readers cannot load it; before it is published: {facts.remedy}")
        note(1, "set left out of what other readers load: its tars hold more, or lie in other folders", facts.remedy)


def _check(config: CardConfig) -> None:
    if config.date:
        try:
            datetime.date.fromisoformat(config.date)
        except ValueError:
            raise UsageError(f"--date {config.date}", "YYYY-MM-DD") from None
    if config.url and not config.url.startswith(("https://", "http://")):
        raise UsageError(f"--url {config.url}", "a web page: https://…")
