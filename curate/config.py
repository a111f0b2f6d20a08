"""The flags of a build, and the recipe that they and a file give together: flags override the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from curate.captions import template
from curate.recipe import DEFAULT_FILTERS, MAX_RADIUS, Recipe, SourceSpec
from shards.core import recipes, registry
from shards.core.config import dump, load, option
from shards.core.errors import UsageError

FILTERS, SOURCES = "curate.filters", "curate.sources"
RECIPES = Path(__file__).parent / "recipes"


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """`curate build-shards`: a recipe from flags, from a file, or from a file with flags over it."""

    config: str = option("", "recipe file (YAML), or the name of one that comes along; flags override it", metavar="FILE")
    source: str = option("", "reader of the one source", metavar="NAME")
    input: str = option("", "native files: a path, a folder, or a quoted glob", metavar="PATH")
    images: str = option("", "pool made by `curate fetch`, or where a source finds its images itself, their place", metavar="DIR")
    name: str = option("", "the source's name in uids and ledger (default: its reader's)", metavar="NAME")
    captions: Literal["first", "longest", "sampled", "each"] | None = option(None, "which caption a sample gets (default: first)")
    template: tuple[str, ...] = option((), "caption for labelled images: 'a photo of a {}', one | seven | eighty, or a file; drawn by uid")
    empty: Literal["next", "drop"] | None = option(None, "where cleaning empties the first caption: the next one, or drop (default: next)")
    samples: int | Literal["all"] | None = option(None, "samples to keep, or all", metavar="N|all")
    seed: int | None = option(None, "seed of the ranks (default: 0)")
    samples_per_shard: int | None = option(None, "samples in a shard (default: samples/512 within 1,000 and 10,000)")
    bytes_per_shard: int | None = option(None, "largest tar, in bytes")
    clean: bool | None = option(None, "repair and tidy captions (default: yes)")
    clean_urls: Literal["keep", "drop"] | None = option(None, "web addresses in captions (default: keep)")
    clean_handles: Literal["keep", "drop", "mask"] | None = option(None, "@handles in captions; mask: <usr> in their place (default: keep)")
    clean_rules: Literal["redcaps"] | None = option(None, "redcaps: lower case, no brackets, sizes, handles, ASCII only")
    image_max_side: int | None = option(None, "shrink images whose longest side is over N pixels (default: keep all bytes)")
    exact: bool | None = option(None, "drop exact duplicates (default: yes)")
    near: bool | None = option(None, "drop near duplicates (default: yes)")
    near_radius: int | None = option(None, "largest pHash distance of near duplicates (default: 4)")
    dedup_scope: Literal["source", "all"] | None = option(None, "look for duplicates within a source or across all")
    exclude_near: tuple[str, ...] = option((), "test sets to keep out of the build: folders, tars, or other builds", metavar="PATH")
    exclude_embedding: float | None = option(None, "also drop what is nearer than this in cosine distance (needs --embed-model)")
    embed_model: str = option("", "open_clip architecture for clip_score and duplicates by meaning: a name or a JSON file", metavar="NAME")
    embed_checkpoint: str = option("", "its weights: a file, or a tag of open_clip's", metavar="FILE")
    semantic: float | None = option(None, "drop what a kept image is nearer to than this cosine distance (needs --embed-model)")
    balance: Literal["concepts", "class"] | None = option(None, "balanced order, by concepts in captions (MetaCLIP) or by class")
    concepts: str = option("", "file of concepts for --balance concepts, one per line", metavar="FILE")
    prefer: Literal["rank", "resolution", "caption"] | None = option(None, "which copy of a duplicate stays (default: rank)")
    duplicate_captions: bool | None = option(None, "drop equal captions too (default: no)")
    hash: Literal["reference", "scaled", "fast"] | None = option(
        None, "pHash of near duplicates: imagededup's, or of a scaled decode, up to 3x as fast (default: reference)"
    )
    holdout: float | None = option(None, "share of samples held out by uid")
    json_member: bool | None = option(None, "add a .json member to each sample")
    tokens: str = option("", "lay the captions' CLIP tokens beside the shards, as the layer of this name", metavar="NAME")
    bad_files: Literal["stop", "skip"] | None = option(None, "at a torn input file (default: stop)")
    limit: int | None = option(None, "read only the first N records of each source: a first try")
    output: str = option("", "folder of the build", metavar="DIR")
    work: str = option("", "work folder, may be shared by builds (default: OUTPUT.work)", metavar="DIR")
    workers: int = option(0, "worker processes (default: one per core)")
    engine: str = option("local", "where tasks run")
    overwrite: bool = option(False, "replace another build in OUTPUT")
    dry_run: bool = option(False, "say what the recipe would do, without opening an image; with --json the whole resolved recipe")
    json: bool = option(False, "print the result as JSON")
    extra: dict[str, Any] = option({})


def plugin_flags() -> dict[str, tuple[Any, str]]:
    """Return the flags that plug-ins bring: `--<filter>-<option>`, `--no-<filter>`, and readers' own options."""
    from shards.core.config import hints

    flags: dict[str, tuple[Any, str]] = {}
    for name in registry.names(FILTERS):
        module = registry.get(FILTERS, name)
        flag = name.replace("_", "-")
        flags[f"no-{flag}"] = (bool, f"leave out the filter {name}")
        for field in dataclasses.fields(module.Options):
            flags[f"{flag}-{field.name.replace('_', '-')}"] = (hints(module.Options)[field.name], field.metadata["help"])
    return flags | _source_flags(registry.names(SOURCES), BuildConfig)


