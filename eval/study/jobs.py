"""The jobs of a study: commands of ours, each known by the content of what it reads and of what it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval import packed
from eval.study.spec import EXAMPLES, PROTOCOLS, SCRATCH, Source, Stage, Study
from shards.core import fs, recipes, registry
from shards.core.config import digest
from shards.core.errors import UsageError
from shards.manifest import read_manifest

VERSION = 1  # of what a job's key means; raised whenever the same key would give other numbers
TEXT_TASKS = ("clip", "slip")
JOBS, BUILDS, RUNS, RESULTS = "jobs", "builds", "runs", "results.jsonl"


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        kind: build, subset, train or evaluate.
        name: what progress calls it.
        key: digest of all that decides its outcome.
        command: the program (`curate`, `shards`, `train`, `evaluate`) and its arguments.
        needs: keys of the jobs whose output it reads.
        output: the folder or file that it writes.
        labels: what rows of its evaluation say of the model.
        weight: samples that go through a model, for estimates.
    """

    kind: str
    name: str
    key: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    output: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 0


@dataclass(frozen=True)
class Pool:
    """A build that draws are cut from: one that is there, or one that a job makes.

    Attributes:
        folder: where it is, or will be.
        identity: digest of its manifest, or the key of the job.
        job: makes it; None where it is there.
    """

    folder: str
    identity: str
    job: Job | None = None


@dataclass(frozen=True)
class Trained:
    """A checkpoint that a job makes, and what tables say of it."""

    job: Job
    task: str
    model: str
    labels: Mapping[str, Any]
    name: str


def plan(study: Study, folder: str) -> list[Job]:
    """Return all jobs in an order in which each stands behind what it needs; equal jobs stand once.

    Raises:
        UsageError: a source with too few samples, a target that is not packed, a flag that a command does not know, or nothing to do.
    """
    pools = {name: _pool(study, folder, name) for name in study.sources}
    targets = {name: _dataset(study.target(name).data, f"targets.{name}") for name in study.targets}
    jobs: dict[str, Job] = {}
    trained: list[Trained] = []
    for name, pool in pools.items():
        if pool.job is not None:
            jobs.setdefault(pool.job.key, pool.job)
        for size in study.sizes:
            for draw in range(study.draws):
                subset = _subset(study, folder, name, pool, size, draw)
                subset = jobs.setdefault(subset.key, subset)  # two names of one build share their draws
                trained += _pretrainings(study, folder, subset, name, size, draw)
    staged = [_staged(study, folder, model, stage) for stage in study.stages() for model in trained]
    for model in (*trained, *staged):
        jobs.setdefault(model.job.key, model.job)
    for job in _evaluations(study, folder, [*trained, *staged], targets):
        jobs.setdefault(job.key, job)
    _check_commands(list(jobs.values()))
    return list(jobs.values())


def _pool(study: Study, folder: str, name: str) -> Pool:
    """Return the build of a source; of one that is there the samples are counted.

    Raises:
        UsageError: it has too few samples.
    """
    source = study.source(name)
    if source.recipe:
        return _built(folder, name, source)
    manifest = read_manifest(source.manifest)
    needed = study.draws * max(study.sizes)
    if manifest.samples < needed:
        found = f"sources.{name}: {manifest.samples:,} samples; {study.draws} draws of {max(study.sizes):,} need {needed:,}"
        raise UsageError(found, f"sizes up to {manifest.samples // study.draws:,}", "fewer draws, smaller sizes, or a larger build")
    return Pool(source.manifest, manifest.digest)


def _built(folder: str, name: str, source: Source) -> Pool:
    """Return the build that a recipe makes. Its key holds what the recipe says, not what lies in its inputs."""
    key = _key("build", {"recipe": recipes.read(source.recipe, EXAMPLES), "flags": source.build})
    output = fs.join(folder, BUILDS, f"{name}-{key[:8]}")
    command = ("curate", "build-shards", "--config", source.recipe, *arguments_of(source.build), "--output", output)
    return Pool(output, key, Job("build", name, key, command, output=output))


