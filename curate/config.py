"""The flags of a build, and the recipe that they and a file give together: flags override the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from curate import plugins
from curate.captions import template
from curate.recipe import DEFAULT_FILTERS, MAX_RADIUS, Recipe, SourceSpec
from curate.sources.base import several
from shards.core import recipes, registry
from shards.core.config import MOST_WORKERS, dump, load, option
from shards.core.errors import UsageError, shortened

FILTERS, SOURCES = "curate.filters", "curate.sources"
RECIPES = Path(__file__).parent / "recipes"
SHARE_SLACK = 0.0101  # three shares of 0.33 are meant as thirds
ROUNDING = 1e-6  # 0.29 · 100 is 28.999999999999996


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """`curate build-shards`: a recipe from flags, from a file, or from a file with flags over it."""

    config: str = option("", "recipe file (YAML), or the name of one that comes along; flags override it", metavar="FILE")
    source: str = option("", "reader of the one source", metavar="NAME")
    input: tuple[str, ...] = option((), "native files: paths, folders, or quoted globs of either", metavar="PATH")
    images: str = option("", "pool made by `curate fetch`, or where a source finds its images itself, their place", metavar="DIR")
    name: str = option("", "the source's name in uids and ledger (default: its reader's)", metavar="NAME")
    captions: Literal["first", "longest", "sampled", "each"] | None = option(None, "which caption a sample gets (default: first)")
    keep_columns: tuple[str, ...] = option((), "further columns of the native files to keep, for --where and filters", metavar="NAME")
    template: tuple[str, ...] = option((), "caption for labelled images: 'a photo of a {}', one | seven | eighty, or a file; drawn by uid")
    empty: Literal["next", "drop"] | None = option(None, "where cleaning empties the first caption: the next one, or drop (default: next)")
    samples: int | Literal["all"] | None = option(None, "samples to keep, or all", metavar="N|all")
    seed: int | None = option(None, "seed of the ranks (default: 0)", least=0, below=2**32)
    samples_per_shard: int | None = option(None, "samples in a shard (default: samples/512 within 1,000 and 10,000)", least=1)
    bytes_per_shard: int | None = option(None, "largest tar, in bytes", least=1)
    clean: bool | None = option(None, "repair and tidy captions (default: yes)")
    clean_urls: Literal["keep", "drop"] | None = option(None, "web addresses in captions (default: keep)")
    clean_handles: Literal["keep", "drop", "mask"] | None = option(None, "@handles in captions; mask: <usr> in their place (default: keep)")
    clean_rules: Literal["redcaps"] | None = option(None, "redcaps: lower case, no brackets, sizes, handles, ASCII only")
    image_max_side: int | None = option(None, "shrink images whose longest side is over N pixels (default: keep all bytes)", least=1)
    exact: bool | None = option(None, "drop exact duplicates (default: yes)")
    near: bool | None = option(None, "drop near duplicates (default: yes)")
    near_radius: int | None = option(None, "largest pHash distance of near duplicates (default: 4)", least=0, most=MAX_RADIUS)
    dedup_scope: Literal["source", "all"] | None = option(None, "look for duplicates across all sources or within each (default: all)")
    exclude_near: tuple[str, ...] = option((), "test sets to keep out of the build: folders, tars, or other builds", metavar="PATH")
    exclude_embedding: float | None = option(
        None, "also drop what is nearer than this in cosine distance (needs --embed-model)", least=0, below=1
    )
    embed_model: str = option("", "open_clip architecture for clip_score and duplicates by meaning: a name or a JSON file", metavar="NAME")
    embed_checkpoint: str = option("", "its weights: a file, or a tag of open_clip's", metavar="FILE")
    semantic: float | None = option(
        None, "drop what a kept image is nearer to than this cosine distance (needs --embed-model)", least=0, below=1
    )
    balance: Literal["concepts", "class"] | None = option(None, "balanced order, by concepts in captions (MetaCLIP) or by class")
    concepts: str = option("", "file of concepts for --balance concepts, one per line", metavar="FILE")
    prefer: Literal["rank", "resolution", "caption"] | None = option(None, "which copy of a duplicate stays (default: rank)")
    duplicate_captions: bool | None = option(None, "drop equal captions too (default: no)")
    near_colour: bool | None = option(
        None, "near duplicates must be alike in colour, too: a pHash sees none, so what differs in hue alone is a duplicate (default: no)"
    )
    hash: Literal["reference", "scaled", "fast"] | None = option(
        None, "pHash of near duplicates: see `curate list hashes`; reference is imagededup's, at a third of the speed (default: scaled)"
    )
    holdout: float | None = option(None, "share of samples held out by uid", least=0, below=1)
    plugin: tuple[str, ...] = option((), "files of Python, each a filter (then on) or a source: docs/plugins.md", metavar="FILE.py")
    json_member: bool | None = option(None, "add a .json member to each sample")
    tokens: str = option("", "lay the captions' CLIP tokens beside the shards, as the layer of this name", metavar="NAME")
    bad_files: Literal["stop", "skip"] | None = option(None, "at a torn input file (default: stop)")
    limit: int | None = option(None, "read only the first N records of each source: a first try", least=1)
    output: str = option("", "folder of the build", metavar="DIR")
    work: str = option("", "work folder, may be shared by builds (default: OUTPUT.work)", metavar="DIR")
    workers: int = option(0, "worker processes (default: one per core)", least=0, most=MOST_WORKERS)
    engine: str = option("local", "where tasks run")
    overwrite: bool = option(False, "replace another build in OUTPUT")
    dry_run: bool = option(False, "say what the recipe would do, without opening an image; with --json the whole resolved recipe")
    report: str = option("", "decide, --dry-run: a page of what would go, with samples and thumbnails", metavar="FILE.html")
    strict: bool = option(False, "exit 1 if anything was dropped, replaced, passed over or not found")
    json: bool = option(False, "print the result as JSON")
    extra: dict[str, Any] = option({})


def plugin_flags(arguments: Sequence[str] = ()) -> dict[str, tuple[Any, str]]:
    """Return the flags that plug-ins bring: `--<filter>-<option>`, `--no-<filter>`, and readers' own options.

    Those of the files behind `--plugin` among the arguments are loaded for theirs.
    """
    from shards.core.config import hints

    plugins.use_all(plugins.named_in(arguments))
    flags: dict[str, tuple[Any, str]] = {}
    for name in registry.names(FILTERS):
        module = registry.get(FILTERS, name)
        flag = name.replace("_", "-")
        flags[f"no-{flag}"] = (bool, f"leave out the filter {name}")
        for field in dataclasses.fields(module.Options):
            flags[f"{flag}-{field.name.replace('_', '-')}"] = (hints(module.Options)[field.name], field.metadata.get("help", ""))
    return flags | _source_flags(registry.names(SOURCES), BuildConfig)


def fetch_flags(arguments: Sequence[str] = ()) -> dict[str, tuple[Any, str]]:
    """Return the options of the readers whose images are URLs, as flags of `curate fetch`; `--plugin` files are loaded first."""
    from curate.fetch.config import FetchConfig

    plugins.use_all(plugins.named_in(arguments))
    return _source_flags([name for name in registry.names(SOURCES) if registry.get(SOURCES, name).IMAGES != "inline"], FetchConfig)


def report_flags(arguments: Sequence[str] = ()) -> dict[str, tuple[Any, str]]:
    """Return the options of all readers, as flags of `curate report --source`; `--plugin` files are loaded first."""
    from curate.report.config import ReportConfig

    plugins.use_all(plugins.named_in(arguments))
    return _source_flags(registry.names(SOURCES), ReportConfig)


def _source_flags(names: Iterable[str], command: type) -> dict[str, tuple[Any, str]]:
    """Return readers' own options as flags; one that several readers have takes what any of them takes."""
    from shards.core.config import hints

    flags: dict[str, tuple[Any, str]] = {}
    taken = {field.name for field in dataclasses.fields(command)}
    for name in names:
        module = registry.get(SOURCES, name)
        for field in dataclasses.fields(module.Options):
            if field.name in taken:
                continue
            flag = field.name.replace("_", "-")
            text = f"{name}: {field.metadata.get('help', '')}"
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
    values = {k.replace("-", "_"): v for k, v in extra.items()}
    known = {f.name for f in dataclasses.fields(registry.get(SOURCES, reader).Options)} if reader else set()
    owned = {f.name for n in registry.names(SOURCES) for f in dataclasses.fields(registry.get(SOURCES, n).Options)}
    for key in values:
        if key in owned - known:
            flag = key.replace("_", "-")
            raise UsageError(f"--{flag} is no option of the source {reader!r}", ", ".join(sorted(known)) or "none of its own")
    return {k: v for k, v in values.items() if k in known}


