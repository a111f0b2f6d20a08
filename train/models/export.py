"""A checkpoint of ours as files that other tools load: open_clip's `.pt` and folder, or safetensors.

With the weights goes `open_clip_config.json`: how the model is built, and how images are normalised. A `.pt` of a model that open_clip
does not have gets a second file of its own name, `clip.json` for `clip.pt`, by which open_clip knows the model. What is written is
checked before: open_clip builds a model of that configuration, and every name and shape must be that of the checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from shards.core import fs
from shards.core.console import hushed
from shards.core.errors import UsageError
from train import checkpoint
from train.models.clip import clip_settings, timm_settings
from train.models.load import averaged_weights, clip_options
from train.models.towers import open_clip, own_names, parse_name

Format = Literal["open_clip", "hf", "safetensors"]
CONFIG_NAME = "open_clip_config.json"
HF_WEIGHTS = "open_clip_model.safetensors"
# torchvision's ResNets are timm's of the same name, layer for layer and name for name, and timm's are open_clip's.
TIMM_TWINS = ("resnet", "resnext", "wide_resnet")
SUFFIXES = {"open_clip": ".pt", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Exported:
    """The files that were written, the weights first, and the Python line that loads them."""

    files: tuple[str, ...]
    load: str


def export(path: str, format: Format, out: str, overwrite: bool = False, *, ema: bool = False) -> Exported:
    """Write the model of a checkpoint for other tools.

    Args:
        path: a checkpoint of ours, or a training's output folder.
        format: `open_clip`: FILE.pt with configurations beside it; `hf`: a folder as open_clip publishes on the Hugging Face hub,
            for `open_clip.create_model_and_transforms('local-dir:FOLDER')`; `safetensors`: the weights alone, those of a timm or
            torchvision tower under their library's own names.
        out: the file, or the folder of `hf`.
        overwrite: write over what is there.
        ema: write the averaged weights, which a training with `--ema` keeps.

    Raises:
        UsageError: no such checkpoint, one without averaged weights, an output that is there already or has another suffix, a
            configuration of another model beside it, or a model that open_clip cannot build: one without a text tower, a
            torchvision tower that is no ResNet, a ViT of timm at another image size than its own.
    """
    _check_output(format, out, overwrite)
    file = checkpoint.path_in(path)
    state = checkpoint.read(file)
    chosen = averaged_weights(file, state) if ema else state["state_dict"]
    weights = {name: tensor.contiguous() for name, tensor in chosen.items()}
    if format == "safetensors":
        return _export_safetensors(out, weights, state)
    settings = _settings_of(path, state["config"], weights)
    if format == "hf":
        return _export_hf(out, weights, settings, state)
    return _export_open_clip(out, weights, settings, state, overwrite)


def _check_output(format: str, out: str, overwrite: bool) -> None:
    suffix = SUFFIXES.get(format)
    if suffix is not None and not out.endswith(suffix):
        raise UsageError(f"output {out!r} of format {format}", f"a file that ends in {suffix}")
    files = [out] if suffix is not None else [fs.join(out, HF_WEIGHTS), fs.join(out, CONFIG_NAME)]
    there = [file for file in files if fs.exists(file)]
    if there and not overwrite:
        raise UsageError(f"{there[0]} is there already", "a new name", "--overwrite writes over it")
    if format == "hf" and fs.exists(out) and not fs.is_dir(out):
        raise UsageError(f"output {out!r} of format hf is a file", "a folder")


def _settings_of(path: str, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the `model_cfg` of a checkpoint's model, after open_clip has built that model with the same names and shapes.

    Raises:
        UsageError: open_clip cannot build it.
    """
    advice = "--format safetensors writes any model"
    name = config["model"]
    library, rest = parse_name(name)
    if library == "torchvision" and not rest.startswith(TIMM_TWINS):
        raise UsageError(
            f"{path}: model {name!r}: open_clip has no such tower of torchvision", "open_clip's and timm's models, ResNets", advice
        )
    if "logit_scale" not in weights:
        raise UsageError(f"{path}: a model without a text tower, which open_clip does not have", "CLIP and SLIP models", advice)
    settings = clip_settings(name, config["image_size"], **clip_options(config))
    if library == "torchvision":
        settings["vision_cfg"] = timm_settings(rest) | settings["vision_cfg"]
    with hushed():
        model = _built_by_open_clip(settings)
    built = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    ours = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    different = sorted(key for key in built.keys() | ours.keys() if built.get(key) != ours.get(key))
    if different:
        first = different[0]
        found = f"{path}: open_clip would build model {name!r} otherwise: {first} {built.get(first)}, here {ours.get(first)}"
        raise UsageError(found, "models at an image size that open_clip builds", advice)
    return settings


