"""The flags that protocols of several fine-tunings share, and what they are checked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eval.protocols import _shots
from eval.protocols._shots import FewShot
from eval.transfer import inputs
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples
    from eval.protocols.base import Sets
    from train.models.load import Loaded

BASIN = 0.02  # Frankle et al. 2020, arXiv:1912.05671: two models are stable where the error barrier is below 2 points


@dataclass(frozen=True)
class Several(FewShot):
    """Flags of protocols that fine-tune one trunk several times on the same images."""

    k: str = option("all", "images per class, separated by commas; `all` takes every training image", metavar="K")
    val: str = option("", "labelled validation set for all choices (default: a packed set's own)", metavar="PATH")
    epochs: float = option(128.0, "epochs of a training", above=0)
    batch: int = option(128, "images in a step; all there are where these are fewer", above=0)
    optimizer: Literal["adamw", "sgd"] = option("adamw", "which optimiser; the published ResNet-50s take sgd with --lr 0.005")
    momentum: float = option(0.9, "momentum of sgd", least=0, below=1)
    weight_decay: float = option(0.1, "weight decay, of all weights", least=0)
    warmup: int = option(0, "steps of linear warm-up of a training from the trunk", least=0)
    augment: str = option("finetune", "augmentation of the training images, by name (`train finetune --help`)", metavar="NAME")
    tune: Literal["all", "houlsby", "lora"] = option("all", "what of the trunk is trained: all, or adapters alone")
    head: Literal["auto", "zeroshot", "probe", "normal", "zero"] = option(
        "auto", "first weights of the classifier: auto is zeroshot where the trunk reads text and the classes have names, else normal"
    )
    templates: str = option(
        "", "prompts of a zero-shot head, one per line with {c} for the class; the data's own where not given", metavar="FILE"
    )
    tune_seed: int = option(0, "of order, augmentation and random heads", least=0)
    alphas: int = option(0, "points between the ends of a line between two models, for loss barriers; 0: no barriers", least=0)
    lines: int = option(10, "at most so many lines between members; those from the trunk's start are all drawn", least=0)
    basin: float = option(
        BASIN,
        "a model is in the pre-train basin where its error barrier from the trunk's start, on training images, is below this",
        above=0,
    )
    norm: Literal["recompute", "average"] = option(
        "recompute", "BatchNorm statistics of averaged weights: recomputed on the training images, or averaged, too"
    )


def check_model(config: Several, loaded: Loaded) -> None:
    """Refuse a trunk that `--tune` or `--head` cannot use.

    Raises:
        UsageError: so it is.
    """
    inputs.check_model(config.tune, config.head, loaded)


def check(config: Several, sets: Sets, examples: Examples) -> None:
    """Refuse what `eval.transfer.inputs.check` refuses, and a zero-shot head for classes without names.

    Raises:
        UsageError: so it is.
    """
    inputs.check(config, sets, examples, _shots.val_path(config, config.val))
    if config.head == "zeroshot" and not examples.named:
        raise UsageError("--head zeroshot: the data do not name their classes", "class names, or --head normal")
