"""Models by open_clip's name, ours among them (`train/models/*.json`), and the way back from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.console import hushed
from shards.core.errors import UsageError, closest

if TYPE_CHECKING:
    from open_clip import CLIP

    from train.text import Tokenizer

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Loaded:
    """A trained model and all that is needed to use it and to say where it came from."""

    model: CLIP
    tokenize: Tokenizer
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    step: int
    samples_seen: int
    manifests: list[dict[str, Any]]
    config: dict[str, Any]


def build_model(name: str, image_size: int | None = None) -> CLIP:
    """Return an untrained open_clip model; its first weights follow torch's global generator.

    Args:
        name: any of open_clip's configurations that uses its own tokenizer, or one of `train/models`.
        image_size: pixels to a side; the configuration's where it is None.

    Raises:
        UsageError: no such model, or one that needs a tokenizer from elsewhere.
    """
    open_clip = _open_clip()
    _configuration(name)
    with hushed():
        return open_clip.create_model(name, force_image_size=image_size, pretrained=None)


def build_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of a model, with its context length."""
    from train.text import Tokenizer

    length = _configuration(name).get("text_cfg", {}).get("context_length", 77)
    return Tokenizer(_open_clip().SimpleTokenizer(context_length=length))


def image_size_of(model: CLIP) -> int:
    """Return the side of the images that a model takes."""
    size = model.visual.image_size
    return int(size[0] if isinstance(size, tuple | list) else size)


def _configuration(name: str) -> dict[str, Any]:
    open_clip = _open_clip()
    found = open_clip.get_model_config(name)
    if found is None:
        known = open_clip.list_models()
        own = ", ".join(sorted(p.stem for p in MODELS.glob("*.json")))
        raise UsageError(f"unknown model {name!r}", f"{own}, or one of open_clip's {len(known)}", closest(name, known))
    text = found.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
        raise UsageError(f"model {name!r} needs a tokenizer that is not part of open_clip", "models with CLIP's own tokenizer")
    return dict(found)


def _open_clip() -> Any:
    import open_clip

    if not {p.stem for p in MODELS.glob("*.json")} <= set(open_clip.list_models()):
        open_clip.add_model_config(MODELS)
    return open_clip


def load_checkpoint(path: str) -> Loaded:
    """Return the model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a checkpoint file, or a training's output folder.

    Raises:
        UsageError: there is none, or it is not one of ours.
    """
    from train import checkpoint

    file = checkpoint.path_in(path)
    state = checkpoint.read(file)
    config = state["config"]
    model = build_model(config["model"], config["image_size"])
    model.load_state_dict(state["model"])
    augment = config["augment"]
    return Loaded(
        model=model.eval(),
        tokenize=build_tokenizer(config["model"]),
        image_size=image_size_of(model),
        mean=tuple(augment["mean"]),
        std=tuple(augment["std"]),
        digest=fs.sha256(file),
        step=state["step"],
        samples_seen=state["samples_seen"],
        manifests=state["manifests"],
        config=config,
    )