def fetch_flags() -> dict[str, tuple[Any, str]]:
    """Return the options of the readers whose images are URLs, as flags of `curate fetch`."""
    from curate.fetch.config import FetchConfig

    return _source_flags([name for name in registry.names(SOURCES) if registry.get(SOURCES, name).IMAGES != "inline"], FetchConfig)


def report_flags() -> dict[str, tuple[Any, str]]:
    """Return the options of all readers, as flags of `curate report --source`."""
    from curate.report.config import ReportConfig

    return _source_flags(registry.names(SOURCES), ReportConfig)


def _source_flags(names: Iterable[str], command: type) -> dict[str, tuple[Any, str]]:
    """Return readers' own options as flags; one that several readers have takes what any of them takes."""
    from shards.core.config import hints

    flags: dict[str, tuple[Any, str]] = {}
    own = {field.name for field in dataclasses.fields(command)}
    for name in names:
        module = registry.get(SOURCES, name)
        for field in dataclasses.fields(module.Options):
            if field.name in own:
                continue
            flag = field.name.replace("_", "-")
            text = f"{name}: {field.metadata['help']}"
            kind, known = flags.get(flag, (None, ""))
            kind = _either(kind, hints(module.Options)[field.name])
            flags[flag] = (kind, f"{known}; {text}" if known else text)
    return flags


def _either(first: Any, second: Any) -> Any:
    """Return the annotation that takes the words of both."""
    if get_origin(first) is get_origin(second) is Literal:
        return Literal[tuple(dict.fromkeys((*get_args(first), *get_args(second))))]
    return str if str in (first, second) else second


