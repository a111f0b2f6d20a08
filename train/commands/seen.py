"""`train seen`: when a training saw a sample, worked out from its order; nothing was logged for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.config import option
from shards.core.console import emit, table
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest
from train.data.blocks import used
from train.data.order import Order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SeenConfig:
    """The configuration of `train seen`."""

    run: str = option(help="a training's output folder", positional=True)
    uid: tuple[str, ...] = option((), "the samples' uids (keys, for tars of other tools)")
    manifest: tuple[str, ...] = option((), "the builds, where they have moved since", metavar="PATH[@w]")
    until: int | None = option(None, "the first N steps only (default: those of the checkpoint)", least=0)
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Seen:
    """A sample in a batch.

    `step` counts from 1, as in the log and in `checkpoint-STEP.pt`; `row` is the sample's place in the global batch, from 0;
    `epoch` counts the passes over its source from 0.
    """

    uid: str
    source: str
    step: int
    row: int
    epoch: int


def show(config: SeenConfig) -> int:
    """Print where each sample was seen. Return 1 if one of them never was."""
    if not config.uid:
        raise UsageError("no sample named", "--uid UID")
    sightings = list(seen(config))
    rows = [(at.uid, at.source, at.step, at.row, at.epoch) for at in sightings]
    if config.json:
        emit([at.__dict__ for at in sightings])
    else:
        emit(table(("uid", "source", "step", "row", "epoch"), rows))
    missed = set(config.uid) - {at.uid for at in sightings}
    if missed and not config.json:
        emit("never seen: " + ", ".join(sorted(missed)))
    return 1 if missed else 0


def seen(config: SeenConfig) -> Iterator[Seen]:
    """Yield every time that one of the samples was in a batch, in order of steps.

    A sample that could not be decoded is in the order too: what stood in for it is not told here.

    Raises:
        UsageError: no training there, or no build has a sample of that name, or the builds are others than the training's.
    """
    training, state = _training(config)
    sources = [(read_manifest(path), weight) for path, weight in training.sources()]
    _check_builds(state, sources)
    counts = [used(manifest, training.samples) for manifest, _ in sources]
    order = Order(counts, [weight for _, weight in sources], batch_size=training.batch_size, seed=training.seed)
    names = [manifest.folder for manifest, _ in sources]
    wanted = [_positions(manifest, config.uid, sum(count)) for (manifest, _), count in zip(sources, counts, strict=True)]
    absent = set(config.uid) - {uid for of_source in wanted for uid in of_source.values()}
    if absent:
        raise UsageError(f"no sample {sorted(absent)[0]!r} in {', '.join(names)}", "uids as `shards uids` prints them")
    until = int(state["step"]) if config.until is None else config.until
    for step in range(until):
        items = order.items(step)
        for row in _rows_of(items.sources, items.positions, wanted):
            source, position = int(items.sources[row]), int(items.positions[row])
            yield Seen(wanted[source][position], names[source], step + 1, row, int(items.epochs[row]))


def _training(config: SeenConfig) -> tuple[Any, dict[str, Any]]:
    """Return a training's configuration and its checkpoint's content."""
    from shards.core import registry
    from shards.core.recipes import read as read_yaml
    from train import checkpoint
    from train.config import RECIPES

    state = checkpoint.read(checkpoint.path_in(config.run))
    file = fs.join(config.run, "config.yaml")
    module: Any = registry.get("train.tasks", state["task"])
    flags = {"manifest": config.manifest} if config.manifest else {}
    return module.Config.from_flags({**read_yaml(file, RECIPES), **flags}), state


def _check_builds(state: dict[str, Any], sources: list[tuple[Manifest, float | None]]) -> None:
    was, now = [manifest["digest"] for manifest in state["manifests"]], [manifest.digest for manifest, _ in sources]
    if was != now:
        raise UsageError("the builds are not those of the training", ", ".join(digest[:12] for digest in was), "--manifest PATH")


def _positions(manifest: Manifest, uids: tuple[str, ...], samples: int) -> dict[int, str]:
    """Return {position: uid} of the samples that a build has."""
    from shards.reader import Shard

    wanted, first, positions = set(uids), 0, {}
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            table = shard.sidecar(["uid"])
            names = table["uid"].to_pylist() if table.num_columns else [shard.key(i) for i in range(len(shard))]
        for row, name in enumerate(names):
            if name in wanted and first + row < samples:
                positions[first + row] = name
        first += entry.used
    return positions


def _rows_of(sources: NDArray[np.int64], positions: NDArray[np.int64], wanted: list[dict[int, str]]) -> list[int]:
    """Return the rows of a batch that hold a wanted sample."""
    import numpy as np

    rows: list[int] = []
    for source, of_source in enumerate(wanted):
        chosen = (sources == source) & np.isin(positions, list(of_source))
        rows += np.flatnonzero(chosen).tolist()
    return sorted(rows)
