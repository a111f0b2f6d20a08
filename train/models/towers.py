"""One image tower by name, shared by all objectives, so that they are compared on one trunk.

A name is open_clip's (`RN50`, `ViT-B-32`, ours such as `tiny-rn-32`), `timm/NAME` or `torchvision/NAME`. With the same seed
the tower starts from the same weights as the image tower of `train.models.clip.build_clip`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shards.core.config import load
from shards.core.console import hushed
from shards.core.errors import UsageError, closest
from train.models.options import TowerOptions, apply_options

CONFIGS = Path(__file__).parent / "configs"
LIBRARIES = ("timm", "torchvision")
LOOKED_UP_IN = "open_clip.list_models(), timm.list_models() as timm/NAME, torchvision.models.list_models() as torchvision/NAME"
# torchvision's two networks with auxiliary classifiers return a tuple of outputs in training mode.
TUPLE_OUTPUTS = ("googlenet", "inception_v3")
TORCHVISION_SIZE = 224
# The smallest text tower of open_clip: where only the image tower is wanted, nothing is spent on the text.
SMALLEST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}


class Tower(nn.Module):
    """An image tower: images (n, 3, S, S), normalised floats, become features (n, width).

    `visual` is the library's module; so the names in the state dict are `visual.…` for open_clip's towers and
    `visual.trunk.…` for timm's and torchvision's, as in open_clip's CLIP.
    """

    def __init__(self, name: str, visual: nn.Module, width: int, image_size: int) -> None:
        super().__init__()
        self.name = name
        self.visual = visual
        self.width = width
        self.image_size = image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (n, width) of images (n, 3, S, S)."""
        return self.visual(images)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them.

        Raises:
            UsageError: the library has no checkpointing for this tower.
        """
        checkpoint_blocks(self.visual, self.name, enable)


def checkpoint_blocks(visual: nn.Module, name: str, enable: bool = True) -> None:
    """Let an image tower recompute activations in the backward pass.

    Args:
        visual: open_clip's `visual`, or a module with a `trunk`.
        name: of the tower, for errors.

    Raises:
        UsageError: the library has no checkpointing for it; open_clip's ResNets and TimmModel would pass over it in silence.
    """
    owner: Any = getattr(visual, "trunk", visual)
    refusal = UsageError(f"gradient checkpointing: {name!r} has none", "open_clip's ViTs, most of timm's models")
    if type(owner).__name__ == "ModifiedResNet" or not hasattr(owner, "set_grad_checkpointing"):
        raise refusal
    try:
        owner.set_grad_checkpointing(enable)
    except AssertionError as error:
        raise refusal from error


class TorchvisionModel(nn.Module):
    """A torchvision classifier without its last layer as `trunk`, and a projection as `head`, as open_clip's TimmModel has it."""

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        self.trunk = _torchvision_classifier(name, image_size)
        last = _last_linear(self.trunk)
        if last is None:
            raise UsageError(f"model 'torchvision/{name}' does not end in a linear layer", "torchvision/resnet50, torchvision/swin_t, …")
        self.num_features = self.trunk.get_submodule(last).in_features
        self.trunk.set_submodule(last, nn.Identity())
        self.head = nn.Sequential()
        self.image_size = (image_size, image_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (n, d) of images (n, 3, S, S)."""
        return self.head(self.trunk(images))


def build_tower(name: str, image_size: int | None = None, **options: Any) -> Tower:
    """Return an untrained image tower; its first weights follow torch's global generator.

    Args:
        name: open_clip's name of a model (features are those of `encode_image`), `timm/NAME` or `torchvision/NAME`
            (features are what the classifier would see).
        image_size: pixels to a side; the model's own where it is None.
        options: fields of `train.models.options.TowerOptions`.

    Raises:
        UsageError: no such model, no such image size of it, or an option that it does not support.
    """
    wanted = load(TowerOptions, options)
    visual: Any
    library, rest = parse_name(name)
    if library == "open_clip":
        visual, width = _open_clip_visual(name, image_size)
    elif library == "timm":
        visual = timm_visual(rest, image_size, projection=1)
        visual.head = nn.Sequential()
        width = int(visual.trunk.head_hidden_size)
    else:
        visual = torchvision_visual(rest, image_size)
        width = int(visual.num_features)
    apply_options(visual, wanted, name)
    return Tower(name, visual, width, side_of(visual))


def open_clip() -> Any:
    """Return the module `open_clip`, with our own configurations registered."""
    import open_clip as library

    if not set(own_names()) <= set(library.list_models()):
        library.add_model_config(CONFIGS)
    return library


def own_names() -> list[str]:
    """Return the names of our own configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def parse_name(name: str) -> tuple[str, str]:
    """Return the library of a model, `open_clip`, `timm` or `torchvision`, and its name there.

    Raises:
        UsageError: the library has no such model; the closest name is suggested.
    """
    library, slash, rest = name.partition("/")
    if not slash or library not in LIBRARIES:
        library, rest = "open_clip", name
    known = _names_in(library)
    if rest not in known and not _is_timm_variant(library, rest):
        prefix = "" if library == "open_clip" else f"{library}/"
        everywhere = [prefix + other for other in known]
        if library == "open_clip":
            everywhere += [f"{other}/{model}" for other in LIBRARIES for model in _names_in(other)]
        allowed = f"{', '.join(own_names())}, or a name of {LOOKED_UP_IN}"
        raise UsageError(f"unknown model {name!r}", allowed, closest(name, everywhere))
    if library == "torchvision" and rest in TUPLE_OUTPUTS:
        raise UsageError(f"model {name!r} has auxiliary classifiers", "models with one output", "torchvision/resnet50")
    return library, rest


def _names_in(library: str) -> list[str]:
    if library == "timm":
        import timm

        return timm.list_models()
    if library == "torchvision":
        import torchvision

        return torchvision.models.list_models(module=torchvision.models)
    return open_clip().list_models()


def _is_timm_variant(library: str, name: str) -> bool:
    """Return whether a name is one of timm's with a tag of weights behind it, such as `vit_tiny_patch16_224.augreg_in21k`."""
    if library != "timm" or "." not in name:
        return False
    import timm

    return timm.is_model(name)


def side_of(visual: nn.Module) -> int:
    """Return the side, in pixels, of the square images that open_clip's `visual` takes."""
    size: Any = visual.image_size
    return int(size[0] if isinstance(size, tuple | list) else size)


def _open_clip_visual(name: str, image_size: int | None) -> tuple[nn.Module, int]:
    """Return the image tower of an open_clip model and the width of its features."""
    library = open_clip()
    configuration = library.get_model_config(name)
    if "multimodal_cfg" in configuration:
        raise UsageError(f"model {name!r} is a CoCa, whose image tower returns tokens", "models of two towers", "ViT-B-32")
    check_image_size(name, configuration, image_size)
    weights = {"pretrained": None, "pretrained_image": False, "pretrained_text": False}
    with hushed(), size_errors(name, image_size):
        # The image tower draws its weights before the text tower does, so the small text leaves them unchanged.
        model = library.create_model(name, force_image_size=image_size, text_cfg=dict(SMALLEST_TEXT), **weights)
        visual: nn.Module = model.visual
        if image_size is not None and hasattr(visual, "trunk"):
            try_size(visual, image_size)
    return visual, int(configuration["embed_dim"])


def check_image_size(name: str, configuration: dict[str, Any], image_size: int | None) -> None:
    """Refuse a size that an open_clip model cannot take.

    Raises:
        UsageError: it is not a multiple of the patch; or a ResNet's last map would not have the grid of its attention pooling.
    """
    vision = configuration["vision_cfg"]
    if image_size is None or vision.get("timm_model_name"):
        return
    if isinstance(vision.get("layers"), list):
        side = -(-image_size // 2)  # the first convolution rounds up, the four poolings behind it down
        if side // 16 != image_size // 32 or image_size < 32:
            raise UsageError(f"image size {image_size} for model {name!r}", "even numbers from 32 on")
        return
    step = int(vision.get("patch_size", 16))
    if image_size < step or image_size % step:
        raise UsageError(f"image size {image_size} for model {name!r}", f"multiples of {step}")


def timm_visual(name: str, image_size: int | None, projection: int) -> nn.Module:
    """Return open_clip's TimmModel of a timm model: the trunk with its own pooling, then a linear `head.proj` without bias.

    Args:
        name: timm's name, without `timm/`.
        image_size: pixels to a side; the model's own where it is None.
        projection: the outputs of the head.

    Raises:
        UsageError: the model cannot take images of this size.
    """
    import timm
    from open_clip.timm_model import TimmModel

    native = timm.get_pretrained_cfg(name)
    own_size = int(native.input_size[-1]) if native is not None else 224
    size = own_size if image_size is None else image_size
    visual = TimmModel(name, embed_dim=projection, image_size=own_size, pool="", proj="linear")
    if size != own_size:
        with size_errors(f"timm/{name}", size):
            visual.set_input_size(size)
            try_size(visual.trunk, size)
    return visual


@contextlib.contextmanager
def size_errors(name: str, image_size: int | None) -> Iterator[None]:
    """Turn the libraries' errors while a model of another image size is made into a UsageError; without a size they go on."""
    try:
        with warnings.catch_warnings():
            # timm 1.0.31 resizes Swin's tables of relative positions through an indexing that torch warns of.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.layers\.interpolate")
            yield
    except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        if image_size is None:
            raise
        raise UsageError(f"image size {image_size} for model {name!r}", "the model's own size, or another one that it can take") from error


def try_size(module: nn.Module, size: int) -> None:
    """Run one image through a module, in evaluation mode: many models of the libraries only then say that a size does not fit."""
    training = module.training
    module.eval()
    with torch.no_grad():
        module(torch.zeros(1, 3, size, size))
    module.train(training)


def torchvision_visual(name: str, image_size: int | None) -> TorchvisionModel:
    """Return a torchvision model without its classifier, by torchvision's name.

    Raises:
        UsageError: the model cannot take images of this size, or does not end in a linear layer.
    """
    size = TORCHVISION_SIZE if image_size is None else image_size
    with size_errors(f"torchvision/{name}", image_size):
        visual = TorchvisionModel(name, size)
        if size != TORCHVISION_SIZE:
            try_size(visual, size)
    return visual


def _torchvision_classifier(name: str, image_size: int) -> Any:
    from torchvision.models import get_model

    if name.startswith("vit_"):
        return get_model(name, weights=None, image_size=image_size)
    if name.startswith("maxvit"):
        return get_model(name, weights=None, input_size=(image_size, image_size))
    return get_model(name, weights=None)


def _last_linear(module: nn.Module) -> str | None:
    """Return the name of the last linear layer, which is the classifier in torchvision's models; None where another module is last."""
    last = None
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            last = name
        elif isinstance(part, nn.Conv2d):
            last = None
    return last
