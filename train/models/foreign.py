"""Weights made elsewhere, read and put where they fit: open_clip's, timm's, torchvision's and SLIP's files, and our own.

Names are matched, never guessed by shape: a file's names are tried as they are, and with the prefixes that tools put before an
image tower. Nothing but tensors is loaded from a file (`train.models.files`). Who trained on what is unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from shards.core import fs
from shards.core.errors import UsageError
from train.models.files import find_file, read_file
from train.models.options import Positions, positions_of
from train.models.towers import open_clip

Weights = dict[str, torch.Tensor]
# Where tools keep the weights in a file that holds more, the first that is there.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net")
# What wrappers put before or into names: DataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
# A file's prefix and the prefix it may have here. The first that lets most tensors fit is taken.
RENAMINGS = (
    ("", ""), ("", "visual."), ("", "visual.trunk."), ("visual.", ""), ("visual.trunk.", ""), ("visual.", "visual.trunk."), ("text.", ""),
    ("base_encoder.", "visual.trunk."), ("encoder_q.", "visual.trunk."), ("backbone.", "visual.trunk."), ("model.", ""), ("clip.", ""),
)  # fmt: skip
# A classifier or projection that a file has and a tower has not, by the first part of its name inside the tower.
HEADS = ("fc", "head", "heads", "classifier", "head_drop", "head_dist")
# Of an image tower's tensors at least so many must be in the file, none of another shape, and at most 1 − FIT as many others may
# stand beside them. A tower of another depth or kind falls short by more; a tool that adds or drops a norm does not.
FIT = 0.9
SHOWN = 3


@dataclass(frozen=True)
class Facts:
    """What is known of a file of weights.

    `kind` is `provender`, `open_clip`, `slip`, `timm or torchvision`, or `unknown`, told by the names in it; `digest` is the file's sha256.
    `lineage` is what a checkpoint of ours knows of its data.
    """

    path: str
    format: str
    kind: str
    digest: str
    tensors: int
    provenance: str = "unknown"
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What `load_weights` did: names of this module's tensors, except `unexpected`, which are the file's as they would be called here.

    `mismatched` holds (name, shape in the file, shape here); such tensors were not loaded. `resized` names positional embeddings
    that were interpolated to another image size or context length.
    """

    facts: Facts
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    resized: tuple[str, ...]

    def summary(self) -> str:
        """Return the counts in one line."""
        counts = f"{len(self.loaded)} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        return f"{self.facts.path}: {counts}, {len(self.mismatched)} of another shape, {len(self.resized)} resized"


def read_weights(path: str) -> tuple[Weights, Facts]:
    """Return the tensors of a file of weights under its own names, without wrappers' prefixes, and what is known of it.

    Args:
        path: a file of torch.save or safetensors, an output folder of `train`, or a folder as open_clip publishes models.

    Raises:
        UsageError: nothing is there, or it is not a file of weights.
        TornFileError: it is cut off or damaged.
    """
    from train import checkpoint

    file = find_file(path)
    content, format = read_file(file)
    if not isinstance(content, Mapping):
        raise UsageError(f"{file}: holds {_an(type(content).__name__)}, not named tensors", "a dictionary of tensors")
    if content.get("format") == checkpoint.FORMAT:
        state = checkpoint.checked(file, content)
        weights = _unwrapped(_tensors(file, state["state_dict"]))
        return weights, Facts(file, format, "provender", fs.sha256(file), len(weights), "recorded", checkpoint.lineage(state))
    weights = _unwrapped(_tensors(file, content))
    return weights, Facts(file, format, _kind(weights), fs.sha256(file), len(weights))


def load_weights(
    module: nn.Module, path: str, require: Literal["image", "all"] = "image", read: tuple[Weights, Facts] | None = None
) -> Report:
    """Put the weights of a file into a Tower or a CLIP, in place, wherever names and shapes fit.

    A CLIP's file gives a Tower its `visual.*`; a file of a bare image tower goes under `visual.` or `visual.trunk.`. Positional
    embeddings and Swin's tables for another image size are interpolated by timm's functions, for another context length by open_clip's.

    Args:
        require: what must be in the file: the image tower, but for a head (0.9 of its tensors, none of another shape, at most 0.1
            unknown ones beside them), or all of the module's tensors.
        read: what `read_weights` gave for this path, so that the file is not read twice.

    Raises:
        UsageError: too little fits; nothing was changed then.
        TornFileError: the file is cut off or damaged.
    """
    weights, facts = read_weights(path) if read is None else read
    wanted = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, torch.Tensor)}
    weights = _renamed(_from_slip(weights, wanted), wanted)
    _fit_scalars(weights, wanted)
    resized = _resize_positions(weights, module)
    report = _compare(facts, weights, wanted, resized)
    _check(report, wanted, require)
    module.load_state_dict({name: weights[name] for name in report.loaded}, strict=False)
    return report


