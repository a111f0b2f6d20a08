"""`curate build-shards`: measure, decide, write, report."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from curate.config import FILTERS, SOURCES, BuildConfig, resolve
from curate.decide import Decided, decide, placeholders, removed_by_class, stages, waterfall
from curate.decontaminate import claims, sets
from curate.layer import check_name, lay_tokens
from curate.listing import join_pool, layout_of, list_records
from curate.measure import Part, codecs, columns_of, hash_kind, measure, table_digest
from curate.plan import class_names, members_of, plan, write_ledger
from curate.recipe import Recipe, SourceSpec
from curate.steps import steps_of
from curate.write import write
from shards.core import fs, lean, registry
from shards.core.config import digest, dump
from shards.core.console import emit, say
from shards.core.engine import prepare
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.manifest import NAME, STATISTICS, Manifest, read_manifest

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
        from curate.explain import as_text, explain

        plan_of = explain(recipe)
        emit(plan_of if config.json else as_text(plan_of))
        return 0
    if not config.output:
        raise UsageError("no output folder", "--output DIR")
    if config.tokens:
        check_name(config.tokens, sorted({name.partition(".")[0] for name, _ in columns_of(recipe)}))
    output, work = config.output.rstrip("/"), _work(config)
    _refuse_other(output, recipe, config.overwrite)
    found = measured(recipe, work, config, writing=not fs.exists(fs.join(output, NAME)))
    if _is_whole(output, recipe, found.digest, config.overwrite):
        say(f"{output}: this build is there already, nothing to do")
        return _finish(output, config)
    decided, said = _decide(recipe, found, work, config)
    _prepare(output, recipe)
    manifest = _write(recipe, decided, said, found, work, output, config)
    say(waterfall(decided.sources, stages(recipe)))
    say(f"{output}: {manifest.samples:,} samples in {len(manifest.shards)} shards")
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
        listed.append((spec, join_pool(files, spec.images, work) if spec.images else files))
    parts = measure(recipe, listed, work, workers, config.engine)
    if not recipe.embed:
        return Measured(parts, torn, layouts, [], excluded)
    from curate.embed import embed

    if exclude.embedding is not None:
        from curate.decontaminate.embedding import embed_sets

        excluded = embed_sets(recipe.embed, excluded, policy, work, workers, config.engine)
    embedded = embed(recipe.embed, parts, work, workers, config.engine)
    return Measured([e.part for e in embedded], torn, layouts, embedded, excluded)


def _decide(recipe: Recipe, found: Measured, work: str, config: BuildConfig) -> tuple[Decided, dict[str, Any]]:
    """Decide, and say what was found of test sets beside what would have been; returns that for the manifest, too."""
    steps = steps_of(recipe, found.embedded, found.excluded, _workers(config))
    decided = decide(recipe, found.parts, work, _workers(config), steps)
    if not found.excluded:
        return decided, {}
    said = claims.claims(recipe.exclude, found.excluded, decided.con)
    say(claims.in_words(said))
    return decided, said


def measure_only(config: BuildConfig) -> int:
    """`curate measure`: fill the work folder, so that builds with other thresholds, seeds or sizes start at once."""
    recipe = resolve(config)
    parts = measured(recipe, _work(config), config).parts
    emit({"rows": sum(p.rows for p in parts), "parts": len(parts), "table": table_digest(parts), "work": _work(config)})
    return 0


def decide_only(config: BuildConfig) -> int:
    """`curate decide`: measure what is missing, decide, and print the ledger's counts; nothing is written."""
    recipe = resolve(config)
    found = measured(recipe, _work(config), config)
    decided, _ = _decide(recipe, found, _work(config), config)
    emit(decided.sources if config.json else waterfall(decided.sources, stages(recipe)))
    return 0


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
    if overwrite or not fs.names(output):
        return
    saved = fs.join(output, "recipe.yaml")
    if not fs.exists(saved):
        raise UsageError(
            f"{output!r} holds other files", "a new or empty folder, or an earlier try at this build", "--overwrite replaces it"
        )
    if fs.read_text(saved) != recipe_yaml(recipe):
        raise UsageError(f"{output!r} holds a build of another recipe", f"the recipe in {saved}", "another --output, or --overwrite")


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
    if (
        fs.exists(fs.join(output, NAME))
        or (fs.exists(saved) and fs.read_text(saved) != text)
        or (fs.names(output) and not fs.exists(saved))
    ):
        fs.remove(output)
    fs.make_dirs(output)
    fs.write_text(saved, text)


def _write(
    recipe: Recipe, decided: Decided, said: dict[str, Any], found: Measured, work: str, output: str, config: BuildConfig
) -> Manifest:
    """Write shards, ledger, examples and report, and the manifest last: it is the commit."""
    import pyarrow as pa

    from curate.report.build import write_report
    from curate.report.examples import choose_examples, write_examples

    members = members_of(recipe, decided)
    entries = write(plan(recipe, decided, work, output, members), decided.kept, _workers(config), config.engine)
    write_ledger(decided.con, output, work)
    decided.con.execute("CREATE VIEW ranked AS SELECT * REPLACE (CASE WHEN rank < 0 THEN rank_key ELSE rank END AS rank) FROM decided")
    picks = choose_examples(decided.con, "ranked")
    if found.excluded:
        claims.write_pairs(decided.con, found.excluded, output)
        picks = pa.concat_tables([picks, claims.pairs_shown(decided.con, found.excluded)])
    write_examples(output, picks, workers=_workers(config), engine_name=config.engine)
    layouts = {name: {"layout": layout} for name, layout in found.layouts.items()}
    notes: dict[str, Any] = {"codecs": codecs(recipe), "dedup_scope": recipe.dedup.scope}
    found_out: dict[str, Any] = {"placeholders": placeholders(decided.con), "removed_by_class": removed_by_class(decided.con)}
    found_out |= {"overlap": decided.overlap, "excluded": said, "bad_files": found.torn}
    notes |= {name: value for name, value in found_out.items() if value}
    manifest = Manifest(
        samples=sum(e.samples for e in entries),
        bytes=sum(e.bytes for e in entries),
        shards=tuple(entries),
        builder=VERSION,
        recipe=recipe.digest,
        table=found.digest,
        seed=recipe.seed,
        members=members,
        sources={name: counts | layouts.get(name, {}) for name, counts in decided.sources.items()},
        licences=_licences(decided),
        classes=class_names(decided.con) if "cls" in members else (),
        notes=notes,
        folder=output,
    )
    decided.con.close()
    write_report(output, manifest)
    _sweep(output, {entry.path.removesuffix(".tar") for entry in entries})
    manifest.save(output)
    return manifest


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
    found: dict[str, dict[str, int]] = {}
    query = """
        SELECT source, licence, count(*) FROM (SELECT place, source, licence FROM measured WHERE licence <> '')
        SEMI JOIN (SELECT place FROM decided WHERE decision = 'kept') USING (place) GROUP BY ALL ORDER BY 1, 2
    """
    for source, licence, count in decided.con.execute(query).fetchall():
        found.setdefault(source, {})[licence] = count
    return found


def _finish(output: str, config: BuildConfig) -> int:
    """Lay tokens beside a whole build, and print what a script wants to know of it: its manifest's path, or with --json its counts."""
    manifest = read_manifest(output)
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
