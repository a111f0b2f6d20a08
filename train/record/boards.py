"""Where a training's numbers go beside log.jsonl: TensorBoard, wandb, trackio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from shards.core import fs
from shards.core.console import warn
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from train.config import TrainConfig

TENSORBOARD = "tensorboard"


class Board(Protocol):
    """A place for numbers by step."""

    def add(self, row: dict[str, Any]) -> None:
        """Add a line of the log."""

    def close(self) -> None:
        """Write what is left."""


def open_boards(config: TrainConfig, start: int) -> list[Board]:
    """Return the boards that a configuration names.

    Raises:
        UsageError: the package of one is not installed.
    """
    boards: list[Board] = []
    for name in config.report_to:
        if name == "tensorboard" and fs.is_remote(config.output):
            warn("TensorBoard writes to a local folder only: it is left out")
        elif name == "tensorboard":
            boards.append(_TensorBoard(config, start))
        else:
            boards.append(_Tracker(name, config))
    return boards


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line, lists spread over numbered names."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, bool) or name == "step":
            continue
        if isinstance(value, int | float):
            numbers[name] = value
        elif isinstance(value, list):
            numbers |= {f"{name}/{i}": entry for i, entry in enumerate(value)}
        elif isinstance(value, dict):
            numbers |= {f"{name}/{key}": entry for key, entry in value.items() if isinstance(entry, int | float)}
    return numbers


class _TensorBoard:
    def __init__(self, config: TrainConfig, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(fs.join(config.output, TENSORBOARD), purge_step=start)

    def add(self, row: dict[str, Any]) -> None:
        for name, value in numbers_of(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class _Tracker:
    """wandb, or trackio, which has the same functions."""

    def __init__(self, name: str, config: TrainConfig) -> None:
        import importlib

        try:
            self._package: Any = importlib.import_module(name)
        except ImportError:
            raise UsageError(f"--report-to {name}: the package is not installed", "an installed one", f"pip install {name}") from None
        where = {"dir": config.output} if name == "wandb" else {}
        label = config.output.rstrip("/").rpartition("/")[2]
        self._package.init(project="provender", name=label, config=config.essence(), resume="allow", **where)

    def add(self, row: dict[str, Any]) -> None:
        self._package.log(numbers_of(row), step=row["step"])

    def close(self) -> None:
        self._package.finish()