def _tensors(file: str, content: Mapping[str, Any]) -> Weights:
    """Return the named tensors of a file's content, or of the container in it."""
    inner: Mapping[str, Any] = content
    for key in CONTAINERS:
        if isinstance(content.get(key), Mapping):
            inner = content[key]
            break
    weights = {str(name): value for name, value in inner.items() if isinstance(value, torch.Tensor)}
    if not weights:
        names = ", ".join(repr(name) for name in list(content)[:SHOWN])
        found = f"{file}: holds no named tensors, only {names}" if names else f"{file}: an empty dictionary"
        raise UsageError(found, f"a dictionary of tensors, itself or under {', '.join(CONTAINERS)}")
    return weights


def _unwrapped(weights: Weights) -> Weights:
    for _ in range(4):  # a compiled, parallel module has two wrappers, in either order
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in weights):
                weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return {name.replace("._orig_mod.", "."): tensor for name, tensor in weights.items()}


def _kind(weights: Weights) -> str:
    """Return which tool's names these are."""
    if "image_projection" in weights or any(name.startswith("image_mlp.") for name in weights):
        return "slip"
    if any(name.startswith("visual.") for name in weights):
        return "open_clip"
    signs = ("conv1.weight", "patch_embed.proj.weight", "conv_proj.weight", "features.0.0.weight", "stem.conv.weight", "conv_stem.weight")
    return "timm or torchvision" if any(name in weights for name in signs) else "unknown"


def _from_slip(weights: Weights, wanted: Weights) -> Weights:
    """Return SLIP's weights with its `image_projection` (width, d), used as x·P, as the weight (d, width) of open_clip's head."""
    place = "visual.head.proj.weight"
    if "image_projection" not in weights or place not in wanted:
        return weights
    others = {name: tensor for name, tensor in weights.items() if name != "image_projection"}
    # Under SLIP's `visual.` here, so that the renaming of the tower leaves it in its place.
    return {**others, place: weights["image_projection"].T.contiguous()}


def _renamed(weights: Weights, wanted: Weights) -> Weights:
    """Return the weights under the renaming that lets most of them fit by name and shape."""
    best, most = weights, -1
    for prefix, replacement in RENAMINGS:
        candidate = {_rename(name, prefix, replacement, wanted): tensor for name, tensor in weights.items()}
        fitting = sum(1 for name, tensor in candidate.items() if name in wanted and wanted[name].shape == tensor.shape)
        if fitting > most:
            best, most = candidate, fitting
    return best


def _rename(name: str, prefix: str, replacement: str, wanted: Weights) -> str:
    # Names that fit already stay, such as those of a text tower; but a bare image tower may have names like the text tower's.
    if not name.startswith(prefix) or (prefix and name in wanted):
        return name
    return replacement + name.removeprefix(prefix)


def _fit_scalars(weights: Weights, wanted: Weights) -> None:
    """Give a single number the shape it has here: some tools keep `logit_scale` as (), others as (1,)."""
    for name in ("logit_scale", "logit_bias"):
        if name in weights and name in wanted and weights[name].numel() == wanted[name].numel():
            weights[name] = weights[name].reshape(wanted[name].shape)


def _resize_positions(weights: Weights, module: nn.Module) -> tuple[str, ...]:
    """Interpolate positional embeddings of another size, in place, and return their names."""
    resized = []
    visual = getattr(module, "visual", None)
    positions = positions_of(visual) if isinstance(visual, nn.Module) else None
    name = f"visual.{positions.name}" if positions is not None else ""
    if positions is not None and _other_size(weights.get(name), positions.table):
        weights[name] = _resized_patches(weights[name], positions)
        resized.append(name)
    text = getattr(module, "positional_embedding", None)
    if isinstance(text, torch.Tensor) and _other_size(weights.get("positional_embedding"), text):
        open_clip().model.resize_text_pos_embed(weights, module)
        resized.append("positional_embedding")
    if isinstance(visual, nn.Module):
        resized += _resize_windows(weights, visual)
    return tuple(resized)


