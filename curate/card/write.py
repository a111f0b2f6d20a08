"""`curate card`: write the dataset card and the Croissant metadata of a finished set."""

from __future__ import annotations

import datetime
import json

from curate.card.config import CardConfig
from curate.card.facts import gather
from shards.core import fs
from shards.core.console import emit, say
from shards.core.errors import UsageError
from shards.manifest import read_manifest

CARD, CROISSANT = "README.md", "croissant.json"


def card(config: CardConfig) -> int:
    """Write README.md and croissant.json; equal sets and flags give equal bytes.

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
    other = [path for path, text in texts.items() if fs.exists(path) and fs.read_bytes(path) != text.encode()]
    if other and not config.overwrite:
        raise UsageError(f"{other[0]} is there and says something else", "no such file, or the same text", "--overwrite, or --output DIR")
    fs.make_dirs(output)
    for path, text in texts.items():
        fs.write_text(path, text)
    if config.json:
        emit({"files": list(texts), "samples": facts.manifest.samples, "whole": facts.whole})
    else:
        emit("\n".join(texts))
    if not facts.whole:
        say(f"the tars of this folder are not the set, and other readers cannot load it; before it is published: {facts.remedy}")
    return 0


def _check(config: CardConfig) -> None:
    if config.date:
        try:
            datetime.date.fromisoformat(config.date)
        except ValueError:
            raise UsageError(f"--date {config.date}", "YYYY-MM-DD") from None
    if config.url and not config.url.startswith(("https://", "http://")):
        raise UsageError(f"--url {config.url}", "a web page: https://…")
