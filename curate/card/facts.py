"""What is known of a set of shards: its manifest, its recipe, and what was said on the command line."""

from __future__ import annotations

import dataclasses
from typing import Any

from curate.card.config import CardConfig
from curate.report.recipe import read_recipe
from curate.report.sections.ledger import in_order
from shards import tombstones
from shards.manifest import Manifest, ShardEntry
from shards.sample import IMAGE_EXTENSIONS


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts behind a card. `removed` counts the samples that were taken down and whose bytes the tars still hold."""

    manifest: Manifest
    config: CardConfig
    recipe: dict[str, Any]
    removed: int

    @property
    def name(self) -> str:
        """The set's name: the one given, or its first sources and its size."""
        sources = list(self.manifest.sources)
        several = [*sources[:3], f"and-{len(sources) - 3}-more"] if len(sources) > 3 else sources
        return one_line(self.config.name or "-".join([*several, str(self.manifest.samples)]))

    @property
    def whole(self) -> bool:
        """Whether the tars in the manifest's own folder hold exactly the set: only then can readers without a manifest read it."""
        return all(e.use is None and not _elsewhere(e) for e in self.manifest.shards)

    @property
    def remedy(self) -> str:
        """The command that makes a set whole."""
        if self.removed and not any(map(_elsewhere, self.manifest.shards)):
            return "shards compact FOLDER"
        return "shards subset FOLDER --where true --materialize --output NEW"

    @property
    def sidecars(self) -> bool:
        """Whether every shard has a sidecar."""
        return bool(self.manifest.shards) and all(e.sidecar_sha256 for e in self.manifest.shards)

    @property
    def image(self) -> str:
        """The extension of the member that holds the image in every sample, or an empty string."""
        return next((m for m in self.manifest.members if m.lower() in IMAGE_EXTENSIONS), "")

    @property
    def captioned(self) -> bool:
        """Whether every sample has a caption in its tar."""
        return "txt" in self.manifest.members

    @property
    def summary(self) -> str:
        """What the set is: in the user's words, or how many samples of which sources in one sentence."""
        if self.config.description:
            return one_line(self.config.description)
        manifest, sources = self.manifest, list(self.manifest.sources)
        what = "image–text pairs" if self.captioned and self.image else "samples"
        named = f", from {', '.join(sources[:20])}{' and others' if len(sources) > 20 else ''}" if sources else ""
        return one_line(f"{manifest.samples:,} {what} in {len(manifest.shards):,} WebDataset tars{named}.")

    @property
    def filters(self) -> dict[str, dict[str, Any]]:
        """The recipe's filters by name, in order, with the options that are set."""
        return {
            str(f["name"]): {k: v for k, v in f.items() if k != "name" and v not in (None, "", [], False)}
            for f in self.recipe.get("filters") or []
        }

    def drops(self) -> list[tuple[str, str, int, int]]:
        """Return (source, reason, samples, inputs of the source) in the order of decisions."""
        rows = []
        for name, source in self.manifest.sources.items():
            dropped = {reason: n for reason, n in source.get("dropped", {}).items() if n}
            rows += [(name, r, dropped[r], source.get("inputs", 0)) for r in in_order(dropped, list(self.filters))]
        return rows

    def licences(self) -> list[tuple[str, str, int | None]]:
        """Return (source, licence, kept samples), the most frequent first; "" where none is stated.

        The manifest counted them when the set was written. After a take-down it is not known which licences went: no number is given
        for the rest then.
        """
        rows: list[tuple[str, str, int | None]] = []
        for name, source in self.manifest.sources.items():
            stated = self.manifest.licences.get(name, {})
            rows += [(name, text, n) for text, n in sorted(stated.items(), key=lambda item: (-item[1], item[0]))]
            rest = source.get("kept", 0) - sum(stated.values())
            gone = source.get("dropped", {}).get("removed") or self.removed
            rows += [(name, "", None if gone and stated else rest)] if rest > 0 or (gone and stated) else []
        return rows


def gather(manifest: Manifest, config: CardConfig) -> Facts:
    """Return what is known of a set."""
    removed = tombstones.count({manifest.folder_of(entry) for entry in manifest.shards})
    return Facts(manifest, config, read_recipe(manifest.folder), removed)


def one_line(text: str) -> str:
    """Return a text on one line, without control characters and without marks that change the direction of writing."""
    import unicodedata

    kinds = ((c, unicodedata.category(c)) for c in text)
    return " ".join("".join(" " if kind in ("Cc", "Zl", "Zp") else "" if kind in ("Cf", "Cs") else c for c, kind in kinds).split())


def _elsewhere(entry: ShardEntry) -> bool:
    return entry.path.startswith(("../", "/")) or "://" in entry.path