def source_values(reader: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a reader among the plug-ins' flags.

    Raises:
        UsageError: a flag of another reader.
    """
    given = {k.replace("-", "_"): v for k, v in extra.items()}
    known = {f.name for f in dataclasses.fields(registry.get(SOURCES, reader).Options)} if reader else set()
    owned = {f.name for n in registry.names(SOURCES) for f in dataclasses.fields(registry.get(SOURCES, n).Options)}
    for key in given:
        if key in owned - known:
            flag = key.replace("_", "-")
            raise UsageError(f"--{flag} is no option of the source {reader!r}", ", ".join(sorted(known)) or "none of its own")
    return {k: v for k, v in given.items() if k in known}


def resolve(config: BuildConfig) -> Recipe:
    """Return the recipe that flags and file give together, every plug-in option checked.

    Raises:
        UsageError: an unknown key, plug-in or value, or no source.
    """
    values = recipes.read(config.config, RECIPES) if config.config else {}
    _apply_source(values, config)
    plain: dict[str, Any] = {"samples": config.samples, "seed": config.seed, "clean": config.clean, "holdout": config.holdout}
    plain |= {"limit": config.limit, "bad_files": config.bad_files, "json": config.json_member}
    values |= {k: v for k, v in plain.items() if v is not None}
    _clean(values, {"urls": config.clean_urls, "handles": config.clean_handles, "rules": config.clean_rules})
    _nest(values, "shards", {"samples": config.samples_per_shard, "bytes": config.bytes_per_shard})
    _nest(values, "dedup", {"exact": config.exact, "scope": config.dedup_scope})
    _nest(values, "dedup", {"prefer": config.prefer, "captions": config.duplicate_captions})
    if config.near is False:
        _nest(values, "dedup", {}, {"near": None})
    elif near := {k: v for k, v in {"radius": config.near_radius, "hash": config.hash}.items() if v is not None}:
        _nest(values, "dedup", {}, {"near": {**(values.get("dedup", {}).get("near") or {}), **near}})
    if config.semantic is not None:
        _nest(values, "dedup", {}, {"semantic": {"epsilon": config.semantic}})
    _nest(values, "exclude", {"sets": config.exclude_near or None, "embedding": config.exclude_embedding})
    _nest(values, "embed", {"model": config.embed_model or None, "checkpoint": config.embed_checkpoint or None})
    _nest(values, "balance", {"by": config.balance, "concepts": config.concepts or None})
    if config.image_max_side is not None:
        values["image"] = {"size": config.image_max_side}
    values["filters"] = _filters(values.get("filters", DEFAULT_FILTERS), config.extra)
    return check(load(Recipe, values))


def _apply_source(values: dict[str, Any], config: BuildConfig) -> None:
    """Put the source that the flags describe into the recipe: as its only one, or over its only one."""
    spec = {"reader": config.source, "input": config.input, "images": config.images, "name": config.name}
    given: dict[str, Any] = {k: v for k, v in spec.items() if v}
    given |= {"captions": config.captions} if config.captions else {}
    given |= {"empty": config.empty} if config.empty else {}
    given |= {"template": config.template} if config.template else {}
    sources = values.get("sources", [])
    reader = given.get("reader") or (sources[0].get("reader") if len(sources) == 1 else "")
    options = source_values(reader, config.extra)
    if not given and not options:
        if not sources:
            raise UsageError("no source", "--source NAME --input PATH, or --config recipe.yaml")
        return
    if len(sources) > 1:
        raise UsageError(f"--source and its flags describe one source; the recipe has {len(sources)}", "edit the recipe file")
    base = dict(sources[0]) if sources else {}
    values["sources"] = [base | given | {"options": {**base.get("options", {}), **options}}]


def _clean(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put `--clean-…` over what the recipe says of cleaning."""
    given = {k: v for k, v in given.items() if v is not None}
    if given and values.get("clean") is False:
        raise UsageError(f"--no-clean, and yet --clean-{next(iter(given))}", "one of them")
    if given:
        base = values.get("clean")
        values["clean"] = {**(base if isinstance(base, Mapping) else {}), **given}


def _nest(values: dict[str, Any], key: str, given: Mapping[str, Any], always: Mapping[str, Any] | None = None) -> None:
    found = {k: v for k, v in given.items() if v is not None} | dict(always or {})
    if found:
        values[key] = {**values.get(key, {}), **found}


def _filters(filters: Any, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Apply `--no-<filter>` and `--<filter>-<option>`; a filter first named by a flag goes last."""
    if not isinstance(filters, list | tuple) or not all(isinstance(f, Mapping) and "name" in f for f in filters):
        raise UsageError(f"filters: found {filters!r}", "a list of {name: FILTER, …options}")
    chosen = {f["name"]: dict(f) for f in filters}
    for name in registry.names(FILTERS):
        flag = name.replace("_", "-")
        prefix = f"{flag}-"
        options = {k.removeprefix(prefix).replace("-", "_"): v for k, v in extra.items() if k.startswith(prefix)}
        if options:
            chosen[name] = {"name": name, **chosen.get(name, {}), **options}
        if extra.get(f"no-{flag}"):
            chosen.pop(name, None)
    return list(chosen.values())


def filter_options(spec: Mapping[str, Any]) -> Any:
    """Return the checked options of one filter of a recipe."""
    module = registry.get(FILTERS, spec["name"])
    return load(module.Options, {k: v for k, v in spec.items() if k != "name"}, f"filters.{spec['name']}")


def source_options(spec: SourceSpec) -> Any:
    """Return the checked options of one source of a recipe."""
    module = registry.get(SOURCES, spec.reader)
    return load(module.Options, spec.options, f"sources.{spec.name or spec.reader}.options")


def in_full(spec: SourceSpec) -> SourceSpec:
    """Return a source with its name, options and templates spelt out.

    Raises:
        UsageError: an unknown reader, or a bad option.
    """
    options = dump(source_options(spec))
    module = registry.get(SOURCES, spec.reader)
    if module.IMAGES == "inline" and "images" in options and spec.images:
        options["images"] = spec.images  # such a reader finds its images itself, there
        spec = dataclasses.replace(spec, images="")
    templates = template.load(spec.template or getattr(module, "TEMPLATES", ()))
    return dataclasses.replace(spec, name=spec.name or spec.reader, options=options, template=templates)


def check(recipe: Recipe) -> Recipe:
    """Return the recipe with names filled in and plug-in options spelt out.

    Raises:
        UsageError: an unknown plug-in, a bad option, two sources of one name, quotas that do not add up.
    """
    sources = []
    for spec in recipe.sources:
        spec = in_full(spec)
        if registry.get(SOURCES, spec.reader).IMAGES == "pool" and not spec.images:
            raise UsageError(f"source {spec.name}: no images", "--images POOL", f"curate fetch --source {spec.reader} …")
        sources.append(spec)
    names = [s.name for s in sources]
    if len(set(names)) < len(names):
        raise UsageError(f"sources named {', '.join(names)}", "a name of its own for each source")
    filters = tuple({"name": f["name"], **dump(filter_options(f))} for f in recipe.filters)
    if not 0.0 <= recipe.holdout < 1.0:
        raise UsageError(f"holdout: found {recipe.holdout}", "a share from 0 to below 1")
    _check_distances(recipe)
    _check_model(recipe)
    if recipe.image_policy.mode not in ("keep_ratio_largest", "keep_ratio", "center_crop"):
        raise UsageError(f"image.mode: found {recipe.image_policy.mode!r}", "keep_ratio_largest, keep_ratio, center_crop")
    samples = recipe.samples
    quotas = [s.samples for s in sources]
    if any(q is not None for q in quotas):
        if any(q is None or q < 1 for q in quotas):
            raise UsageError("quotas: some sources have `samples`, others not", "a quota for every source, or for none")
        total = sum(q or 0 for q in quotas)
        samples = total if samples in (None, "all") else samples
        if isinstance(samples, int) and samples > total:
            raise UsageError(f"samples: {samples:,} asked for", f"at most the sum of the quotas, {total:,}")
    if samples is None:
        raise UsageError("no size", "--samples N, or --samples all for every sample that survives")
    if isinstance(samples, int) and samples < 1:
        raise UsageError(f"samples: found {samples}", "at least 1, or all")
    return dataclasses.replace(recipe, sources=tuple(sources), filters=filters, samples=samples)


def _check_distances(recipe: Recipe) -> None:
    """Refuse distances that mean nothing: unlike pictures are some 32 bits, and a cosine distance of 1, apart."""
    radii = {"dedup.near.radius": recipe.dedup.near.radius if recipe.dedup.near else 0, "exclude.radius": recipe.exclude.radius}
    for what, radius in radii.items():
        if not 0 <= radius <= MAX_RADIUS:
            raise UsageError(f"{what}: found {radius}", f"0 to {MAX_RADIUS} of 64 bits", "4 is safe at any size")
    semantic = recipe.dedup.semantic.epsilon if recipe.dedup.semantic else 0.0
    for what, distance in {"dedup.semantic.epsilon": semantic, "exclude.embedding": recipe.exclude.embedding or 0.0}.items():
        if not 0 <= distance < 1:
            raise UsageError(f"{what}: found {distance}", "a cosine distance from 0 to below 1")


def _check_model(recipe: Recipe) -> None:
    """Refuse what asks for a model's embeddings where the recipe names no model."""
    asks = {
        "the filter clip_score": any(f["name"] == "clip_score" for f in recipe.filters),
        "dedup.semantic": recipe.dedup.semantic is not None,
        "exclude.embedding": recipe.exclude.embedding is not None,
    }
    for what, asked in asks.items():
        if asked and recipe.embed is None:
            raise UsageError(
                f"{what} needs a model, and the recipe has no `embed`",
                "embed: {model, checkpoint}",
                "--embed-model NAME --embed-checkpoint FILE",
            )
    if recipe.balance and recipe.balance.by == "concepts" and not recipe.balance.concepts:
        raise UsageError("balance: no list of concepts", "balance: {by: concepts, concepts: FILE}", "--concepts FILE")
