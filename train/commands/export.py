"""`train export`: a checkpoint as files that open_clip, timm, torchvision and the Hugging Face hub's users load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.core.config import option
from shards.core.console import emit


@dataclass(frozen=True)
class ExportConfig:
    """The configuration of `train export`."""

    checkpoint: str = option(help="the checkpoint, or the output folder of `train`", metavar="PATH")
    output: str = option(help="the file to write; the folder, for hf", metavar="PATH")
    format: Literal["open_clip", "hf", "safetensors"] = option(
        "open_clip", "open_clip: FILE.pt and its configuration; hf: a folder for open_clip's local-dir:; safetensors: the weights alone"
    )
    ema: bool = option(False, "write the averaged weights of a training with --ema")
    overwrite: bool = option(False, "write over what is there")
    json: bool = option(False, "print JSON")


def run(config: ExportConfig) -> int:
    """Write the files, print them and the line that loads them, and return the exit code."""
    from train.models.export import export

    exported = export(config.checkpoint, config.format, config.output, config.overwrite, ema=config.ema)
    if config.json:
        emit({"files": list(exported.files), "load": exported.load})
    else:
        emit("\n".join([*exported.files, f"load it with: {exported.load}"]))
    return 0
