"""`curate build-shards`: measure, decide, write, report."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from curate import preview
from curate.config import FILTERS, SOURCES, BuildConfig, filter_options, resolve
from curate.decide import Decided, by_row, decide, placeholders, removed_by_class, stages, warnings, waterfall
from curate.decide.load import rehearse
from curate.decontaminate import claims, sets
from curate.hidden import swept
from curate.layer import lay_tokens
from curate.listing import join_pool, layout_of, list_records
from curate.measure import Part, codecs, columns_of, hash_kind, measure, table_digest
from curate.plan import class_names, members_of, plan, write_ledger
from curate.recipe import Recipe, SourceSpec, summary
from curate.steps import steps_of
from curate.write import write
from shards.core import fs, lean, registry
from shards.core.config import digest, dump
from shards.core.console import counted, emit, say
from shards.core.engine import prepare
from shards.core.engines.local import default_workers
from shards.core.errors import RunError, UsageError
from shards.core.notices import note
from shards.first_card import write_first_card
from shards.layers import check_name, prefixes
from shards.manifest import HOLDOUT, NAME, STATISTICS, Manifest, ShardEntry, read_manifest
from shards.shared import duplicates_between

if TYPE_CHECKING:
    from curate.decontaminate.sets import ExcludedSet
    from curate.embed import Embedded

VERSION = "provender 0.1.0"
# What measuring imports: its tasks beside the recipe's plug-ins, and this process itself, at the same time.
TASK_MODULES = (
    "pyarrow.parquet", "scipy.fftpack", "xxhash", "simplejpeg", "PIL.ImageOps", "PIL.BmpImagePlugin", "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.PpmImagePlugin", "PIL.WebPImagePlugin", "curate.measure",
)  # fmt: skip
OWN_MODULES = ("pyarrow.parquet", "duckdb", "yaml", "PIL.Image")
# And what writing and the report import besides.
WRITING_TASK_MODULES = ("curate.write", "curate.report.examples", "curate.report.stats.warm")
WRITING_OWN_MODULES = ("curate.report.ready",)


def build_shards(config: BuildConfig) -> int:
    """Turn a recipe into a finished build; run again it resumes, or finds nothing to do."""
    recipe = resolve(config)
    registry.get("shards.core.engines", config.engine)  # a wrong name shows before the work begins
    if config.dry_run:
        from curate.explain import as_text, explain, write_page

        preview.check_report(config.report)
        plan_of = explain(recipe)
        _say_summary(recipe)
        if config.report:
            write_page(config.report, plan_of)
        emit(plan_of if config.json else as_text(plan_of))
        return 0
    if config.report:
        raise UsageError("--report: a build writes its own page", "OUT/report.html", "--report goes with `curate decide` and --dry-run")
    if not config.output:
        raise UsageError("no output folder", "--output DIR")
    if config.tokens:
        check_name(config.tokens, prefixes(name for name, _ in columns_of(recipe)))
    output, work = config.output.rstrip("/"), _work(config)
    _refuse_other(output, recipe, config.overwrite)
    with swept(recipe, work) as parts:
        measures = measured(recipe, work, config, writing=not fs.exists(fs.join(output, NAME)))
        parts += measures.parts
        _say_summary(recipe)
        if _is_whole(output, recipe, measures.digest, config.overwrite):
            say(f"{output}: this build is there already, nothing to do")
            return _finish(output, config)
        decided, claimed = _decide(recipe, measures, work, config)
        _prepare(output, recipe)
        manifest = _write(recipe, decided, claimed, measures, work, output, config)
    say(waterfall(decided.sources, stages(recipe)))
    for line in duplicates_between(manifest) if recipe.dedup.scope != "all" else ():  # the summary has said so
        say(line)
    if held := manifest.notes.get("holdout"):
        say(f"{fs.join(output, HOLDOUT)}: {counted(held['samples'], 'sample')} held out, a set with a manifest of its own")
    say(f"{output}: {counted(manifest.samples, 'sample')} in {counted(len(manifest.shards), 'shard')}")
    return _finish(output, config)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measured table in parts, the torn inputs that were passed over, the native layout of each source that states one, and,
    where the recipe has a model, the parts' embeddings."""

    parts: list[Part]
    torn: list[str]
    layouts: dict[str, str]
    embedded: list[Embedded]
    excluded: list[ExcludedSet]

    @property
    def digest(self) -> str:
        """The digest of all that decisions are about: the measured table, and the test sets that are kept out."""
        table = table_digest(self.parts)
        return digest([table, sets.version(self.excluded)]) if self.excluded else table


