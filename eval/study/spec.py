"""What a study file says, read strictly: a misspelt key is refused with the closest known one, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.core import fs, recipes, registry
from shards.core.config import load, option
from shards.core.errors import UsageError, closest

SCRATCH = "scratch"  # the objective that trains nothing before the targets
EXAMPLES = Path(__file__).parent / "examples"
PROTOCOLS = "eval.protocols"


@dataclass(frozen=True)
class Source:
    """A build that models are pre-trained on, there already or made first, and flags of `train` that belong to it, such as the labels'
    column.
    """

    manifest: str = option("", "a build of ours")
    recipe: str = option("", "instead: a recipe file of `curate build-shards`, which the study builds first")
    build: dict[str, Any] = option({}, "flags of `curate build-shards`, beside the recipe")
    flags: dict[str, Any] = option({}, "flags of `train`, for this source alone")


@dataclass(frozen=True)
class Objective:
    """A task of `train` with its flags; `scratch` stands for no pre-training."""

    task: str = option("", "a task of `train list` (default: the objective's name)")
    config: str = option("", "a recipe, by name or file")
    flags: dict[str, Any] = option({}, "flags of `train`")


@dataclass(frozen=True)
class Target:
    """A packed set that models are transferred to."""

    data: str = option(help="a folder that `evaluate pack` wrote")
    flags: dict[str, Any] = option({}, "flags of `evaluate`, for this target alone")


@dataclass(frozen=True)
class Stage:
    """A fine-tuning between pre-training and targets (pre-train → intermediate → target)."""

    name: str = option(help="what tables call it")
    data: str = option(help="a folder that `evaluate pack` wrote")
    flags: dict[str, Any] = option({}, "flags of `train finetune`")


@dataclass(frozen=True)
class Study:
    """All that a study file says."""

    name: str = option("study", "what its page is called")
    sources: dict[str, Any] = option({}, "builds by name")
    sizes: tuple[int, ...] = option((), "samples of each source to pre-train on; smaller ones are the first of larger ones")
    draws: int = option(1, "disjoint windows of each source, as independent draws of its data", least=1)
    objectives: dict[str, Any] = option({}, "objectives by name")
    models: tuple[str, ...] = option((), "architectures; none takes each recipe's own")
    train_seeds: tuple[int, ...] = option((0,), "seeds of first weights, order and augmentation")
    train: dict[str, Any] = option({}, "flags of `train` for all pre-trainings, such as samples_seen")
    via: tuple[dict[str, Any], ...] = option((), "fine-tunings between pre-training and targets; each is tried beside the direct way")
    targets: dict[str, Any] = option({}, "packed sets by name")
    protocols: tuple[dict[str, Any], ...] = option(
        (), "protocols of `evaluate list` with their flags, such as {protocol: transfer, k: '1,5,all'}"
    )
    evaluate: dict[str, Any] = option({}, "flags of `evaluate` for all protocols")

    def source(self, name: str) -> Source:
        """Return a source."""
        source = load(Source, _mapping(self.sources[name], "manifest"), f"sources.{name}")
        if bool(source.manifest) == bool(source.recipe):
            stated = "both manifest and recipe" if source.recipe else "neither manifest nor recipe"
            raise UsageError(f"sources.{name}: {stated}", "one of them")
        if source.recipe and not fs.exists(source.recipe):
            raise UsageError(f"sources.{name}: no recipe file at {source.recipe!r}", "a recipe of `curate build-shards`")
        if source.build and not source.recipe:
            raise UsageError(f"sources.{name}: build flags without a recipe", "recipe: FILE.yaml")
        if "output" in source.build:
            raise UsageError(f"sources.{name}: build.output: the study says where its builds lie", "other flags of `curate build-shards`")
        return source

    def objective(self, name: str) -> Objective:
        """Return an objective, its task filled in."""
        stated = load(Objective, self.objectives[name] or {}, f"objectives.{name}")
        return Objective(stated.task or name, stated.config, stated.flags)

    def target(self, name: str) -> Target:
        """Return a target."""
        return load(Target, _mapping(self.targets[name], "data"), f"targets.{name}")

    def stages(self) -> list[Stage]:
        """Return the fine-tunings between."""
        return [load(Stage, stage, f"via[{at}]") for at, stage in enumerate(self.via)]


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    """Return a mapping; a text alone stands for its one necessary key."""
    return {key: value} if isinstance(value, str) else value


def read(path: str) -> Study:
    """Return a study; paths in it are relative to the folder that the command runs in.

    Raises:
        UsageError: no such file, an unknown key, or something that cannot be run.
    """
    study = load(Study, recipes.read(path, EXAMPLES))
    for name in ("sources", "sizes", "objectives", "targets", "protocols"):
        if not getattr(study, name):
            raise UsageError(f"{path}: no {name}", f"{name}: {Study.__dataclass_fields__[name].metadata['help']}")
    if len(set(study.sizes)) < len(study.sizes) or min(study.sizes) < 1:
        raise UsageError(f"{path}: sizes {list(study.sizes)}", "different numbers from 1")
    tasks = registry.names("train.tasks")
    for name in study.objectives:
        task = study.objective(name).task
        if task not in (*tasks, SCRATCH):
            raise UsageError(f"{path}: objectives.{name}: task {task!r}", ", ".join((*tasks, SCRATCH)), closest(task, (*tasks, SCRATCH)))
    known = registry.names(PROTOCOLS)
    for at, protocol in enumerate(study.protocols):
        stated = str(protocol.get("protocol", ""))
        if stated not in known:
            raise UsageError(f"{path}: protocols[{at}].protocol: {stated!r}", ", ".join(known), closest(stated, known))
    for name in study.sources:
        study.source(name)
    for name in study.targets:
        study.target(name)
    study.stages()
    return study
