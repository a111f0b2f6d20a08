"""The recipe: everything that shapes a build, as the dataclasses behind the YAML file.

The saved recipe leaves out workers, engine, work folder and output; its digest leaves out paths too, so that equal
recipes on two machines are equal.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from curate.captions.clean import Clean
from curate.images import ImagePolicy
from shards.core import fs
from shards.core.config import digest, dump, option
from shards.core.plugins import name_of

# What each kind of pHash costs and finds within 4 bits: the figures of benchmarks/measure.json.
HASHES = {
    "scaled": "twice as fast as reference; it finds all 476 true pairs of our sets that reference finds",
    "reference": "imagededup's bit for bit; scaled is twice as fast and finds as many",
    "fast": "1.4 times as fast as scaled, and meant for radius 6: at 4 it misses 3 of 476 pairs",
}
MAX_RADIUS = 16  # bits of 64; unlike pictures are some 32 apart
DEFAULT_FILTERS: tuple[dict[str, Any], ...] = ({"name": "caption_length"}, {"name": "profanity"})


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """One source of a recipe."""

    reader: str = option(help="a reader: see `curate list sources`")
    input: str = option(help="native files: a path, a folder, or a glob")
    name: str = option("", "the source's name, unique in the recipe (default: the reader's)")
    images: str = option("", "a pool made by `curate fetch`, joined on the id, else on the URL")
    captions: Literal["first", "longest", "sampled", "each"] = option("first", "which caption a sample gets")
    empty: Literal["next", "drop"] = option("next", "where cleaning empties the first caption: take the next one, or drop the sample")
    template: tuple[str, ...] = option((), "captions for labelled images: 'a photo of a {}', one | seven | eighty, or a file")
    samples: int | None = option(None, "this source's quota", least=1)
    share: float | None = option(None, "instead of a quota: this source's part of the recipe's samples, such as 0.7", above=0, most=1)
    keep_columns: tuple[str, ...] = option((), "further columns of the native files to keep as text, spelt READER.NAME")
    options: dict[str, Any] = option({}, "options of the reader")


@dataclasses.dataclass(frozen=True)
class Near:
    """Near-duplicate search."""

    radius: int = option(4, "largest Hamming distance of two pHashes, in bits of 64; 4 is safe at any size", least=0, most=MAX_RADIUS)
    hash: Literal["reference", "scaled", "fast"] = option(
        "scaled",
        "the pHash. scaled: of a scaled decode, twice as fast as reference, at most 4 bits from it; reference: imagededup's, bit for bit; "
        "fast: at most 12 bits from it, for radius 6",
    )
    colour: bool = option(
        False,
        "a second look: a pHash sees no colour, so products that differ in hue alone are near duplicates; with this, two "
        "pictures are none if the mean Cb and Cr of any of their 16 parts are more than 6 levels apart",
    )


@dataclasses.dataclass(frozen=True)
class Embed:
    """An open_clip model that reads images and captions: for scores, and for duplicates by meaning."""

    model: str = option(help="an open_clip architecture, or a path to its JSON")
    checkpoint: str = option(help="its weights: a file, or a tag of open_clip's")
    batch: int = option(64, "images in a batch", least=1)
    device: str = option("cpu", "cpu, cuda, cuda:1 …")


@dataclasses.dataclass(frozen=True)
class Semantic:
    """Duplicates by meaning (SemDeDup): exact within k-means clusters of the image embeddings."""

    epsilon: float = option(0.05, "a sample goes if a kept one is nearer than this in cosine distance", least=0, below=1)
    clusters: int | None = option(None, "k-means clusters (default: the square root of the number of samples)", least=1)
    captions: bool = option(True, "only where the captions are as near, too")


@dataclasses.dataclass(frozen=True)
class Exclude:
    """Downstream sets whose images must not be in the build."""

    sets: tuple[str, ...] = option((), "folders, shards or manifests of test images")
    radius: int = option(4, "largest pHash distance from a view of a test image, in bits of 64; 4 is safe", least=0, most=MAX_RADIUS)
    views: bool = option(True, "hash each test image in about twenty views: flips, crops, borders")
    embedding: float | None = option(None, "also drop what is nearer than this in cosine distance (needs `embed`)", least=0, below=1)


@dataclasses.dataclass(frozen=True)
class Balance:
    """Balanced order: every prefix of the build is balanced."""

    by: Literal["concepts", "class"] = option("concepts", "concepts found in captions (MetaCLIP), or classes in turn")
    concepts: str = option("", "a file of concepts, one per line (by: concepts)")
    scope: Literal["source", "all"] = option("source", "count concepts or classes within a source, or across all")


@dataclasses.dataclass(frozen=True)
class Dedup:
    """What counts as a duplicate, and among whom."""

    exact: bool = option(True, "equal original bytes")
    near: Near | None = option(Near(), "pHash radius; null turns it off")
    captions: bool = option(False, "equal captions, letter case and punctuation aside")
    semantic: Semantic | None = option(None, "duplicates by meaning (needs `embed`); null turns it off")
    prefer: Literal["rank", "resolution", "caption"] = option("rank", "which copy stays: lowest rank, most pixels, longest caption")
    scope: Literal["source", "all"] = option("all", "look across all sources, or within each one alone")
    placeholder_min: int = option(20, "ids and distinct captions under one hash from which it is a placeholder", least=2)


@dataclasses.dataclass(frozen=True)
class ShardSize:
    """How large a shard is."""

    samples: int | None = option(None, "samples in a shard (default: N/512, within 1,000 and 10,000)", least=1)
    bytes: int | None = option(None, "largest tar, in bytes", least=1)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that shapes a build."""

    sources: tuple[SourceSpec, ...] = option(help="what goes in")
    samples: int | Literal["all"] | None = option(None, "samples to keep over all sources, or all")
    seed: int = option(0, "seed of the ranks", least=0, below=2**32)
    clean: Clean | bool = option(True, "repair and tidy captions; or {urls, handles, rules} to do more")
    image: ImagePolicy | Literal["keep"] = option("keep", "keep the bytes, or {size, mode, quality}")
    defaults: bool = option(True, "default filters that `filters` does not name stand before it; false: only what it names")
    filters: tuple[dict[str, Any], ...] = option(DEFAULT_FILTERS, "filters in order: [{name, …options}]")
    dedup: Dedup = option(Dedup(), "duplicates")
    embed: Embed | None = option(None, "the model behind the filter clip_score and duplicates by meaning")
    exclude: Exclude = option(Exclude(), "downstream sets to keep out of the build")
    balance: Balance | None = option(None, "a balanced order: by concepts or by class")
    holdout: float = option(0.0, "share of samples held out by their uid", least=0, below=1)
    shards: ShardSize = option(ShardSize(), "shard size")
    json: bool = option(False, "add a .json member with the sidecar's row")
    plugins: tuple[str, ...] = option((), "files of Python, each a filter or a source under the file's name; such a filter is on")
    limit: int | None = option(None, "read only the first N records of each source", least=1)
    bad_files: Literal["stop", "skip"] = option("stop", "what to do at an unreadable or torn input file")

    @property
    def image_policy(self) -> ImagePolicy:
        """The image policy; `keep` is the one without a size."""
        return self.image if isinstance(self.image, ImagePolicy) else ImagePolicy()

    @property
    def digest(self) -> str:
        """The recipe's digest: of a list in a file its content counts, of other paths nothing."""
        values = dump(self)
        del values["defaults"]  # what it leaves stands in `filters`
        plugins = {name_of(path): fs.sha256(path) for path in values.pop("plugins")}
        values |= {"plugins": plugins} if plugins else {}
        for source in values["sources"]:
            del source["input"], source["images"]
            if not source["keep_columns"]:
                del source["keep_columns"]  # digests from before there was this key stand
            source["options"] = content_of(source["options"])
        if values["embed"]:
            del values["embed"]["batch"], values["embed"]["device"]
        del values["exclude"]["sets"]
        values["filters"], values["balance"] = content_of(values["filters"]), content_of(values["balance"])
        return digest(values)


