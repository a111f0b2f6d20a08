"""What a training is made of: one frozen dataclass that is the YAML file, the flags and what a checkpoint remembers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from shards.core import recipes
from shards.core.config import digest, dump, load, option
from shards.core.errors import UsageError
from train.augment import Augment

RECIPES = Path(__file__).parent / "recipes"

# What may differ between two runs of the same training. Data are compared by the digests of their manifests.
INCIDENTAL = {
    "manifest", "config", "output", "engine", "device", "workers", "log_every", "checkpoint_every", "keep", "resume", "tensorboard",
    "dry_run", "json",
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of `train clip`. Budgets are samples seen; `batch_size` is that of all processes together."""

    manifest: tuple[str, ...] = option(
        (), "builds to train on (folder or manifest.json); @w gives a share of the samples seen", metavar="PATH[@w]"
    )
    output: str = option("", "folder of the checkpoint and the logs", metavar="DIR")
    config: str = option("", "YAML file, or the name of a recipe; flags override it", metavar="FILE|NAME")
    samples: int | None = option(None, "use only the first N samples of each build")
    model: str = option("RN50", "open_clip's name of a model, or one of ours: tiny-rn-32, tiny-rn-64, tiny-vit-32, tiny-vit-64")
    image_size: int | None = option(None, "pixels to a side (the model's own by default)")
    epochs: float | None = option(None, "budget, in passes over the data; may be a fraction")
    samples_seen: int | None = option(None, "budget, in samples seen, instead of --epochs")
    batch_size: int = option(1024, "samples per step, of all processes together")
    lr: float = option(1e-3, "peak learning rate; a cosine takes it to 0")
    beta1: float = option(0.9, "AdamW's beta 1")
    beta2: float = option(0.999, "AdamW's beta 2")
    eps: float = option(1e-8, "AdamW's epsilon")
    weight_decay: float = option(0.1, "AdamW's weight decay; none on gains, biases and logit_scale")
    warmup: int | None = option(None, "linear warm-up, in steps (default: a tenth of training, at most 2,000)")
    warmup_samples: int | None = option(None, "linear warm-up, in samples seen, instead of --warmup")
    grad_clip: float | None = option(None, "largest norm of the gradient")
    seed: int = option(0, "of the first weights, the order and the augmentation")
    captions: Literal["first", "sampled"] = option("first", "where a sample has several captions: the chosen one, or one drawn each time")
    layer: str = option(
        "", "take captions from this layer of the builds (`curate layer add`); a sample's own where it has none", metavar="NAME"
    )
    augment: Augment = dataclasses.field(default_factory=Augment)
    precision: Literal["fp32", "bf16", "amp"] = option("fp32", "bf16: autocast to bfloat16; amp: to float16 with loss scaling, on a GPU")
    channels_last: bool = option(True, "keep images channels-last in memory, which convolutions like")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    engine: Literal["cpu", "dali"] = option("cpu", "what decodes images")
    workers: int = option(0, "decoding threads (0: one per core)")
    log_every: int = option(10, "steps between two lines of the log")
    checkpoint_every: int = option(1000, "steps between two checkpoints; the last step has one anyway")
    keep: int = option(0, "how many older checkpoints to keep beside the last")
    resume: Literal["auto", "never"] = option("auto", "go on from the output folder's checkpoint, or start anew over it")
    tensorboard: bool = option(True, "write TensorBoard's files too")
    dry_run: bool = option(False, "print the plan and stop")
    json: bool = option(False, "print JSON")

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Return the configuration of a YAML file, where `config` names one, overridden by flags.

        Raises:
            UsageError: no such file, or a key or value that cannot be.
        """
        values = {**recipes.read(flags["config"], RECIPES), **flags} if flags.get("config") else dict(flags)
        # A budget or a warm-up given as a flag replaces the file's, whichever unit that has.
        for one, other in (("epochs", "samples_seen"), ("warmup", "warmup_samples")):
            for given, replaced in ((one, other), (other, one)):
                if flags.get(given) is not None and replaced not in flags:
                    values.pop(replaced, None)
        return load(cls, values)

    def check(self) -> None:
        """Refuse what cannot be trained, before anything is opened.

        Raises:
            UsageError: naming the field.
        """
        if not self.manifest:
            raise UsageError("no data", "--manifest BUILD", "curate build-shards makes a build")
        if not self.output and not self.dry_run:
            raise UsageError("no output folder", "--output DIR")
        if (self.epochs is None) == (self.samples_seen is None):
            found = "no budget" if self.epochs is None else "two budgets"
            raise UsageError(found, "exactly one of --epochs and --samples-seen")
        if self.warmup is not None and self.warmup_samples is not None:
            raise UsageError("two warm-ups", "at most one of --warmup and --warmup-samples")
        for name in ("batch_size", "log_every", "checkpoint_every", "epochs", "samples_seen", "samples", "image_size"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UsageError(f"{name}: {value}", "more than 0")

    def sources(self) -> list[tuple[str, float | None]]:
        """Return the builds' paths and their shares, None where none is given."""
        return [_weighted(text) for text in self.manifest]

    def steps(self, epoch_samples: int) -> int:
        """Return the steps that the budget takes; the last batch completes it and may exceed it."""
        wanted = self.samples_seen if self.samples_seen is not None else (self.epochs or 0) * epoch_samples
        return math.ceil(wanted / self.batch_size)

    def warmup_steps(self, steps: int) -> int:
        """Return the steps of warm-up in a training of so many."""
        if self.warmup_samples is not None:
            return math.ceil(self.warmup_samples / self.batch_size)
        return self.warmup if self.warmup is not None else min(steps // 10, 2000)

    def essence(self) -> dict[str, Any]:
        """Return the fields that decide what comes out; their digest names a training in tables of results."""
        return {key: value for key, value in dump(self).items() if key not in INCIDENTAL}

    @property
    def digest(self) -> str:
        """sha256 of the fields that decide what comes out."""
        return digest(self.essence())

    def to_yaml(self) -> str:
        """Return the resolved configuration, as `--config` reads it."""
        import yaml

        values = dump(dataclasses.replace(self, config="", dry_run=False, json=False))
        return yaml.safe_dump({k: v for k, v in values.items() if v not in (None, "")}, sort_keys=False)


def _weighted(text: str) -> tuple[str, float | None]:
    path, at, weight = text.rpartition("@")
    try:
        share = float(weight) if at else None
    except ValueError:
        return text, None
    if share is not None and not (0 < share < math.inf):
        raise UsageError(f"manifest {text!r}: share {weight}", "a number above 0")
    return (path, share) if at else (text, None)
