"""open_clip's names of published weights: the file of a tag where this machine has it. Nothing is downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.core.console import say
from shards.core.errors import UsageError, closest
from train.models.files import IN_FOLDERS
from train.models.towers import open_clip

_QUICK = "-quickgelu"
_SHOWN = 10


@dataclass(frozen=True)
class Tag:
    """A file of published weights, and the model that they belong to.

    Attributes:
        model: open_clip's name: that of the model with QuickGELU where the weights were trained with it.
        mean, std: what its images are normalised with, per channel.
    """

    file: str
    model: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def known(model: str) -> bool:
    """Return whether open_clip knows weights of a model by tags."""
    return bool(open_clip().list_pretrained_tags_by_model(model))


def find(model: str, tag: str) -> Tag:
    """Return the file of a tag in the caches that open_clip and the hub's library use.

    Raises:
        UsageError: open_clip does not know the tag of this model, or its file is not on this machine.
    """
    from open_clip.pretrained import get_pretrained_cfg

    facts: dict[str, Any] = get_pretrained_cfg(model, tag)
    if not facts:
        tags = open_clip().list_pretrained_tags_by_model(model)
        if not tags:
            models = sorted({name for name, _ in open_clip().list_pretrained()})
            found = f"{tag!r}: no file, and open_clip knows no published weights of a model {model!r}"
            raise UsageError(found, "a file of weights, or a model of open_clip that has published ones", closest(model, models))
        more = f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else ""
        found = f"{tag!r}: no file, and no tag of {model} in open_clip"
        raise UsageError(found, f"a file of weights, or {', '.join(tags[:_SHOWN])}{more}", closest(tag, tags))
    file = _in_hub_cache(facts) or _in_open_clips_cache(facts)
    if not file:
        repository = _repository(facts)
        advice = f"hf download {repository}" if repository else f"download {facts.get('url')} and name the file"
        where = "weights in the hub's cache (HF_HUB_CACHE) or in ~/.cache/clip"
        raise UsageError(f"{tag}: its weights are not on this machine", where, advice)
    return Tag(file, _with_its_activation(model, facts), tuple(facts["mean"]), tuple(facts["std"]))


def _with_its_activation(model: str, facts: dict[str, Any]) -> str:
    """Return the name of the model with the activation of the weights: with the other one all numbers would be wrong."""
    quick = f"{model}{_QUICK}"
    if facts.get("quick_gelu") and not model.endswith(_QUICK) and quick in open_clip().list_models():
        say(f"{model}: these weights were trained with QuickGELU; the model is {quick}")
        return quick
    return model


def _repository(facts: dict[str, Any]) -> str:
    """Return the hub's name of the weights' repository; empty without one."""
    return "/".join(str(facts.get("hf_hub") or "").strip("/").split("/")[:2])


def _in_hub_cache(facts: dict[str, Any]) -> str:
    from huggingface_hub import try_to_load_from_cache

    repository = _repository(facts)
    stated = str(facts.get("hf_hub") or "").strip("/").split("/")[2:]
    for name in stated or IN_FOLDERS:
        path = try_to_load_from_cache(repository, name) if repository else None
        if isinstance(path, str):
            return path
    return ""


def _in_open_clips_cache(facts: dict[str, Any]) -> str:
    name = os.path.basename(str(facts.get("url") or ""))
    path = Path("~/.cache/clip").expanduser() / name
    return str(path) if name and path.is_file() else ""