def measured(recipe: Recipe, work: str, config: BuildConfig, *, writing: bool = False) -> Measured:
    """Run the measure pass over all sources, and the model over what was measured.

    Args:
        writing: a build will follow: what that imports is loaded meanwhile.
    """
    plugins = [f"{SOURCES}.{spec.reader}" for spec in recipe.sources] + [f"{FILTERS}.{values['name']}" for values in recipe.filters]
    prepare([*TASK_MODULES, *plugins, *(WRITING_TASK_MODULES if writing else ())], engine=config.engine)
    lean.load((*OWN_MODULES, *(WRITING_OWN_MODULES if writing else ())))
    rehearse(recipe)
    workers = _workers(config)
    exclude, policy = recipe.exclude, recipe.image_policy
    excluded = sets.open_sets(exclude.sets, hash_kind(recipe), policy, exclude.views, work, workers, config.engine)
    listed: list[tuple[SourceSpec, list[str]]] = []
    torn: list[str] = []
    layouts: dict[str, str] = {}
    for spec in recipe.sources:
        files, broken = list_records(recipe, spec, work, workers, config.engine)
        torn += [f"{spec.name}: {name}" for name in broken]
        layouts |= {spec.name: layout} if (layout := layout_of(files)) else {}
        listed.append((spec, join_pool(files, spec.images, work, spec.name) if spec.images else files))
    parts = measure(recipe, listed, work, workers, config.engine)
    if not recipe.embed:
        return Measured(parts, torn, layouts, [], excluded)
    from curate.embed import embed

    if exclude.embedding is not None:
        from curate.decontaminate.embedding import embed_sets

        excluded = embed_sets(recipe.embed, excluded, policy, work, workers, config.engine)
    embedded = embed(recipe.embed, parts, work, workers, config.engine)
    return Measured([e.part for e in embedded], torn, layouts, embedded, excluded)


def _say_summary(recipe: Recipe) -> None:
    """Say what every build says of its recipe, once its inputs were found good: no error stands below it then."""
    for line in summary(recipe):
        say(line)
    for spec in recipe.filters:
        module = registry.get(FILTERS, spec["name"])
        if remark_on := getattr(module, "note", None):
            say(f"{spec['name']}: {remark_on(filter_options(spec))}")


def _decide(recipe: Recipe, measures: Measured, work: str, config: BuildConfig) -> tuple[Decided, dict[str, Any]]:
    """Decide, and say what was found of test sets beside what would have been; returns that for the manifest, too."""
    steps = steps_of(recipe, measures.embedded, measures.excluded, _workers(config))
    decided = decide(recipe, measures.parts, work, _workers(config), steps)
    count, example = warnings(decided.con)
    note(count, "[picture|pictures] encoded again without the colour profile that [it names|they name]", f"such as {example}")
    if not measures.excluded:
        return decided, {}
    claimed = claims.claims(recipe.exclude, measures.excluded, decided.con)
    say(claims.in_words(claimed))
    return decided, claimed


def measure_only(config: BuildConfig) -> int:
    """`curate measure`: fill the work folder, so that builds with other thresholds, seeds or sizes start at once."""
    recipe = resolve(config)
    with swept(recipe, _work(config)) as parts:
        measures = measured(recipe, _work(config), config)
        parts += measures.parts
    _note_dropped(_refused(parts), measures.torn, f"see the rows with that `status` in {fs.join(_work(config), 'measured')}")
    emit({"rows": sum(p.rows for p in parts), "parts": len(parts), "table": table_digest(parts), "work": _work(config)})
    return 0


def _refused(parts: list[Part]) -> dict[str, dict[str, Any]]:
    """Return, of each source, how many rows each status took out while measuring, as `dropped` of a manifest's sources."""
    import pyarrow.parquet as pq

    counts: dict[str, Counter[str]] = {}
    for part in parts:
        with fs.open_read(part.path) as file:
            rows = pq.read_table(file, columns=["source", "status"])
        for group in rows.group_by(["source", "status"]).aggregate([([], "count_all")]).to_pylist():
            if group["status"]:
                counts.setdefault(group["source"], Counter())[group["status"]] += group["count_all"]
    return {source: {"dropped": dict(sorted(by_status.items()))} for source, by_status in counts.items()}


def decide_only(config: BuildConfig) -> int:
    """`curate decide`: measure what is missing, decide, and print the ledger's counts; nothing is written."""
    recipe = resolve(config)
    preview.check_report(config.report)
    with swept(recipe, _work(config)) as parts:
        measures = measured(recipe, _work(config), config)
        parts += measures.parts
        _say_summary(recipe)
        decided, _ = _decide(recipe, measures, _work(config), config)
        samples = preview.dropped_samples(decided.con, bool(config.report), _workers(config), config.engine)
    _note_dropped(decided.sources, measures.torn, "a build's ledger will say which")
    if config.report:
        title = f"What the recipe {recipe.digest[:16]} would keep and drop"
        fs.write_text(config.report, preview.page(title, by_row(decided.sources, stages(recipe)), samples))
        say(config.report)
    emit(_with_samples(decided.sources, samples) if config.json else waterfall(decided.sources, stages(recipe)) + preview.as_text(samples))
    return 0