def resolve(config: BuildConfig) -> Recipe:
    """Return the recipe that flags and file give together, every plug-in option checked.

    Raises:
        UsageError: an unknown key, plug-in or value, or no source.
    """
    values = recipes.read(config.config, RECIPES) if config.config else {}
    files = plugins.use_all([*plugin_files(values), *config.plugin])
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
    elif near := _given({"radius": config.near_radius, "hash": config.hash, "colour": config.near_colour}):
        known = _mapping(_mapping(values.get("dedup"), "dedup").get("near"), "dedup.near")
        _nest(values, "dedup", {}, {"near": {**known, **near}})
    if config.semantic is not None:
        _nest(values, "dedup", {}, {"semantic": {"epsilon": config.semantic}})
    _nest(values, "exclude", {"sets": config.exclude_near or None, "embedding": config.exclude_embedding})
    _nest(values, "embed", {"model": config.embed_model or None, "checkpoint": config.embed_checkpoint or None})
    _nest(values, "balance", {"by": config.balance, "concepts": config.concepts or None})
    if config.image_max_side is not None:
        values["image"] = {"size": config.image_max_side}
    values["filters"] = _filters([*_with_defaults(values), *_unnamed(values, files)], config.extra)
    used = {f["name"] for f in values["filters"]} | {plugin.get("reader") for plugin in values["sources"]}
    values["plugins"] = [plugin.file for plugin in files if plugin.name in used]
    values["defaults"] = False  # `filters` now names every one that is on
    return check(load(Recipe, values))


