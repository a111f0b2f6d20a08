"""Models of other tools: a CLIP where the file has a text tower, else an image tower that reads no text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shards.core.errors import UsageError
from train.models.clip import build_clip
from train.models.foreign import load_weights, read_weights
from train.models.load import Loaded, build_tokenizer, image_size_of
from train.models.towers import build_tower

if TYPE_CHECKING:
    from collections.abc import Iterable

# First parts of the names that a text tower's tensors have in the files of CLIP, open_clip and SLIP.
_TEXT = ("token_embedding", "text_projection", "text", "ln_final")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def load_foreign(
    path: str, name: str, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), image_size: int | None = None, **options: Any
) -> Loaded:
    """Return a model with weights made elsewhere, in evaluation mode on the CPU; nothing is known of its data.

    Args:
        path: a file of weights (`train.models.foreign.read_weights`).
        name: open_clip's name of the model, `timm/NAME` or `torchvision/NAME`. The features of an image tower of the last two are
            what its classifier would see; a classifier in the file is left out.
        mean: of the normalised images, by channel; where empty, `usual_normalisation`'s.
        std: their deviation; the same.
        image_size: pixels to a side; the model's own where None.
        options: options of `build_clip`, for weights with a text tower.

    Raises:
        UsageError: the file does not hold the weights of this model.
    """
    if len(mean) not in (0, 3) or len(std) not in (0, 3) or any(value <= 0 for value in std):
        raise UsageError(f"--mean {list(mean)} --std {list(std)}", "three numbers each, std above 0")
    read = read_weights(path)
    has_text = reads_text(read[0])
    usual_mean, usual_std = usual_normalisation(name, has_text)
    facts = read[1]
    model = build_clip(name, image_size, **options) if has_text else build_tower(name, image_size)
    load_weights(model, path, require="all" if has_text else "image", read=read)
    return Loaded(
        model=model.eval(),
        tokenize=build_tokenizer(name, options.get("text")) if has_text else None,
        image_size=image_size_of(model),
        mean=mean or usual_mean,
        std=std or usual_std,
        digest=facts.digest,
        step=0,
        samples_seen=0,
        manifests=[],
        config={
            "model": name,
            "image_size": image_size,
            "provenance": "unknown",
            "made_by": facts.kind,
            **options,
            **({} if has_text else {"task": "another tool"}),
        },
    )


def reads_text(names: Iterable[str]) -> bool:
    """Return whether tensors of these names include a text tower."""
    return any(name.partition(".")[0] in _TEXT for name in names)


def usual_normalisation(name: str, has_text: bool) -> Normalisation:
    """Return what images of a model are normalised with where nothing else is stated, (mean, std).

    A CLIP has OpenAI's; an image tower of timm what timm states of it; torchvision's have ImageNet's.
    """
    from train.data.augment.params import Augment

    library, _, rest = name.partition("/")
    if has_text or library not in ("timm", "torchvision"):
        return Augment().mean, Augment().std
    if library == "torchvision":
        return _IMAGENET
    import timm

    stated: Any = timm.get_pretrained_cfg(rest)
    return _IMAGENET if stated is None else (tuple(stated.mean), tuple(stated.std))