def _resize_windows(weights: Weights, visual: nn.Module) -> list[str]:
    """Interpolate Swin's tables of relative positions, (2w − 1)² by heads, to timm's windows here; return their names."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    resized = []
    for path, part in visual.named_modules():
        table, window = getattr(part, "relative_position_bias_table", None), getattr(part, "window_size", None)
        name = f"visual.{path}.relative_position_bias_table"
        if not path.startswith("trunk.") or table is None or window is None or not _other_size(weights.get(name), table):
            continue
        with warnings.catch_warnings():
            # timm 1.0.31 indexes in a way that torch warns of.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.layers\.interpolate")
            weights[name] = resize_rel_pos_bias_table(weights[name], tuple(window), tuple(table.shape))
        resized.append(name)
    return resized


def _other_size(table: torch.Tensor | None, here: torch.Tensor) -> bool:
    """Return whether a table of positions is like the one here but for their number."""
    if table is None or table.ndim != here.ndim or table.shape == here.shape:
        return False
    return table.shape[-1] == here.shape[-1]


def _resized_patches(table: torch.Tensor, positions: Positions) -> torch.Tensor:
    from timm.layers.pos_embed import resample_abs_pos_embed

    rows = table.reshape(1, -1, table.shape[-1])
    rows = resample_abs_pos_embed(rows, list(positions.grid), num_prefix_tokens=positions.prefix)
    return rows.reshape(positions.table.shape)


def _compare(facts: Facts, weights: Weights, wanted: Weights, resized: tuple[str, ...]) -> Report:
    loaded, mismatched = [], []
    for name in wanted:
        if name not in weights:
            continue
        if weights[name].shape == wanted[name].shape:
            loaded.append(name)
        else:
            mismatched.append((name, tuple(weights[name].shape), tuple(wanted[name].shape)))
    missing = tuple(name for name in wanted if name not in weights)
    unexpected = tuple(name for name in weights if name not in wanted)
    return Report(facts, tuple(loaded), missing, unexpected, tuple(mismatched), resized)


def _check(report: Report, wanted: Weights, require: str) -> None:
    """Refuse a file of which too little fits."""
    if require == "all":
        if report.missing or report.mismatched:
            raise _refusal(report, list(wanted))
        return
    prefix = "visual." if any(name.startswith("visual.") for name in wanted) else ""
    needed = [name for name in wanted if _counts(name, prefix)]
    loaded = set(report.loaded)
    fitting = sum(1 for name in needed if name in loaded)
    beside = sum(1 for name in report.unexpected if _counts(name, prefix))
    reshaped = any(_counts(name, prefix) for name, _, _ in report.mismatched)
    if reshaped or fitting < FIT * len(needed) or beside > (1 - FIT) * len(needed):
        raise _refusal(report, needed)


def _counts(name: str, prefix: str) -> bool:
    """Return whether a tensor belongs to the image tower itself; heads differ by task, and a count of batches says nothing."""
    if not name.startswith(prefix) or name.endswith("num_batches_tracked"):
        return False
    inside = name.removeprefix(prefix).removeprefix("trunk.")
    return inside.partition(".")[0] not in HEADS


def _refusal(report: Report, needed: list[str]) -> UsageError:
    loaded = set(report.loaded)
    fitting = sum(1 for name in needed if name in loaded)
    parts = [f"{report.facts.path}: weights of another model: {fitting} of the {len(needed)} tensors that are needed fit"]
    if report.mismatched:
        shapes = [f"{name} {there} in the file, {here} here" for name, there, here in report.mismatched]
        parts.append(f"other shapes: {_listed(shapes)}")
    absent = [name for name in report.missing if name in set(needed)]
    if absent:
        parts.append(f"not in the file: {_listed(absent)}")
    if report.unexpected:
        parts.append(f"only in the file: {_listed(list(report.unexpected))}")
    kinds = {"slip": "a timm/vit_… model, as SLIP's are", "open_clip": "the open_clip model that made it", "provender": "its own model"}
    advice = f"it has the names of {kinds.get(report.facts.kind, 'a timm/… or torchvision/… model')}; --model must be that one"
    return UsageError("; ".join(parts), "weights of the same model", advice)


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _an(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"