def plugin_files(values: Mapping[str, Any]) -> list[str]:
    """Return the files that a recipe's values name as plug-ins.

    Raises:
        UsageError: `plugins` is no list of paths.
    """
    paths = values.get("plugins") or []
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str) for path in paths):
        raise UsageError(f"plugins: found {shortened(paths)}", "a list of files of Python")
    return list(paths)


def _unnamed(values: Mapping[str, Any], files: Iterable[registry.Given]) -> list[dict[str, Any]]:
    """Return the filters among plug-in files that a recipe's `filters` do not name: they stand last, with their default options."""
    named = {f["name"] for f in values.get("filters") or ()}
    return [{"name": plugin.name} for plugin in files if plugin.package == FILTERS and plugin.name not in named]


def _apply_source(values: dict[str, Any], config: BuildConfig) -> None:
    """Put the source that the flags describe into the recipe: as its only one, or over its only one."""
    pattern = several(config.input) if config.input else ""
    spec = {"reader": config.source, "input": pattern, "images": config.images, "name": config.name}
    from_flags: dict[str, Any] = {k: v for k, v in spec.items() if v}
    from_flags |= {"captions": config.captions} if config.captions else {}
    from_flags |= {"empty": config.empty} if config.empty else {}
    from_flags |= {"template": config.template} if config.template else {}
    from_flags |= {"keep_columns": config.keep_columns} if config.keep_columns else {}
    sources = _sources_of(values)
    reader = from_flags.get("reader") or (sources[0].get("reader", "") if len(sources) == 1 else "")
    options = source_values(reader, config.extra)
    if not from_flags and not options:
        if not sources:
            raise UsageError("no source", "--source NAME --input PATH, or --config recipe.yaml")
        return
    if len(sources) > 1:
        raise UsageError(f"--source and its flags describe one source; the recipe has {len(sources)}", "edit the recipe file")
    base = dict(sources[0]) if sources else {}
    if not sources:
        _demand_flags(from_flags)
    values["sources"] = [base | from_flags | {"options": {**_mapping(base.get("options"), "sources[0].options"), **options}}]