def _subset(study: Study, folder: str, source: str, pool: Pool, size: int, draw: int) -> Job:
    """Return the job that cuts a draw: its windows nest over sizes, and those of different draws are disjoint."""
    start = draw * max(study.sizes)
    key = _key("subset", {"manifest": pool.identity, "window": [start, start + size]})
    output = fs.join(folder, BUILDS, f"{source}-{size}-{draw}-{key[:8]}")
    command = ("shards", "subset", pool.folder, "--window", f"{start}:{start + size}", "--output", output, "--overwrite")
    needs = () if pool.job is None else (pool.job.key,)
    return Job("subset", f"{source} {size:,} #{draw}", key, command, needs, output)


def _pretrainings(study: Study, folder: str, subset: Job, source: str, size: int, draw: int) -> Iterator[Trained]:
    for objective in study.objectives:
        stated = study.objective(objective)
        if stated.task == SCRATCH:
            continue
        for model in study.models or ("",):
            for seed in study.train_seeds:
                flags = {**study.train, **stated.flags, **study.source(source).flags, "seed": seed}
                if model:
                    flags["model"] = model
                shape = _model_of(stated.config, flags)
                labels = {"source": source, "size": size, "objective": objective, "model": shape, "draw": draw, "train_seed": seed}
                content = {"task": stated.task, "recipe": _recipe(stated.config), "flags": flags, "data": subset.key}
                key = _key("train", content)
                name = f"{objective} {source} {size:,} #{draw}" + (f" seed {seed}" if len(study.train_seeds) > 1 else "")
                output = fs.join(folder, RUNS, f"{objective}-{source}-{size}-{draw}-{seed}-{key[:8]}")
                config = ("--config", stated.config) if stated.config else ()
                arguments = (*config, *arguments_of(flags), "--manifest", subset.output, "--output", output, "--no-tensorboard")
                seen = int(flags.get("samples_seen") or _recipe(stated.config).get("samples_seen") or size)
                job = Job("train", name, key, ("train", stated.task, *arguments), (subset.key,), output, labels, seen)
                yield Trained(job, stated.task, shape, labels, name)


def _staged(study: Study, folder: str, parent: Trained, stage: Stage) -> Trained:
    """Return the fine-tuning of a checkpoint on an intermediate set."""
    dataset = _dataset(stage.data, f"via {stage.name}")
    flags = {"head": "normal", **stage.flags}
    key = _key("train", {"task": "finetune", "flags": flags, "data": dataset.splits, "from": parent.job.key})
    output = fs.join(folder, RUNS, f"{Path(parent.job.output).name}-via-{stage.name}-{key[:8]}")
    train = dataset.path_of(packed.TRAIN)
    arguments = (*arguments_of(flags), "--from", parent.job.output, "--manifest", train, "--output", output, "--no-tensorboard")
    labels = {**parent.labels, "via": stage.name}
    name = f"{parent.name} via {stage.name}"
    weight = int(float(flags.get("epochs") or 128) * dataset.split(packed.TRAIN).samples)
    job = Job("train", name, key, ("train", "finetune", *arguments), (parent.job.key,), output, labels, weight)
    return Trained(job, "finetune", parent.model, labels, name)


def _dataset(path: str, where: str) -> packed.Dataset:
    """Return what a packed set says of itself.

    Raises:
        UsageError: there is no packed set.
    """
    folder, _ = packed.folder_of(path)
    if not folder:
        raise UsageError(f"{where}: {path} is no packed set", "a folder that `evaluate pack` wrote", "evaluate pack")
    return packed.read(folder)


def _evaluations(study: Study, folder: str, models: Sequence[Trained], targets: Mapping[str, packed.Dataset]) -> Iterator[Job]:
    for protocol in study.protocols:
        verb = str(protocol["protocol"])
        module: Any = registry.get(PROTOCOLS, verb)
        needs_text = bool(getattr(module, "NEEDS_TEXT", False))
        for name, dataset in targets.items():
            flags = {**study.evaluate, **{key: value for key, value in protocol.items() if key != "protocol"}, **study.target(name).flags}
            for model in models:
                if needs_text and model.task not in TEXT_TASKS:
                    continue
                yield _evaluation(folder, verb, int(module.VERSION), flags, name, dataset, model, model.labels)
            if verb == "transfer" and SCRATCH in study.objectives:
                yield from _scratch(study, folder, int(module.VERSION), flags, name, dataset, models)


