"""Models by name, and the way back from a checkpoint, ours or another tool's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import UsageError
from train.models.clip import build_clip, context_length
from train.models.towers import build_tower, side_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from open_clip import CLIP

    from train.data.text import Tokenizer
    from train.run import Run

TEXT_TASKS = ("clip", "slip")  # tasks whose model is a CLIP; those of others are image towers


@dataclass(frozen=True)
class Loaded:
    """A trained model and all that is needed to use it and to say where it came from.

    Attributes:
        model: a CLIP, or an image tower.
        tokenize: texts to ids; None where the model reads no text.
        mean, std: what images are normalised with, per channel.
        digest: sha256 of the checkpoint.
        manifests: what the checkpoint remembers of its data; empty where nothing is known.
        classifier: the linear layer of a supervised training or a fine-tuning; None without one.
        classes: what it tells apart, in its order, where that is known.
        unit_features: whether the classifier sees features of unit length.
        parent: what the training started from; None for fresh weights, or where nothing is known.
    """

    model: Any
    tokenize: Tokenizer | None
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    step: int
    samples_seen: int
    manifests: list[dict[str, Any]]
    config: dict[str, Any]
    classifier: Any = None
    classes: tuple[str, ...] = ()
    unit_features: bool = False
    parent: dict[str, Any] | None = None

    @property
    def reads_text(self) -> bool:
        """Whether the model has a text tower."""
        return self.tokenize is not None

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return unit-length features, (n, d) float32, of normalised images, (n, 3, S, S)."""
        import torch.nn.functional as F

        features = self.model.encode_image(images) if self.reads_text else self.model(images)
        return F.normalize(features.float(), dim=-1)

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        """Return the classifier's logits, (n, classes) float32, of normalised images, (n, 3, S, S).

        Raises:
            UsageError: the model has no classifier.
        """
        from train.tasks.finetune import logits

        if self.classifier is None:
            raise UsageError(
                f"the model was trained by {self.config.get('task', 'another tool')} and has no classifier", "finetune, supervised"
            )
        return logits(self.model, self.classifier, images, self.unit_features).float()

    def embed_texts(self, texts: Sequence[str], device: str = "cpu") -> torch.Tensor:
        """Return unit-length features, (n, d) float32, of texts.

        Raises:
            UsageError: the model has no text tower.
        """
        if self.tokenize is None:
            task = self.config.get("task", "images alone")
            raise UsageError(f"the model was trained by {task} and reads no text", "a checkpoint of clip or slip", "evaluate probe")
        return self.model.encode_text(self.tokenize(texts).to(device), normalize=True).float()


def build_model(name: str, image_size: int | None = None) -> CLIP:
    """Return an untrained CLIP; its first weights follow torch's global generator.

    Args:
        name: any of open_clip's configurations that uses its own tokenizer, one of ours, `timm/NAME` or `torchvision/NAME`.
        image_size: pixels to a side; the configuration's where it is None.

    Raises:
        UsageError: no such model, or one that needs a tokenizer from elsewhere.
    """
    return build_clip(name, image_size)


def build_tokenizer(name: str, text: str | None = None) -> Tokenizer:
    """Return the tokenizer of a model, with its context length.

    Args:
        text: the name of the model whose text tower was taken, as in `build_clip`.
    """
    from train.data.text import Tokenizer

    return Tokenizer(context_length(name, text))


def image_size_of(model: Any) -> int:
    """Return the side of the images that a model takes."""
    return side_of(model.visual)


def load_checkpoint(path: str, *, ema: bool = False) -> Loaded:
    """Return the model of a checkpoint of ours, in evaluation mode on the CPU.

    Args:
        path: a checkpoint file, or a training's output folder.
        ema: take the averaged weights, which a training with `--ema` keeps.

    Raises:
        UsageError: there is none, or it is not one of ours, or it has no averaged weights.
    """
    from train import checkpoint

    file = checkpoint.path_in(path)
    state = checkpoint.read(file)
    config = state["config"]
    reads_text = state["task"] in TEXT_TASKS
    model = build_for(config, reads_text)
    model.load_state_dict(averaged_weights(file, state) if ema else state["state_dict"])
    return Loaded(
        model=model.eval(),
        tokenize=build_tokenizer(config["model"], config["text"] or None) if reads_text else None,
        image_size=image_size_of(model),
        mean=tuple(config["augment"]["mean"]),
        std=tuple(config["augment"]["std"]),
        digest=fs.sha256(file),
        step=state["step"],
        samples_seen=state["samples_seen"],
        manifests=state["manifests"],
        config=config,
        classifier=_classifier(state.get("heads", {})),
        classes=tuple(state.get("classes", ())),
        unit_features=bool(state.get("unit_features", False)),
        parent=state.get("parent"),
    )


def _classifier(heads: dict[str, torch.Tensor]) -> Any:
    """Return the linear classifier among a checkpoint's heads; None where there is none."""
    from torch import nn

    weight = heads.get("classifier.weight")
    if weight is None or weight.ndim != 2:
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": heads["classifier.bias"]})
    return layer.eval()


def build_for(config: dict[str, Any], reads_text: bool) -> Any:
    """Return the untrained model that a checkpoint's configuration describes: a CLIP, or an image tower."""
    if reads_text:
        return build_clip(config["model"], config["image_size"], **clip_options(config))
    tower = build_tower(config["model"], config["image_size"])
    kind = config.get("tune")
    if kind == "houlsby" or kind == "lora":
        from train.models.adapters import adapt

        adapt(tower, kind, config["adapter_width"])
    return tower


def averaged_weights(file: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return the averaged weights of a checkpoint's content.

    Raises:
        UsageError: there are none.
    """
    if state["ema"] is None:
        raise UsageError(f"{file}: has no averaged weights", "a training with --ema")
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in state["ema"].items() if name.startswith(prefix)}


def loaded_now(made: Run) -> Loaded:
    """Return the model of a training that is going on, as evaluation takes it."""
    config, task = made.config, made.task
    reads_text = config.TASK in TEXT_TASKS
    essence = config.essence()
    return Loaded(
        model=task.model,
        tokenize=build_tokenizer(config.model, essence["text"] or None) if reads_text else None,
        image_size=task.image_size,
        mean=config.augment.mean,
        std=config.augment.std,
        digest="",
        step=0,
        samples_seen=0,
        manifests=made.manifests,
        config=essence,
    )


def clip_options(config: dict[str, Any]) -> dict[str, Any]:
    """Return those of `build_clip`'s options that a checkpoint's configuration holds and that decide which weights a model has."""
    names = ("text", "embed_dim", "siglip", "quick_gelu")
    options = {name: config[name] for name in names if config.get(name)}
    return options | ({"siglip": True} if config.get("loss") == "siglip" else {})