def summary(recipe: Recipe) -> list[str]:
    """Return the lines that every build prints of a resolved recipe.

    They say which default filters are off, by which hash near duplicates are sought, and among whom.
    """
    named = {entry["name"] for entry in recipe.filters}
    off = [entry["name"] for entry in DEFAULT_FILTERS if entry["name"] not in named]
    lines = [f"default filters that are off: {', '.join(off)}"] if off else []
    if near := recipe.dedup.near:
        second = "and like colours" if near.colour else "whatever their colours (near: {colour: true} looks at them, too)"
        lines.append(f"near duplicates: pHashes within {near.radius} of 64 bits, {second}; hash: {near.hash}, {HASHES[near.hash]}")
    if len(recipe.sources) > 1 and recipe.dedup.scope == "all":
        lines.append(f"duplicates are looked for across all {len(recipe.sources)} sources")
    elif len(recipe.sources) > 1:
        lines.append("duplicates are looked for within each source alone (dedup scope: source): a picture may stand in several")
    return lines


def content_of(value: Any) -> Any:
    """Return a plug-in's options with each path of a file replaced by the sha256 of what the file holds."""
    if isinstance(value, dict):
        return {k: v if k == "name" else content_of(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [content_of(v) for v in value]
    return fs.sha256(value) if isinstance(value, str) and value and fs.exists(value) and not fs.is_dir(value) else value