def _scratch(
    study: Study, folder: str, version: int, flags: dict[str, Any], name: str, dataset: packed.Dataset, models: Sequence[Trained]
) -> Iterator[Job]:
    """Return the controls from random weights: one for each architecture, which takes size and normalisation from its first checkpoint."""
    for shape in dict.fromkeys(model.model for model in models):
        first = next(model for model in models if model.model == shape)
        labels = {"source": "none", "size": 0, "objective": SCRATCH, "model": shape}
        scratch = {**flags, "strategies": [SCRATCH]}
        model = Trained(first.job, first.task, shape, labels, f"{SCRATCH} {shape}")
        yield _evaluation(folder, "transfer", version, scratch, name, dataset, model, labels)


def _evaluation(
    folder: str,
    verb: str,
    version: int,
    flags: dict[str, Any],
    target: str,
    dataset: packed.Dataset,
    model: Trained,
    labels: Mapping[str, Any],
) -> Job:
    content = {"verb": verb, "version": version, "flags": flags, "data": dataset.splits, "classes": dataset.class_digest}
    key = _key("evaluate", {**content, "checkpoint": model.job.key, "labels": dict(labels)})
    output = fs.join(folder, JOBS, key[:16], RESULTS)
    said = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    arguments = ("--checkpoint", model.job.output, "--data", dataset.folder, "--data-name", target, "--name", model.name)
    command = ("evaluate", verb, *arguments_of(flags), *arguments, "--results", output, *said)
    weight = dataset.split(packed.TEST).samples
    return Job("evaluate", f"{verb} {target} {model.name}", key, command, (model.job.key,), output, labels, weight)


def arguments_of(flags: Mapping[str, Any]) -> list[str]:
    """Return flags as arguments: `{"samples_seen": 10, "tensorboard": False}` are `--samples-seen 10 --no-tensorboard`."""
    arguments: list[str] = []
    for name, value in flags.items():
        flag = f"--{str(name).replace('_', '-')}"
        if value is True or value is False:
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            arguments += [flag, *map(str, value)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments


def _recipe(config: str) -> dict[str, Any]:
    from train.config import RECIPES

    return recipes.read(config, RECIPES) if config else {}


def _model_of(config: str, flags: Mapping[str, Any]) -> str:
    from train.config import TrainConfig

    return str(flags.get("model") or _recipe(config).get("model") or TrainConfig.model)


def _key(kind: str, content: Mapping[str, Any]) -> str:
    return digest({"kind": kind, "version": VERSION, **content})


def _check_commands(jobs: Sequence[Job]) -> None:
    """Parse every command, so that a flag that does not exist is refused before the first job runs.

    Raises:
        UsageError: there are no jobs, or a command is not understood.
    """
    from eval.cli import commands as evaluate_commands
    from shards.cli import COMMANDS as SHARDS
    from shards.core.cli import parse
    from train.cli import commands as train_commands

    if not jobs:
        raise UsageError("a study without a job", "sources, sizes, objectives, targets and protocols")
    verbs = {"shards": SHARDS, "train": train_commands(), "evaluate": evaluate_commands()}
    seen = set()
    for job in jobs:
        program, verb, *arguments = job.command
        if program == "curate":  # its flags are curate's to check: `run.check_builds` asks it
            continue
        # Jobs that differ in paths, seeds and labels alone are understood alike.
        apart = {"--manifest", "--output", "--checkpoint", "--results", "--label", "--name", "--seed", "--window"}
        stated = [word for word, before in zip(arguments, ["", *arguments], strict=False) if before not in apart and word not in apart]
        shape = (program, verb, tuple(stated))
        if shape in seen or (program, verb) == ("train", "finetune"):  # a fine-tuning's flags follow a checkpoint that is not there yet
            continue
        seen.add(shape)
        config = parse(f"{program} {verb}", verbs[program][verb], arguments)
        if job.kind == "evaluate":
            _check_on_set(verb, config)


def _check_on_set(verb: str, config: Any) -> None:
    """Let a protocol look at its flags and at the labels of its set: a k beyond the smallest class is refused before anything is trained.

    Raises:
        UsageError: the protocol cannot run there.
    """
    from eval.protocols.base import Sets

    module: Any = registry.get(PROTOCOLS, verb)
    module.prepare(config)
    sets = Sets(config)
    examples = module.open_data(config, sets) if hasattr(module, "open_data") else sets.open(config.path, config.classnames)
    module.check(config, sets, examples)
