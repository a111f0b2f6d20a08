"""Fine-tune a pre-trained image tower on labelled images: all of it, its head alone, or adapters."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from shards.core import fs, recipes
from shards.core.config import option
from shards.core.errors import UsageError
from train.config import RECIPES, TrainConfig
from train.data.augment.mixup import Mix
from train.data.batch import Batch, Needs
from train.tasks import base, supervised
from train.tasks.base import Data, Losses, Step, Terms

if TYPE_CHECKING:
    import torch
    from torch import nn

TEMPLATES = ("a photo of a {c}.",)
# wise-ft and the published protocol: AdamW, weight decay 0.1 on everything, clipped at 1.
EPOCHS, BATCH_SIZE, LR = 128, 128, 1e-3
SHOWN = 3  # class names in a message


@dataclass(frozen=True)
class Config(TrainConfig):
    """Flags of `train finetune`.

    Where `--from` names a checkpoint of ours, model, image size, mean and std are that checkpoint's.
    """

    TASK: ClassVar[str] = "finetune"
    AUGMENT: ClassVar[str] = "finetune"

    model: str = option("", "the trunk, where --from does not say it: open_clip's name, one of ours, timm/NAME or torchvision/NAME")
    epochs: float | None = option(None, f"budget, in passes over the data (default: {EPOCHS}, the published one)", above=0)
    batch_size: int = option(BATCH_SIZE, "samples per step, of all processes together", above=0)
    lr: float = option(LR, "peak learning rate", above=0)
    warmup: int | None = option(
        None, "linear warm-up, in steps (default: a tenth of training; the published 500 where that is less)", least=0
    )
    warmup_beyond: bool = option(False, "allow a warm-up longer than the training, as published few-shot runs have: --lr is never reached")
    grad_clip: float | None = option(1.0, "largest norm of the gradient", above=0)
    keep_decoded: float = option(1.0, "GiB of decoded images to keep in memory: small sets are decoded once (engine cpu)", least=0)
    tune: Literal["all", "head", "houlsby", "lora"] = option("all", "what is trained: all, the head alone, or adapters with the head")
    adapter_width: int = option(0, "numbers in a bottleneck of houlsby (64), or the rank of lora (8)", least=0)
    head: Literal["auto", "zeroshot", "checkpoint", "normal", "zero"] = option(
        "auto",
        "first weights of the classifier: zeroshot (from class names, by the trunk's text tower), checkpoint (that of --from), normal, "
        "zero; auto: the first of these that there is",
    )
    templates: str = option("", "prompts of a zero-shot head, one per line with {c} for the class", metavar="FILE")
    unit_features: bool | None = option(None, "scale features to unit length before the classifier (default: with a zero-shot head)")
    classes: int | None = option(None, "how many classes there are (default: as many as the manifests name)", above=1)
    smoothing: float = option(0.0, "label smoothing", least=0, below=1)
    mix: Mix = field(default_factory=Mix)

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Return the configuration with what the trunk's checkpoint decides.

        Raises:
            UsageError: as for other tasks, or flags that contradict the checkpoint.
        """
        config = super().from_flags(flags)
        if config.epochs is None and config.samples_seen is None:
            config = dataclasses.replace(config, epochs=float(EPOCHS))
        return config.following(_stated_normalisation(flags))

    def following(self, stated: tuple[str, ...] = ()) -> Self:
        """Return the configuration with model, image size, mean and std of the checkpoint that `--from` names, if it is ours.

        Args:
            stated: which of mean and std the user has stated, which must then be the trunk's.

        Raises:
            UsageError: no model is named, or a value contradicts the checkpoint.
        """
        theirs = trunk_config(self.from_) if self.from_ else None
        if theirs is None:
            return self
        if self.model and self.model != theirs["model"]:
            raise UsageError(f"--model {self.model}: {self.from_} is {theirs['model']}", theirs["model"], "leave --model out")
        for name in stated:
            if tuple(getattr(self.augment, name)) != tuple(theirs["augment"][name]):
                found = f"augment.{name} {list(getattr(self.augment, name))}: {self.from_} was trained with {theirs['augment'][name]}"
                raise UsageError(found, "the trunk's own", f"leave augment.{name} out")
        augment = dataclasses.replace(self.augment, mean=tuple(theirs["augment"]["mean"]), std=tuple(theirs["augment"]["std"]))
        return dataclasses.replace(self, model=theirs["model"], image_size=self.image_size or theirs["image_size"], augment=augment)

    def check(self) -> None:
        """Refuse what cannot be trained, before anything is opened.

        Raises:
            UsageError: naming the field.
        """
        super().check()
        if not self.model:
            found = f"--from {self.from_} does not say its model" if self.from_ else "no trunk: neither --from nor --model"
            raise UsageError(found, "--model NAME", "without --from, --model is trained from scratch")