def _sources_of(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sources of a recipe file, each a mapping whose reader is a word.

    Raises:
        UsageError: they are something else.
    """
    sources = values.get("sources", [])
    if not isinstance(sources, list):
        raise UsageError(f"sources: found {shortened(sources)}", "a list of {reader: NAME, input: PATH, …}")
    for at, source in enumerate(sources):
        if not isinstance(source, Mapping):
            raise UsageError(f"sources[{at}]: found {shortened(source)}", "{reader: NAME, input: PATH, …}")
        if not isinstance(source.get("reader", ""), str):
            raise UsageError(f"sources[{at}].reader: found {shortened(source['reader'])}", "a word of `curate list sources`")
    return sources


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a mapping of a recipe file; nothing is an empty one.

    Raises:
        UsageError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: found {shortened(value)}", "a mapping of keys to values")
    return value


def _demand_flags(from_flags: Mapping[str, Any]) -> None:
    """Refuse flags that describe a source without its reader or its input, in words of flags."""
    if "reader" not in from_flags:
        raise UsageError("no --source", f"--source {' | '.join(registry.names(SOURCES))}", "curate list sources says what each reads")
    if "input" not in from_flags:
        raise UsageError("no --input", "--input PATH: native files, a folder, or a quoted glob")


def _clean(values: dict[str, Any], from_flags: Mapping[str, Any]) -> None:
    """Put `--clean-…` over what the recipe says of cleaning."""
    from_flags = {k: v for k, v in from_flags.items() if v is not None}
    if from_flags and values.get("clean") is False:
        raise UsageError(f"--no-clean, and yet --clean-{next(iter(from_flags))}", "one of them")
    if from_flags:
        base = values.get("clean")
        values["clean"] = {**(base if isinstance(base, Mapping) else {}), **from_flags}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None}


def _nest(values: dict[str, Any], key: str, from_flags: Mapping[str, Any], always: Mapping[str, Any] | None = None) -> None:
    chosen = {k: v for k, v in from_flags.items() if v is not None} | dict(always or {})
    if chosen:
        values[key] = {**_mapping(values.get(key), key), **chosen}


def _with_defaults(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a recipe file's filters behind the default ones that it does not name; with `defaults: false`, its own alone.

    Raises:
        UsageError: no list of filters, or one filter twice: a reason in the ledger is the name of one.
    """
    filters, defaults = values.get("filters", ()), values.get("defaults", True)
    if not isinstance(defaults, bool):
        raise UsageError(f"defaults: found {defaults!r}", "true | false")
    if not isinstance(filters, list | tuple) or not all(isinstance(f, Mapping) and isinstance(f.get("name"), str) for f in filters):
        raise UsageError(f"filters: found {shortened(filters)}", "a list of {name: FILTER, …options}")
    names = [f["name"] for f in filters]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"filters: {name!r} stands there {names.count(name)} times", "each filter once", "its options in one entry")
    first = [entry for entry in DEFAULT_FILTERS if defaults and entry["name"] not in names]
    return [*first, *filters]


def _filters(filters: list[Mapping[str, Any]], extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Apply `--no-<filter>` and `--<filter>-<option>`; a filter first named by a flag goes last."""
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
    with plugins.blamed(module):
        return load(module.Options, {k: v for k, v in spec.items() if k != "name"}, f"filters.{spec['name']}")


def source_options(spec: SourceSpec) -> Any:
    """Return the checked options of one source of a recipe."""
    module = registry.get(SOURCES, spec.reader)
    with plugins.blamed(module):
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
    filters = tuple(_filter_in_full(f) for f in recipe.filters)
    _check_model(recipe)
    if recipe.image_policy.mode not in ("keep_ratio_largest", "keep_ratio", "center_crop"):
        raise UsageError(f"image.mode: found {recipe.image_policy.mode!r}", "keep_ratio_largest, keep_ratio, center_crop")
    samples = recipe.samples
    sources = _by_share(sources, samples)
    quotas = [s.samples for s in sources]
    if any(q is not None for q in quotas):
        if any(q is None for q in quotas):
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


def _by_share(sources: list[SourceSpec], samples: int | str | None) -> list[SourceSpec]:
    """Return the sources with their shares of a total as quotas, which then are all that the recipe says of them.

    Quotas add up to the total: each share's whole part first, then one more to those with the largest rest.

    Raises:
        UsageError: some sources have no share, or a quota too; shares do not add up to 1; there is no total, or too small a one.
    """
    shares = [s.share for s in sources if s.share is not None]
    if not shares:
        return sources
    if len(shares) < len(sources) or any(s.samples is not None for s in sources):
        raise UsageError("shares: some sources have `share`, others not, or `samples`", "a share for every source, or a quota for each")
    if abs(sum(shares) - 1) > SHARE_SLACK:
        raise UsageError(f"shares: {' + '.join(f'{share:g}' for share in shares)} = {sum(shares):g}", "shares that add up to 1")
    if not isinstance(samples, int):
        raise UsageError(f"shares: of {samples or 'no'} samples", "a total: samples: N", "--samples N")
    exact = [samples * share / sum(shares) for share in shares]
    quotas = [math.floor(value + ROUNDING) for value in exact]
    rests = sorted(range(len(sources)), key=lambda i: (quotas[i] - exact[i], i))
    for i in rests[: samples - sum(quotas)]:
        quotas[i] += 1
    if 0 in quotas:
        at = quotas.index(0)
        raise UsageError(f"source {sources[at].name}: a share of {shares[at]:g} of {samples:,} samples is none", "a larger total or share")
    return [dataclasses.replace(s, samples=quota, share=None) for s, quota in zip(sources, quotas, strict=True)]


def _filter_in_full(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter with its options spelt out, once it has said whether it can refuse by them."""
    module, options = registry.get(FILTERS, spec["name"]), filter_options(spec)
    module.refuse(options)
    module.detail(options)
    return {"name": spec["name"], **dump(options)}


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