def _with_samples(sources: dict[str, dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the counts of sources, each with its dropped samples by reason."""
    sources_with_examples: dict[str, dict[str, Any]] = {name: counts | {"examples": {}} for name, counts in sources.items()}
    for row in samples:
        example = {key: row[key] for key in ("uid", "caption_raw", "detail")}
        sources_with_examples[row["source"]]["examples"].setdefault(row["reason"], []).append(example)
    return sources_with_examples


def recipe_yaml(recipe: Recipe) -> str:
    """Return a resolved recipe as YAML."""
    import yaml

    return yaml.safe_dump(dump(recipe), sort_keys=False, allow_unicode=True)


def _work(config: BuildConfig) -> str:
    if not (config.work or config.output):
        raise UsageError("no work folder", "--work DIR, or --output DIR (then it is DIR.work)")
    return config.work.rstrip("/") or config.output.rstrip("/") + ".work"


def _workers(config: BuildConfig) -> int:
    return config.workers or default_workers()


def _refuse_other(output: str, recipe: Recipe, overwrite: bool) -> None:
    """Refuse an output folder that holds something else, before any work is done."""
    if overwrite or not _names(output):
        return
    saved = fs.join(output, "recipe.yaml")
    if not fs.exists(saved):
        raise UsageError(
            f"{output!r} holds other files", "a new or empty folder, or an earlier try at this build", "--overwrite replaces it"
        )
    if fs.read_text(saved) != recipe_yaml(recipe):
        raise UsageError(f"{output!r} holds a build of another recipe", f"the recipe in {saved}", "another --output, or --overwrite")


def _names(output: str) -> list[str]:
    """Return the names in an output folder, but for the lock that this command holds there."""
    return [name for name in fs.names(output) if name != fs.LOCK]


def _is_whole(output: str, recipe: Recipe, table: str, overwrite: bool) -> bool:
    """Say whether the finished build is in the output folder already.

    Raises:
        UsageError: it holds a finished build of the same recipe over other inputs.
    """
    if not fs.exists(fs.join(output, NAME)):
        return False
    manifest = read_manifest(output)
    if (manifest.recipe, manifest.table) == (recipe.digest, table):
        return True
    if not overwrite:
        raise UsageError(
            f"{output!r} holds a build of this recipe over other inputs",
            f"inputs whose table is {manifest.table[:12]}",
            "--overwrite replaces it",
        )
    return False


def _prepare(output: str, recipe: Recipe) -> None:
    """Take away what belongs to another build, and say what this one is."""
    text = recipe_yaml(recipe)
    saved = fs.join(output, "recipe.yaml")
    is_earlier_try = fs.exists(saved) and fs.read_text(saved) == text
    if fs.exists(fs.join(output, NAME)) or not is_earlier_try:
        for name in _names(output):  # the folder itself stays: the lock in it is held
            fs.remove(fs.join(output, name))
    fs.make_dirs(output)
    fs.write_text(saved, text)


def _write(
    recipe: Recipe, decided: Decided, claimed: dict[str, Any], measures: Measured, work: str, output: str, config: BuildConfig
) -> Manifest:
    """Write shards, ledger, examples and report, and the manifest last: it is the commit."""
    import pyarrow as pa

    from curate.report.build import write_report
    from curate.report.examples import choose_examples, write_examples

    members = members_of(recipe, decided)
    entries = write(plan(recipe, decided, work, output, members), decided.kept, _workers(config), config.engine)
    write_ledger(decided.con, output, work)
    preview.show_ranked(decided.con)
    picks = choose_examples(decided.con, "ranked")
    if measures.excluded:
        claims.write_pairs(decided.con, measures.excluded, output)
        picks = pa.concat_tables([picks, claims.pairs_shown(decided.con, measures.excluded)])
    write_examples(output, picks, workers=_workers(config), engine_name=config.engine)
    held = write_holdout(recipe, decided, measures.digest, work, output, config)
    layouts = {name: {"layout": layout} for name, layout in measures.layouts.items()}
    notes: dict[str, Any] = {"codecs": codecs(recipe), "dedup_scope": recipe.dedup.scope}
    found_out: dict[str, Any] = {"placeholders": placeholders(decided.con), "removed_by_class": removed_by_class(decided.con)}
    found_out |= {"overlap": decided.overlap, "excluded": claimed, "bad_files": measures.torn, "holdout": held}
    notes |= {name: value for name, value in found_out.items() if value}
    sources = {name: counts | layouts.get(name, {}) for name, counts in decided.sources.items()}
    manifest = _manifest(recipe, decided, measures.digest, entries, members, sources, notes, output)
    manifest = dataclasses.replace(manifest, licences=_licences(decided))
    decided.con.close()
    write_report(output, manifest)
    _sweep(output, {entry.path.removesuffix(".tar") for entry in entries})
    _check_there(output, entries)
    write_first_card(manifest, output)
    manifest.save(output)
    return manifest


def _manifest(
    recipe: Recipe,
    decided: Decided,
    table: str,
    entries: list[ShardEntry],
    members: tuple[str, ...],
    sources: dict[str, Any],
    notes: dict[str, Any],
    folder: str,
) -> Manifest:
    """Return the manifest of tars that were written of a recipe's samples."""
    return Manifest(
        samples=sum(e.samples for e in entries),
        bytes=sum(e.bytes for e in entries),
        shards=tuple(entries),
        builder=VERSION,
        recipe=recipe.digest,
        table=table,
        seed=recipe.seed,
        members=members,
        sources=sources,
        classes=class_names(decided.con) if "cls" in members else (),
        notes=notes,
        folder=folder,
    )


def write_holdout(recipe: Recipe, decided: Decided, table: str, work: str, output: str, config: BuildConfig) -> dict[str, Any]:
    """Write the held-out samples as a set of their own beside the build; return what its manifest notes of it, nothing where none are.

    Duplicates are gone by then, across both sets: no held-out picture has a copy among the kept ones.
    """
    folder = fs.join(output, HOLDOUT)
    if not decided.held:
        fs.remove(folder)
        return {}
    members = members_of(recipe, decided, "holdout")
    entries = write(plan(recipe, decided, work, folder, members, "holdout"), decided.held, _workers(config), config.engine)
    sources = {name: {"reader": s["reader"], "unit": s["unit"], "kept": s["holdout"]} for name, s in decided.sources.items()}
    manifest = _manifest(recipe, decided, table, entries, members, sources, {"held_out": recipe.holdout}, folder)
    _sweep(folder, {entry.path.removesuffix(".tar") for entry in entries})
    write_first_card(manifest, folder)
    manifest.save(folder)
    return {"samples": manifest.samples, "manifest": manifest.digest}


def _check_there(output: str, entries: list[ShardEntry]) -> None:
    """Refuse to commit a build whose folder was emptied, or taken away and made again, while it was written.

    Raises:
        RunError: naming the first file that is gone.
    """
    names = set(fs.names(output))
    gone = [name for name in ("recipe.yaml", *(entry.path for entry in entries)) if name not in names]
    if gone:
        raise RunError(f"{fs.join(output, gone[0])} is gone since it was written", advice="the same command again")


def _sweep(output: str, shards: set[str]) -> None:
    """Remove what a killed try left behind: half-written files, and shards of a plan that is no longer ours."""
    beside = fs.join(output, STATISTICS)
    for folder in (output, beside, fs.join(output, "ledger"), fs.join(output, "examples")):
        for name in fs.names(folder):
            stray_shard = folder in (output, beside) and name[:5].isdigit() and name.partition(".")[0] not in shards
            if ".tmp-" in name or stray_shard:
                fs.remove(fs.join(folder, name))


def _licences(decided: Decided) -> dict[str, dict[str, int]]:
    """Return how many kept samples stand under each licence, per source."""
    counts: dict[str, dict[str, int]] = {}
    query = """
        SELECT source, licence, count(*) FROM (SELECT place, source, licence FROM measured WHERE licence <> '')
        SEMI JOIN (SELECT place FROM decided WHERE decision = 'kept') USING (place) GROUP BY ALL ORDER BY 1, 2
    """
    for source, licence, count in decided.con.execute(query).fetchall():
        counts.setdefault(source, {})[licence] = count
    return counts


def _note_dropped(sources: dict[str, dict[str, Any]], torn: list[str], where: str) -> None:
    """Tell what became of inputs that are not kept, a line per reason, and which native files were torn."""
    for source in sources.values():
        for reason, count in source.get("dropped", {}).items():
            note(count, f"dropped: {reason}", where)
    note(len(torn), "native [file|files] torn, of which only whole samples are used", f"such as {torn[0]}" if torn else "")


def _finish(output: str, config: BuildConfig) -> int:
    """Lay tokens beside a whole build, and print what a script wants to know of it: its manifest's path, or with --json its counts."""
    manifest = read_manifest(output)
    _note_dropped(manifest.sources, list(manifest.bad_files), f"see {fs.join(output, 'ledger')}, or `curate why {output} ID`")
    if config.tokens:
        lay_tokens(manifest, config.tokens, _workers(config), config.engine, overwrite=config.overwrite)
    if config.json:
        emit(
            {
                "output": output,
                "samples": manifest.samples,
                "shards": len(manifest.shards),
                "manifest": manifest.digest,
                "sources": manifest.sources,
            }
        )
    else:
        emit(fs.join(output, NAME))
    return 0
