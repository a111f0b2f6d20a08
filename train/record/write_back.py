"""`--write-layer NAME`: what a training found out about its samples becomes a layer of the builds (see `shards.layers`).

    loss   the loss of the sample when it was last seen, weights left out; the mean, where one step had it several times
    seen   how often it was seen with a loss; 0: never
    last   the step that saw it last, as log.jsonl counts steps

An epoch sees each sample once, so `loss` is its loss in the last epoch that saw it; `last` says how far the training was then.
`loss` and `last` are null for a sample that was never seen. `layer.json`, written last, says which training it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shards import layers, tombstones
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress, say, warn
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, ShardEntry, entries
from shards.reader import Shard
from shards.uids import uids_in
from train import distributed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from train.config import TrainConfig
    from train.record.by_sample import SampleLosses
    from train.run import Run

COLUMNS = ("loss", "seen", "last")


@dataclasses.dataclass(frozen=True)
class _Piece:
    """The samples of one source in one tar: the first of them has the number `first` among all sources' samples."""

    manifest: Manifest
    entry: ShardEntry
    first: int
    samples: int


def identity(config: TrainConfig, facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what names a training in its layers, where its parent is not known yet: settings and data.

    Args:
        facts: what a checkpoint remembers of each build.
    """
    return {"config": config.digest, "manifests": digest(list(facts))}


def check(name: str, manifests: Sequence[Manifest], training: dict[str, Any]) -> None:
    """Refuse a layer that could not be written, by writing a file where it will lie.

    Args:
        name: of the layer.
        manifests: of the training's builds.
        training: what names this training, as far as it is known; a layer that states the same is its own.

    Raises:
        UsageError: the name is no layer's or is that of a filter, another layer has it, or a folder takes no files.
    """
    layers.check_name(name)
    for manifest in manifests:
        layers.check_name(name, layers.taken_names(manifest))
    for folder in folders(manifests):
        _check_writable(name, folder)
        check_own(name, folder, training)


def is_written(name: str, manifests: Sequence[Manifest], training: dict[str, Any]) -> bool:
    """Return whether this training's layer, of this step, lies beside all tars."""
    written = [layers.read_layers(folder).get(name, {}).get("training") for folder in folders(manifests)]
    return all(stated == training for stated in written)


def check_own(name: str, folder: str, training: dict[str, Any]) -> None:
    """Refuse to replace a layer of the tars in a folder that another training, or no training, has written.

    Args:
        training: what a layer of this training states; keys that it leaves out are not compared.

    Raises:
        UsageError: it is another's.
    """
    there = layers.read_layers(folder).get(name)
    if there is None:
        return
    stated = there.get("training", {})
    if any(stated.get(key) != value for key, value in training.items()):
        raise UsageError(f"{folder!r} has a layer {name!r} that is not of this training", "--write-layer with another name")


def _check_writable(name: str, folder: str) -> None:
    above = fs.join(folder, layers.FOLDER)
    inside = layers.folder_of(folder, name)
    new = next((path for path in (above, inside) if not fs.exists(path)), None)
    probe = fs.join(inside, ".probe")
    try:
        fs.make_dirs(inside)
        fs.write_bytes(probe, b"")
        fs.remove(probe)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"--write-layer {name}: {inside}: {reason}", "a build in whose folder files can be written") from error
    finally:
        if new is not None and not fs.names(inside):
            fs.remove(new)


def folders(manifests: Sequence[Manifest]) -> list[str]:
    """Return the folders that the tars of some builds lie in, each once."""
    paths = {manifest.folder_of(entry) for manifest in manifests for entry in manifest.shards}
    return sorted({_one_path(path) for path in paths})


def _one_path(folder: str) -> str:
    """Return the same path for a folder however it is spelt: a subset sees the tars' folder as `SUBSET/../BUILD`."""
    if not fs.is_remote(folder):
        return os.path.realpath(folder)
    protocol, _, path = folder.partition("://")
    return f"{protocol}://{posixpath.normpath(path)}"


def write(name: str, manifests: Sequence[Manifest], losses: SampleLosses, training: dict[str, Any]) -> dict[str, int]:
    """Write a layer beside the tars of each build and return of how many samples each folder's says something.

    Args:
        manifests: of the sources, in their order.
        losses: of their samples.
        training: what `layer.json` says of the training.

    Raises:
        UsageError: a layer of that name has come up that is not this training's; nothing was written.
        RunError: a folder takes no files any more, or a shard does not hold what its manifest says.
    """
    for folder in folders(manifests):
        check_own(name, folder, {key: value for key, value in training.items() if key != "step"})
    tars = _pieces(manifests, losses)
    known = {}
    with Progress(f"layer {name}", sum(map(len, tars.values())), "shards") as progress:
        for folder, by_tar in tars.items():
            try:
                known[folder] = _write_folder(name, folder, by_tar, losses, training, progress)
            except OSError as error:
                advice = "the checkpoint has the losses: the same command writes them, where there is room"
                reason = error.strerror or type(error).__name__
                raise RunError(f"{layers.folder_of(folder, name)}: {reason}", advice=advice) from error
    return known


def _pieces(manifests: Sequence[Manifest], losses: SampleLosses) -> dict[str, dict[str, list[_Piece]]]:
    """Return what each tar holds of the sources: {folder: {tar: pieces}}. A build that is named twice has two pieces of each."""
    tars: dict[str, dict[str, list[_Piece]]] = {}
    for number, manifest in enumerate(manifests):
        start, end = int(losses.starts[number]), int(losses.starts[number + 1])
        for entry, before in entries(manifest):
            samples = min(entry.used, end - start - before)  # --samples N uses the first ones alone
            if samples > 0:
                by_tar = tars.setdefault(_one_path(manifest.folder_of(entry)), {})
                by_tar.setdefault(entry.name, []).append(_Piece(manifest, entry, start + before, samples))
    return tars


