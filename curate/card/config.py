"""The flags of `curate card`."""

from __future__ import annotations

from dataclasses import dataclass

from shards.core.config import option
from shards.manifest import NAME


@dataclass(frozen=True)
class CardConfig:
    """Write a dataset card (README.md) and Croissant metadata (croissant.json) for a finished set of shards.

    The text fields are what a manifest cannot know. What is not given stays out of the files.
    """

    build: str = option(help="a finished build's folder, or any folder with a manifest.json", positional=True)
    output: str = option("", "folder to write to; names in the files are relative to BUILD (default: BUILD)", metavar="DIR")
    name: str = option("", "the set's name (default: its sources and its size)")
    description: str = option("", "what the set is and where its sources come from, in your words")
    license: str = option("", "the licence of the set as a whole: an identifier such as cc-by-4.0, or a URL")
    url: str = option("", "the web page of the set")
    creator: str = option("", "the organisation or group that made the set")
    contact: str = option("", "where people ask for the removal of a sample: an address or a URL")
    date: str = option("", "day of publication, YYYY-MM-DD; the clock is never read")
    citation: str = option("", "how to cite the set: text or BibTeX")
    overwrite: bool = option(False, "replace a README.md or croissant.json that says something else")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print JSON")

    @property
    def folder(self) -> str:
        """The folder that is written."""
        return self.output or self.build.removesuffix(NAME)