def _built_by_open_clip(settings: dict[str, Any]) -> nn.Module:
    """Return what open_clip makes of a `model_cfg`, on the meta device, where weights take no memory or time."""
    values = {**settings}
    custom_text = values.pop("custom_text", False)
    library = open_clip()
    with torch.device("meta"):
        return (library.CustomTextCLIP if custom_text else library.CLIP)(**values)


def _preprocess_of(config: dict[str, Any]) -> dict[str, Any]:
    augment = config["augment"]
    return {"mean": list(augment["mean"]), "std": list(augment["std"]), "interpolation": "bicubic", "resize_mode": "shortest"}


def _export_hf(out: str, weights: dict[str, torch.Tensor], settings: dict[str, Any], state: dict[str, Any]) -> Exported:
    fs.make_dirs(out)
    file, described = fs.join(out, HF_WEIGHTS), fs.join(out, CONFIG_NAME)
    _write_safetensors(file, weights, state)
    # The configuration comes last: a folder that has one is whole.
    fs.write_text(described, _json({"model_cfg": settings, "preprocess_cfg": _preprocess_of(state["config"])}))
    return Exported((file, described), f"open_clip.create_model_and_transforms('local-dir:{out}')")


def _export_open_clip(
    out: str, weights: dict[str, torch.Tensor], settings: dict[str, Any], state: dict[str, Any], overwrite: bool
) -> Exported:
    folder, _, file_name = out.rpartition("/")
    folder = folder or "."
    preprocess = _preprocess_of(state["config"])
    texts = {fs.join(folder, CONFIG_NAME): _json({"model_cfg": settings, "preprocess_cfg": preprocess})}
    name, register = _registered_name(state["config"]["model"], settings), ""
    if name is None:
        name = _new_name(file_name.removesuffix(SUFFIXES["open_clip"]))
        registrable = fs.join(folder, f"{name}.json")
        texts[registrable] = _json(settings)
        register = f"open_clip.add_model_config('{registrable}'); "
    if not overwrite:
        _check_siblings(texts)
    fs.make_dirs(folder)
    with fs.atomic_write(out) as file:
        torch.save({"state_dict": weights, "step": state["step"]}, file)
    for path, text in texts.items():
        fs.write_text(path, text)
    normalise = f"image_mean={tuple(preprocess['mean'])}, image_std={tuple(preprocess['std'])}"
    return Exported((out, *texts), f"{register}open_clip.create_model_and_transforms('{name}', pretrained='{out}', {normalise})")


def _check_siblings(texts: dict[str, str]) -> None:
    """Refuse to change a file beside the weights: another export may be loaded by it, and would compute other features."""
    for path, text in texts.items():
        if fs.exists(path) and (fs.is_dir(path) or fs.read_bytes(path) != text.encode()):
            raise UsageError(
                f"{path} is there already, with other content", "another folder", "--overwrite writes over it; what is loaded by it changes"
            )


def _new_name(stem: str) -> str:
    """Return the name of a file's model in open_clip: the file's own, made longer where open_clip has a model of that name."""
    taken = {*open_clip().list_models(), *own_names()}
    return f"{stem}-provender" if stem in taken else stem


def _registered_name(name: str, settings: dict[str, Any]) -> str | None:
    """Return the name under which open_clip itself has these settings; None where it has none, and a configuration must be added."""
    library, _ = parse_name(name)
    if library != "open_clip" or name in own_names():
        return None
    return name if open_clip().get_model_config(name) == settings else None


def _export_safetensors(out: str, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> Exported:
    name = str(state["config"]["model"])
    library, rest = parse_name(name)
    load = f"safetensors.torch.load_file('{out}')"
    trunk = "visual.trunk."
    if library != "open_clip" and "logit_scale" not in weights:
        weights = {key.removeprefix(trunk): tensor for key, tensor in weights.items() if key.startswith(trunk)}
        made = f"timm.create_model('{rest}', num_classes=0)" if library == "timm" else f"torchvision.models.{rest}()"
        load = f"{made}.load_state_dict({load}, strict={library == 'timm'})"
    if folder := out.rpartition("/")[0]:
        fs.make_dirs(folder)
    _write_safetensors(out, weights, state)
    return Exported((out,), load)


def _write_safetensors(file: str, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    from safetensors.torch import save

    # Tensors that share memory are refused by safetensors; a clone has its own.
    own = {name: tensor.clone() for name, tensor in weights.items()}
    about = {"format": "pt", "model": str(state["config"]["model"]), "step": str(state["step"]), "made_by": "provender"}
    fs.write_bytes(file, save(own, about))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