def _stated_normalisation(flags: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which of mean and std a recipe or a call states itself, rather than by a preset's name."""
    from_file = recipes.read(flags["config"], RECIPES) if flags.get("config") else {}
    augment = flags.get("augment", from_file.get("augment"))
    return tuple(name for name in ("mean", "std") if isinstance(augment, Mapping) and name in augment)


def trunk_config(path: str) -> dict[str, Any] | None:
    """Return the configuration that a checkpoint of ours was trained with; None for another tool's file.

    Raises:
        UsageError: nothing is there.
    """
    from train import checkpoint
    from train.models.files import find_file

    file = checkpoint.path_in(path)
    if not fs.exists(file) or fs.is_dir(file):
        find_file(path)  # raises, unless it is a folder of another tool's
        return None
    return _config_in(file, fs.size(file), os.stat(file).st_mtime_ns if not fs.is_remote(file) else 0)


@functools.lru_cache(maxsize=8)
def _config_in(file: str, size: int, changed: int) -> dict[str, Any] | None:
    """Return the configuration in a file; a file that is asked for several times is read once, as long as it is the same."""
    from train import checkpoint
    from train.models.files import read_file

    content, _ = read_file(file)
    ours = isinstance(content, Mapping) and content.get("format") == checkpoint.FORMAT
    return dict(content["config"]) if ours else None


class FinetuneTask(base.Task):
    """A pre-trained image tower and a linear classifier, trained with cross entropy."""

    def __init__(self, config: Config, data: Data) -> None:
        """Build the tower, its adapters and the classifier; the tower's weights are loaded by the trainer, from `--from`.

        Raises:
            UsageError: nobody says how many classes there are, or a head that cannot be.
        """
        from torch import nn

        from train.models.towers import build_tower

        count = config.classes or len(data.classes)
        if not count:
            raise UsageError("the data do not say how many classes they have", "--classes N")
        self.config = config
        self.classes = data.classes
        self.mix = config.mix if config.mix.active else None
        self.smoothing = config.smoothing
        tower = build_tower(config.model, config.image_size, **config.tower_options())
        self.model, self.image_size = tower, tower.image_size
        self.head_kind = head_kind(config, data.classes)
        unit = config.unit_features
        self.unit_features = self.head_kind == "zeroshot" if unit is None else unit
        self.heads = nn.ModuleDict({"classifier": first_head(config, self.head_kind, tower.width, count, data.classes)})
        self.needs = Needs(views=(config.augment,), classes=count)

    def started(self) -> None:
        """Freeze what is not trained, and add adapters: after the trunk's weights were loaded into its own names."""
        from train.models.adapters import adapt

        if self.config.tune == "head":
            self.model.requires_grad_(False)
        elif self.config.tune != "all":
            adapt(self.model, self.config.tune, self.config.adapter_width)

    def features(self, views: list[torch.Tensor], batch: Batch) -> Terms:
        """Return the classifier's logits, (n, classes)."""
        if self.config.tune == "head":
            self.model.eval()  # a trunk that is not trained keeps its running statistics, too
        return {"logits": logits(self.model, self.heads["classifier"], views[0], self.unit_features)}

    def loss(self, features: Terms, batch: Batch, at: Step) -> Losses:
        """Return the cross entropy of the samples that have a label, and the share of them that is classified rightly."""
        return supervised.classification_losses(features["logits"], batch, self.smoothing, "finetune_loss")


def logits(tower: nn.Module, classifier: nn.Module, images: torch.Tensor, unit_features: bool) -> torch.Tensor:
    """Return a fine-tuned model's logits, (n, classes), of normalised images, (n, 3, S, S)."""
    import torch.nn.functional as F

    features = tower(images)
    return classifier(F.normalize(features, dim=-1) if unit_features else features)


def head_kind(config: Config, classes: tuple[str, ...]) -> str:
    """Return how the classifier starts: `--head`, or for `auto` the first of zeroshot, checkpoint and normal that is possible.

    Raises:
        UsageError: a zero-shot head without class names or without a text tower.
    """
    from train.models.load import TEXT_TASKS

    theirs = trunk_config(config.from_) if config.from_ else None
    task = theirs["task"] if theirs else ""
    if config.head == "auto":
        if task in TEXT_TASKS and classes:
            return "zeroshot"
        return "checkpoint" if task == Config.TASK else "normal"
    if config.head == "zeroshot":
        if not classes:
            raise UsageError("--head zeroshot: the data do not name their classes", "--head normal, or a build with class names")
        if theirs is None or task not in TEXT_TASKS:
            found = f"--head zeroshot: {config.from_ or 'a trunk from scratch'} has no text tower that is known"
            raise UsageError(found, "a checkpoint of clip or slip", "--head normal")
    if config.head == "checkpoint" and task != Config.TASK:
        found = f"--head checkpoint: {config.from_ or 'a trunk from scratch'} has no classifier of a fine-tuning"
        raise UsageError(found, "a checkpoint of train finetune, such as one of --tune head", "--head normal")
    return config.head


def first_head(config: Config, kind: str, width: int, count: int, classes: tuple[str, ...]) -> nn.Linear:
    """Return the classifier with its first weights.

    Raises:
        UsageError: a head for other classes.
    """
    import torch

    from train import checkpoint
    from train.models.heads import linear_classifier

    layer = linear_classifier(width, count, "zero" if kind == "zero" else "normal")
    if kind == "zeroshot":
        from shards.classes.templates import read_templates
        from train.models.load import load_checkpoint
        from train.models.zeroshot import class_weights, logit_scale

        loaded = load_checkpoint(config.from_)
        templates = read_templates(config.templates) if config.templates else TEMPLATES
        rows = class_weights(loaded, classes, templates) * logit_scale(loaded.model)
        with torch.no_grad():
            layer.weight.copy_(rows)
    elif kind == "checkpoint":
        state = checkpoint.read(checkpoint.path_in(config.from_))
        theirs = tuple(state.get("classes", ()))
        if theirs != classes or state["heads"]["classifier.weight"].shape != layer.weight.shape:
            found = f"--head checkpoint: {config.from_} tells {len(state['heads']['classifier.weight'])} classes apart, the data {count}"
            raise UsageError(f"{found}{_difference(theirs, classes)}", "the same classes in one order", "--head normal")
        layer.load_state_dict({name.partition(".")[2]: value for name, value in state["heads"].items() if name.startswith("classifier.")})
    return layer


def _difference(theirs: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Return in words how the classes of a checkpoint differ from those of the data; empty where either has no names."""
    if not theirs or not classes:
        return ""
    if set(theirs) == set(classes):
        return ", the same in another order"
    only = {"its own": sorted(set(theirs) - set(classes)), "the data's own": sorted(set(classes) - set(theirs))}
    return "".join(f"; {whose}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}" for whose, names in only.items() if names)


def build(config: Config, data: Data) -> FinetuneTask:
    """Return the task of a configuration."""
    return FinetuneTask(config, data)