def _write_folder(
    name: str, folder: str, by_tar: dict[str, list[_Piece]], losses: SampleLosses, training: dict[str, Any], progress: Progress
) -> int:
    """Write the layer of one folder's tars, `layer.json` last, and return how many samples have a loss."""
    import pyarrow.parquet as pq

    inside = layers.folder_of(folder, name)
    # layer.json first: a layer whose files are half old and half new is none
    fs.remove(fs.join(inside, layers.INFO))
    fs.remove(inside)
    fs.make_dirs(inside)
    stones = tombstones.read(folder)
    content = hashlib.sha256()
    known = samples = 0
    for tar, pieces in by_tar.items():
        gone = [position for position, _, _ in stones.get(tar, ())]
        rows = _rows(pieces, losses)
        for values in rows.values():
            values[gone] = 0  # taken down while the training ran
        table = _table(pieces[0], rows, gone)
        with fs.atomic_write(layers.path_of(pieces[0].manifest, pieces[0].entry, name)) as file:
            pq.write_table(table, file, compression="zstd")
        for values in rows.values():
            content.update(values.tobytes())
        known += int((rows["last"] > 0).sum())
        samples += len(table) - len(gone)
        progress.add()
    about = {"format": layers.FORMAT, "format_version": layers.FORMAT_VERSION, "columns": list(COLUMNS)}
    about |= {"samples": known, "without": samples - known, "unknown": 0, "training": training}
    about["digest"] = digest([training, content.hexdigest()])
    fs.write_text(fs.join(inside, layers.INFO), json.dumps(about, indent=1) + "\n")
    return known


def _rows(pieces: Sequence[_Piece], losses: SampleLosses) -> dict[str, NDArray[Any]]:
    """Return the columns of a whole tar. Where several sources hold a sample, the later step counts, or the mean of both."""
    import numpy as np

    samples = pieces[0].entry.samples
    rows = {"loss": np.zeros(samples, np.float32), "seen": np.zeros(samples, np.int32), "last": np.zeros(samples, np.int32)}
    for piece in pieces:
        at = piece.entry.positions()[: piece.samples]
        part = slice(piece.first, piece.first + piece.samples)
        loss, last, before = losses.loss[part], losses.last[part], rows["last"][at]
        mean = (rows["loss"][at] + loss) / 2
        rows["loss"][at] = np.where(last > before, loss, np.where((last == before) & (last > 0), mean, rows["loss"][at]))
        rows["last"][at] = np.maximum(last, before)
        rows["seen"][at] += losses.seen[part]
    return rows


def _table(piece: _Piece, rows: dict[str, NDArray[np.generic]], gone: Sequence[int]) -> pa.Table:
    """Return a tar's rows of the layer; samples that were taken down have neither uid nor values."""
    import pyarrow as pa

    whole = dataclasses.replace(piece.entry, use=None)
    with Shard(piece.manifest, whole) as shard:
        uids = uids_in(shard)
    for position in gone:
        uids[position] = ""
    unknown = rows["last"] == 0
    columns = {"loss": pa.array(rows["loss"], mask=unknown), "seen": pa.array(rows["seen"]), "last": pa.array(rows["last"], mask=unknown)}
    return pa.table({"uid": uids, **columns})


def restore(run: Run, state: dict[str, Any]) -> None:
    """Go on with the losses by sample that a checkpoint has, or say that there are none."""
    kept = state.get("losses")
    if distributed.rank() != 0:
        return
    if run.losses is None and kept is not None:
        warn("the checkpoint has losses by sample, which end here: no --write-layer")
    elif run.losses is not None and kept is None:
        warn(f"--write-layer: the checkpoint has no losses by sample; they are known from step {state['step']:,} on")
    elif run.losses is not None and kept is not None:
        run.losses.restore(kept)


def check_layer(run: Run) -> None:
    """Refuse to replace a layer of another training with the same settings and data that started from other weights.

    Raises:
        UsageError: the builds have a layer of that name that is not this training's.
    """
    if run.losses is None or distributed.rank() != 0:
        return
    for folder in folders(_manifests(run)):
        check_own(run.config.write_layer, folder, _identity(run))


def write_layer(run: Run, step: int, *, anew: bool = True) -> None:
    """Write what is known of each sample after so many steps as a layer of the builds, if `--write-layer` asks for it.

    Args:
        anew: write it even if this training's layer of this step is there.
    """
    if run.losses is None or distributed.rank() != 0:
        return
    name, training = run.config.write_layer, {**_identity(run), "step": step}
    if not run.losses.seen.any():
        warn(f"--write-layer {name}: nothing is known of any sample, so nothing is written")
        return
    if not anew and is_written(name, _manifests(run), training):
        return
    for folder, known in write(name, _manifests(run), run.losses, training).items():
        say(f"layer {name}: losses of {known:,} samples, beside the tars in {folder}")


def _identity(run: Run) -> dict[str, Any]:
    parent = "" if run.parent is None else run.parent["sha256"]
    return identity(run.config, run.manifests) | {"parent": parent}


def _manifests(run: Run) -> list[Manifest]:
    return [source.manifest for source in run.loader.sources]
