"""`train check`: prove that a whole build decodes before a training is spent on it, by the route that the loader takes.

Every header is read as the loader reads it. Plain JPEGs go to the engine, all else through `EncodedImage`, whatever the engine.
A decoder may take its process down on an odd file, so all runs in child processes, on a few hundred samples at a time.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from shards.core.config import MOST_WORKERS, option
from shards.core.console import Progress, emit, table
from shards.core.engine import Lost, map_unordered
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from train.data.decode.cpu import EncodedImage
    from train.data.decode.dali import Prover

TASK = 256  # samples per task
BATCH = 16  # whole images in memory at once
SIZE = 224  # pixels to a side of the crops, as most models take them: the scale that the engine `cpu` decodes at follows from it
DECODERS = {"dali": "plain JPEGs by DALI, all else by Pillow", "cpu": "plain JPEGs by libjpeg-turbo, all else by Pillow"}


@dataclass(frozen=True)
class CheckConfig:
    """The configuration of `train check`."""

    manifest: str = option(help="the build: its folder or manifest.json", metavar="PATH")
    engine: Literal["cpu", "dali"] | None = option(None, "what decodes plain JPEGs (default: dali where it can be imported, else cpu)")
    workers: int = option(0, "worker processes (0: one per core)", least=0, most=MOST_WORKERS)
    limit: int | None = option(None, "look at the first N samples only", above=0)
    json: bool = option(False, "print JSON")


class Part(NamedTuple):
    """Samples [first, stop) of one shard's window."""

    manifest: str
    shard: int
    first: int
    stop: int
    engine: str


def check(config: CheckConfig) -> int:
    """Decode every image of a build as the loader does; print those that it would replace. Return 0 if there are none, else 1.

    Raises:
        UsageError: `--engine dali` where DALI cannot be imported.
    """
    manifest = read_manifest(config.manifest)
    engine = _engine(config.engine)
    specs = list(_parts(manifest, config, engine))
    total = sum(spec.stop - spec.first for spec in specs)
    failed: list[dict[str, str]] = []
    with Progress("check", total) as progress:
        for outcome in map_unordered(failing, specs, workers=config.workers or default_workers(), split=_split):
            spec = outcome.spec
            failed += [_lost(spec, outcome.reason)] if isinstance(outcome, Lost) else outcome.result
            progress.add(spec.stop - spec.first)
    failed.sort(key=lambda row: (row["shard"], row["key"]))
    if config.json:
        emit({"samples": total, "engine": engine, "undecodable": failed})
    else:
        if failed:
            emit(table(("shard", "key", "why"), [(row["shard"], row["key"], row["why"]) for row in failed]))
        emit(f"{total - len(failed):,} of {total:,} images decode ({DECODERS[engine]})")
    return 1 if failed else 0


def _engine(asked: str | None) -> str:
    """Return the engine to check with."""
    if asked == "cpu":
        return asked
    try:
        importlib.import_module("nvidia.dali")
    except (ImportError, OSError) as error:  # OSError: a library that it is linked with is not there
        if asked == "dali":
            raise UsageError(f"--engine dali: {error}", "cpu, where DALI cannot be imported") from error
        return "cpu"
    return "dali"


def _parts(manifest: Manifest, config: CheckConfig, engine: str) -> Iterator[Part]:
    left = manifest.samples if config.limit is None else config.limit
    for number, entry in enumerate(manifest.shards):
        stop = min(entry.used, left)
        left -= stop
        for first in range(0, stop, TASK):
            yield Part(config.manifest, number, first, min(first + TASK, stop), engine)


def _split(part: Part) -> list[Part]:
    """Halve a part whose worker died, down to the one sample that kills it."""
    if part.stop - part.first < 2:
        return []
    middle = (part.first + part.stop) // 2
    return [part._replace(stop=middle), part._replace(first=middle)]


def failing(part: Part) -> list[dict[str, str]]:
    """Return {shard, key, why} of the samples of a part that the loader would replace."""
    from shards.reader import Shard
    from shards.sample import IMAGE_EXTENSIONS

    manifest = read_manifest(part.manifest)
    entry, rows = manifest.shards[part.shard], []
    with Shard(manifest, entry) as shard:
        for first in range(part.first, part.stop, BATCH):
            chosen = range(first, min(first + BATCH, part.stop))
            members = [next((m for m in shard.groups[i] if m.ext.lower() in IMAGE_EXTENSIONS), None) for i in chosen]
            images = [None if member is None else shard.read_range(member.offset, member.size) for member in members]
            for number, why in sorted(reasons(images, part.engine).items()):
                rows.append({"shard": entry.path, "key": shard.key(chosen[number]), "why": why})
    return rows


def reasons(images: list[bytes | None], engine: str) -> dict[int, str]:
    """Return why the loader would replace some of these images, by their numbers.

    Args:
        images: encoded; None where a sample has no image member.
        engine: `cpu` or `dali`.
    """
    from shards.upright import UndecodableError
    from train.data.decode.cpu import EncodedImage

    causes: dict[int, str] = {}
    for_dali: dict[int, bytes] = {}
    for number, data in enumerate(images):
        if data is None:
            causes[number] = "no image member"
            continue
        try:
            image = EncodedImage(data)
            if engine == "dali" and image.plain:
                for_dali[number] = data
            else:
                _decode(image)
        except UndecodableError as error:
            causes[number] = str(error)
    numbers = list(for_dali)
    refused = _prover().failing(list(for_dali.values())) if for_dali else {}
    return causes | {numbers[place]: why for place, why in refused.items()}


def _decode(image: EncodedImage) -> None:
    """Decode an image and resize all of it, as the engine `cpu` does.

    Raises:
        UndecodableError: it cannot be decoded.
    """
    import numpy as np

    from train.data.augment.params import Window
    from train.data.decode.resample import BICUBIC

    whole = Window(0, 0, image.height, image.width)
    image.crops_into([np.empty((SIZE, SIZE, 3), np.uint8)], [whole], [BICUBIC])


@functools.cache
def _prover() -> Prover:
    """Return this worker's pipeline, which outlives the task."""
    from train.data.decode.dali import Prover

    return Prover(BATCH)


def _lost(part: Part, reason: str) -> dict[str, str]:
    """Return the row of a sample that took its worker down."""
    from shards.reader import Shard

    manifest = read_manifest(part.manifest)
    entry = manifest.shards[part.shard]
    with Shard(manifest, entry) as shard:
        return {"shard": entry.path, "key": shard.key(part.first), "why": f"the decoder's process died: {reason}"}
