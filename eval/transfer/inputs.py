"""What every protocol that fine-tunes starts from: the trunk, the build that trainings read, and what is refused before that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.protocols import _shots
from eval.transfer.tuning import Trunk
from shards.core import fs
from shards.core.errors import UsageError
from shards.manifest import NAME, read_manifest

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.datasets.base import Examples
    from eval.protocols._shots import FewShot
    from eval.protocols.base import Sets
    from shards.manifest import Manifest
    from train.models.load import Loaded


def trunk_of(config: EvalConfig) -> Trunk:
    """Return what is fine-tuned.

    Raises:
        UsageError: averaged weights, which no training starts from.
    """
    if config.ema:
        raise UsageError("--ema: trainings start from the plain weights", "without --ema", "train export --ema, then --model and that file")
    return Trunk(config.checkpoint, config.model, config.image_size, config.mean, config.std)


def build_of(config: FewShot) -> Manifest:
    """Return the manifest of the training images.

    Raises:
        UsageError: there are none, or they are no build of ours.
    """
    path = _shots.train_path(config)
    if not path:
        raise UsageError(f"{config.path}: no training images beside it", "a packed set, or --train BUILD", "evaluate pack")
    if not fs.exists(fs.join(path.removesuffix(f"/{NAME}"), NAME)):
        raise UsageError(f"{path}: no build of ours, which trainings read", "a packed set", "evaluate pack --kind folder --input …")
    return read_manifest(path)


def prepare(config: FewShot) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if config.small_classes == "drop":
        raise UsageError("--small-classes drop: a fine-tuning keeps its build's classes", "refuse, take-all")
    return _shots.prepare(config)


def check_model(tune: str, head: str, loaded: Loaded) -> None:
    """Refuse adapters in a trunk that has no place for them, and a zero-shot head from one that reads no text.

    Args:
        tune, head: the flags of these names.

    Raises:
        UsageError: so it is.
    """
    if tune != "all":
        from train.models.adapters import blocks_of

        blocks_of(loaded.model)
    if head == "zeroshot":
        check_text("--head zeroshot", loaded, "--head normal")


def check_text(flag: str, loaded: Loaded, instead: str) -> None:
    """Refuse a trunk that reads no text where a flag needs one.

    Args:
        flag: what asks for class names as first weights.
        instead: the flag that does without.

    Raises:
        UsageError: the trunk reads no text.
    """
    if not loaded.reads_text:
        task = loaded.config.get("task", "images alone")
        raise UsageError(f"{flag}: the trunk was trained by {task} and reads no text", "a trunk of clip or slip", instead)


def check(config: FewShot, sets: Sets, examples: Examples, val: str) -> None:
    """Refuse a training set that is no build of ours, other classes, or a k beyond the smallest class.

    Args:
        val: path of the validation set; empty without one.

    Raises:
        UsageError: so it is.
    """
    _shots.check(config, sets, examples)
    build = build_of(config)
    if build.classes and tuple(build.classes) != examples.classes:
        found = f"{build.folder}: its classes stand in another order than those of {examples.name}"
        raise UsageError(found, "one order of classes", "evaluate pack: both splits in one go")
    if val:
        _shots.same_classes(val, sets.open(val, config.classnames), examples)
