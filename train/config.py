"""What every training is told: one frozen dataclass that is the YAML file, the flags and what a checkpoint remembers.

A task's own options stand in its file (`train/tasks/`), in a class that derives from this one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from shards.core import recipes
from shards.core.config import MOST_WORKERS, digest, dump, load, option
from shards.core.errors import UsageError
from train.data.annotations import LayerShare, check_tokens_alone, layer_shares
from train.data.augment import presets
from train.data.augment.params import Augment
from train.data.noise import Noise
from train.optim.schedules import SLIP_FLOOR

RECIPES = Path(__file__).parent / "recipes"

# What may differ between two runs of the same training. Data are compared by the digests of their manifests.
INCIDENTAL = {
    "manifest", "config", "output", "engine", "device", "workers", "loader", "log_every", "checkpoint_every", "checkpoint_minutes",
    "keep", "resume", "report_to", "tensorboard", "eval_data", "eval_every", "eval_protocol", "max_bad_share", "strict", "profile",
    "dry_run", "measure", "json", "from_", "compile", "accum", "write_layer", "tokens", "keep_decoded",
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """The options that all tasks share. Budgets are samples seen; `batch_size` is that of all processes together."""

    TASK: ClassVar[str] = ""
    AUGMENT: ClassVar[str] = "openclip"  # the task's own augmentation, by the name of a preset

    # Data
    manifest: tuple[str, ...] = option(
        (), "builds to train on (folder or manifest.json); @w gives a share of the samples seen", metavar="PATH[@w]"
    )
    output: str = option("", "folder of the checkpoint and the logs", metavar="DIR")
    config: str = option("", "YAML file, or the name of a recipe; flags override it", metavar="FILE|NAME")
    samples: int | None = option(None, "use only the first N samples of each build", above=0)
    captions: Literal["first", "sampled"] = option("first", "where a sample has several captions: the chosen one, or one drawn each time")
    layer: tuple[str, ...] = option(
        (),
        "take captions from layers of the builds (`curate layer add`), each with probability P, drawn each time, and the rest from"
        " the samples' own; one layer alone: always. A sample's own where the layer has none",
        metavar="NAME[@P]",
    )
    tokens: str = option("", "take token ids from this layer (`curate layer tokens`) instead of encoding captions", metavar="NAME")
    labels: str = option("class", "column of the sidecar or of a layer (LAYER.COLUMN) that holds class numbers", metavar="COLUMN")
    weights: str = option("", "weigh each sample's loss by this column of the sidecar or of a layer (LAYER.COLUMN)", metavar="COLUMN")
    noise: Noise = dataclasses.field(default_factory=Noise)
    augment: Augment = option(Augment(), f"augmentation by name: {', '.join(presets.names())}; YAML may change single keys")

    # Model
    model: str = option("RN50", "open_clip's name of a model, one of ours (tiny-rn-64, tiny-vit-64, …), timm/NAME or torchvision/NAME")
    image_size: int | None = option(None, "pixels to a side (the model's own by default)", above=0)
    from_: str = option("", "start from the weights of this checkpoint, ours or another tool's; a new training", metavar="PATH")
    frozen_patch_embed: bool = option(False, "do not train a ViT's patch projection (MoCo-v3)")
    sincos: bool = option(False, "fixed 2-D sin-cos positions for a ViT (MoCo-v3)")
    drop_rate: float | None = option(None, "dropout in the image tower (AugReg)", least=0, below=1)
    drop_path: float | None = option(None, "stochastic depth of the image tower's last block", least=0, below=1)
    patch_dropout: float | None = option(None, "share of a ViT's patches dropped in training (FLIP)", least=0, below=1)
    bn_group: int | None = option(
        None, "compute BatchNorm's statistics over groups of N samples, so that processes change nothing", least=2
    )
    sync_bn: bool = option(True, "on several GPUs, compute BatchNorm's statistics over all of them (not with --bn-group)")

    # Budget and optimiser
    epochs: float | None = option(None, "budget, in passes over the data; may be a fraction", above=0)
    samples_seen: int | None = option(None, "budget, in samples seen, instead of --epochs", above=0)
    steps: int | None = option(None, "a trial: stop after N steps, with a warm-up that fits into them", above=0)
    batch_size: int = option(1024, "samples per step, of all processes together", above=0)
    accum: int = option(1, "make each step's gradient in N parts, which takes less memory and gives the same gradient", above=0)
    optimizer: Literal["adamw", "sgd", "lars"] = option("adamw", "which optimiser")
    lr: float = option(1e-3, "peak learning rate", above=0)
    schedule: Literal["cosine", "slip_cosine", "constant", "constant_cooldown", "step"] = option(
        "cosine", "learning rate after the warm-up"
    )
    lr_floor: float | None = option(None, "where a cosine or a cool-down ends (default: 0, or 1e-5 for slip_cosine)", least=0)
    cooldown: int = option(0, "last steps, in which constant_cooldown falls", least=0)
    lr_every: int = option(0, "steps between two falls of the schedule `step`", least=0)
    lr_every_epochs: float | None = option(None, "the same in passes over the data, instead of --lr-every", above=0)
    warmup: int | None = option(None, "linear warm-up, in steps (default: a tenth of training, at most 2,000)", least=0)
    warmup_samples: int | None = option(None, "linear warm-up, in samples seen, instead of --warmup", least=0)
    warmup_epochs: float | None = option(None, "linear warm-up, in passes over the data, instead of --warmup", least=0)
    beta1: float = option(0.9, "AdamW's beta 1", least=0, below=1)
    beta2: float = option(0.999, "AdamW's beta 2", least=0, below=1)
    eps: float = option(1e-8, "AdamW's epsilon", above=0)
    momentum: float = option(0.9, "momentum of SGD and LARS", least=0, below=1)
    weight_decay: float = option(0.1, "weight decay; none on gains, biases and logit_scale", least=0)
    decay_rule: Literal["open_clip", "ndim", "all"] = option("open_clip", "what is decayed: open_clip's rule, timm's, or all")
    head_lr: float | None = option(None, "peak learning rate of the heads (default: the trunk's)", above=0)
    head_weight_decay: float | None = option(None, "weight decay of the heads (default: the trunk's)", least=0)
    layer_decay: float = option(1.0, "factor of the learning rate from each layer to the one below it", above=0, most=1)
    grad_clip: float | None = option(None, "largest norm of the gradient", above=0)
    ema: float | None = option(None, "keep an exponential moving average of the weights with this decay", least=0, below=1)
    seed: int = option(0, "of the first weights, the order and the augmentation", least=0, most=2**32 - 1)

    # Computing
    precision: Literal["fp32", "bf16", "amp"] = option("fp32", "bf16: autocast to bfloat16; amp: to float16 with loss scaling, on a GPU")
    channels_last: bool = option(True, "keep images channels-last in memory, which convolutions like")
    compile: bool = option(False, "compile the model with torch.compile: some minutes at the start, faster steps on a GPU")
    grad_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, more time")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    engine: Literal["cpu", "dali"] = option("cpu", "what decodes images")
    decode: Literal["exact", "fast"] = option("exact", "fast: scaled decoding without a margin, faster transforms, bilinear crops")
    loader: Literal["process", "threads"] = option("process", "where batches are made: in a process of their own, or by threads")
    workers: int = option(
        0, "decoding threads, at most one per core (0: one per core, shared among a machine's processes)", least=0, most=MOST_WORKERS
    )
    keep_decoded: float = option(0.0, "GiB of decoded images to keep in memory: small sets are decoded once (engine cpu)", least=0)
    max_bad_share: float = option(0.01, "stop when more than this share of the samples (and more than 10) cannot be used", least=0, most=1)

    # Output
    log_every: int = option(10, "steps between two lines of the log", above=0)
    checkpoint_every: int = option(1000, "steps between two checkpoints; the last step has one anyway", above=0)
    checkpoint_minutes: float = option(10.0, "minutes between two checkpoints, whichever comes first; 0: by steps alone", least=0)
    keep: int = option(0, "how many numbered checkpoints to keep beside the last one; the newest of them has its step", least=0)
    resume: Literal["auto", "latest", "never"] = option(
        "auto", "go on from the output folder's checkpoint (latest: the same), or start anew"
    )
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = option(("tensorboard",), "where to log beside log.jsonl")
    tensorboard: bool | None = option(None, "with or without TensorBoard, whatever --report-to says")
    eval_data: tuple[str, ...] = option((), "labelled sets to evaluate on during training", metavar="PATH")
    eval_every: int = option(1000, "steps between two evaluations", above=0)
    eval_protocol: str = option("zeroshot", "what to evaluate: zeroshot, or probe for models without text", metavar="NAME")
    write_layer: str = option(
        "", "at the end, lay the last loss of every sample beside the builds, as the layer NAME: NAME.loss, .seen, .last", metavar="NAME"
    )
    strict: bool = option(False, "exit with 1 if any sample was replaced or had no caption")
    profile: bool = option(False, "measure the loader alone, the model alone and both together, say what limits, and stop")
    dry_run: bool = option(False, "print the plan and the resolved recipe, measure speed and memory for some seconds, and stop")
    measure: bool = option(True, "measure with --dry-run")
    json: bool = option(False, "print JSON")

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Return the configuration of a YAML file, where `config` names one, overridden by flags.

        Raises:
            UsageError: no such file, or a key or value that cannot be.
        """
        from_file = recipes.read(flags["config"], RECIPES) if flags.get("config") else {}
        values: dict[str, Any] = {}
        for stated in (from_file, flags):
            values |= {"from_" if key == "from" else key: value for key, value in stated.items()}
        if values.get("task", cls.TASK) != cls.TASK:
            raise UsageError(f"{flags['config']}: a recipe of the task {values['task']!r}", cls.TASK, f"train {values['task']}")
        values.pop("task", None)
        if "layer_share" in values:
            raise UsageError("layer_share: a key of older versions", "layer: [NAME@P], with the share as P; without a layer, remove it")
        # A budget or a warm-up given as a flag replaces the file's, whichever unit that has.
        for units in (("epochs", "samples_seen"), ("warmup", "warmup_samples", "warmup_epochs")):
            if any(flags.get(unit) is not None for unit in units):
                for unit in units:
                    if unit not in flags:
                        values.pop(unit, None)
        for name in cls.augmentations():
            start = values.get(name, getattr(cls, name.upper()))
            if isinstance(start, Mapping) and "preset" not in start:
                start = {"preset": getattr(cls, name.upper()), **start}
            values[name] = presets.resolve(start, name)
        if isinstance(values.get("tensorboard"), bool):  # a short form of report_to, which can also name no board at all
            others = [name for name in values.get("report_to", ()) if name != "tensorboard"]
            values["report_to"] = ("tensorboard", *others) if values.pop("tensorboard") else tuple(others)
        return load(cls, values)

    @property
    def trains(self) -> bool:
        """Whether this is a training, which writes to `output`; not a plan or a measurement."""
        return not (self.dry_run or self.profile)

    @classmethod
    def augmentations(cls) -> tuple[str, ...]:
        """Return the names of the fields that hold an augmentation; AUGMENT is the default of `augment`, and so on."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.name.startswith("augment"))

    def check(self) -> None:
        """Refuse what cannot be trained, before anything is opened.

        Raises:
            UsageError: naming the field.
        """
        if not self.manifest:
            raise UsageError("no data", "--manifest BUILD", "curate build-shards makes a build")
        if self.dry_run and self.profile:
            raise UsageError("--dry-run and --profile", "one of them: --dry-run measures for some seconds, --profile in parts")
        if not self.output and self.trains:
            raise UsageError("no output folder", "--output DIR")
        if (self.epochs is None) == (self.samples_seen is None):
            stated = "no budget" if self.epochs is None else "two budgets"
            advice = ""
            if self.steps is not None:
                advice = f"--steps alone is no budget; for {self.steps:,} steps: --samples-seen {self.steps * self.batch_size}"
            raise UsageError(stated, "exactly one of --epochs and --samples-seen", advice)
        warmups = [name for name in ("warmup", "warmup_samples", "warmup_epochs") if getattr(self, name) is not None]
        if len(warmups) > 1:
            raise UsageError(f"two warm-ups: {', '.join(warmups)}", "at most one of --warmup, --warmup-samples and --warmup-epochs")
        floor = self.lr_floor if self.lr_floor is not None else SLIP_FLOOR if self.schedule == "slip_cosine" else 0.0
        if floor > self.lr:
            raise UsageError(f"--lr-floor {floor:g} above --lr {self.lr:g}: the learning rate would rise", f"at most {self.lr:g}")
        check_tokens_alone(self.tokens, self.captions, self.layers())

    def sources(self) -> list[tuple[str, float | None]]:
        """Return the builds' paths and their shares, None where none is given."""
        return [_weighted(text) for text in self.manifest]

    def layers(self) -> tuple[LayerShare, ...]:
        """Return the layers that captions are taken from, and their shares."""
        return layer_shares(self.layer)

    def steps_of(self, epoch_samples: int) -> int:
        """Return the steps that the budget takes; the last batch completes it and may exceed it. A trial takes fewer."""
        steps = self.budget_steps(epoch_samples)
        return steps if self.steps is None else min(self.steps, steps)

    def budget_steps(self, epoch_samples: int) -> int:
        """Return the steps that the budget takes, whether or not this is a trial."""
        if self.samples_seen is not None:
            return -(-self.samples_seen // self.batch_size)
        # As fractions: 0.1 · 30 epochs of floats would be a step too many.
        return math.ceil(Fraction(str(self.epochs or 0)) * epoch_samples / self.batch_size)

    def warmup_steps(self, steps: int, epoch_samples: int) -> int:
        """Return the steps of warm-up in a training of so many; a trial's is cut to half of it."""
        stated = self._stated_warmup(steps, epoch_samples)
        return stated if self.steps is None else min(stated, steps // 2)

    def _stated_warmup(self, steps: int, epoch_samples: int) -> int:
        if self.warmup_samples is not None:
            return -(-self.warmup_samples // self.batch_size)
        if self.warmup_epochs is not None:
            return math.ceil(Fraction(str(self.warmup_epochs)) * epoch_samples / self.batch_size)
        return self.warmup if self.warmup is not None else min(steps // 10, 2000)

    def fall_steps(self, epoch_samples: int) -> int:
        """Return the steps between two falls of the schedule `step`; 0 where none are stated."""
        if self.lr_every_epochs is None:
            return self.lr_every
        return math.ceil(Fraction(str(self.lr_every_epochs)) * epoch_samples / self.batch_size)

    def tower_options(self) -> dict[str, Any]:
        """Return the changes to the image tower, as `train.models.options.TowerOptions` takes them."""
        names = ("frozen_patch_embed", "sincos", "drop_rate", "drop_path", "patch_dropout")
        return {name: getattr(self, name) for name in names}

    def essence(self) -> dict[str, Any]:
        """Return the fields that decide what comes out; their digest names a training in tables of results."""
        deciding = {key: value for key, value in dump(self).items() if key not in INCIDENTAL}
        shares = [f"{layer.name}@{layer.share}" for layer in self.layers()]  # NAME and NAME@1 are one training
        return {"task": self.TASK} | deciding | {"layer": shares}

    @property
    def digest(self) -> str:
        """sha256 of the fields that decide what comes out."""
        return digest(self.essence())

    def to_yaml(self) -> str:
        """Return the resolved configuration, as `--config` reads it."""
        import yaml

        return yaml.safe_dump(self.resolved(), sort_keys=False)

    def resolved(self) -> dict[str, Any]:
        """Return the keys and values of `to_yaml`."""
        values = {"task": self.TASK} | dump(dataclasses.replace(self, config="", dry_run=False, measure=True, profile=False, json=False))
        values["from"] = values.pop("from_")
        return {k: v for k, v in values.items() if v not in (None, "")}


def _weighted(text: str) -> tuple[str, float | None]:
    path, at, weight = text.rpartition("@")
    try:
        share = float(weight) if at else None
    except ValueError:
        return text, None
    if share is not None and not (0 < share < math.inf):
        raise UsageError(f"manifest {text!r}: share {weight}", "a number above 0")
    return (path, share) if at else (text, None)


def in_todays_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `essence` that an older checkpoint holds as it would be written today.

    One layer and its share were two keys, `layer` and `layer_share`; samples had no weights; nothing was erased.
    """
    essence = dict(config)
    for name, value in config.items():
        if name.startswith("augment") and isinstance(value, Mapping):
            essence[name] = {"erase": 0.0, **value}
    if isinstance(essence.get("layer"), str):
        name, share = essence["layer"], essence.pop("layer_share", 1.0)
        essence["layer"] = [f"{name}@{share}"] if name else []
    return {"weights": "", **essence}
