"""Where a training's numbers go beside log.jsonl: TensorBoard, wandb, trackio."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Protocol

from shards.core import fs
from shards.core.console import warn
from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    from train.config import TrainConfig

TENSORBOARD, WANDB_ID = "tensorboard", "wandb-id.txt"


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
        RunError: wandb takes no run, as there is no login or no connection.
    """
    boards: list[Board] = []
    for name in config.report_to:
        if name == "tensorboard" and fs.is_remote(config.output):
            warn("TensorBoard writes to a local folder only: it is left out")
        elif name == "tensorboard":
            boards.append(_TensorBoard(config, start))
        else:
            boards.append(_Tracker(name, config, start))
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
            tags = _short(list(value)) if name == "loss_by_source" else list(value)
            entries = zip(tags, value.values(), strict=True)
            numbers |= {f"{name}/{tag}": entry for tag, entry in entries if isinstance(entry, int | float)}
    return numbers


def _short(paths: list[str]) -> list[str]:
    """Return paths without the folders that all of them begin with."""
    parts = [path.rstrip("/").split("/") for path in paths]
    most = min(map(len, parts), default=1) - 1  # a path's last part stays
    shared = next((i for i in range(most) if len({part[i] for part in parts}) > 1), most)
    return ["/".join(part[shared:]) for part in parts]


class _TensorBoard:
    def __init__(self, config: TrainConfig, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(fs.join(config.output, TENSORBOARD), purge_step=start)

    def add(self, row: dict[str, Any]) -> None:
        for name, value in numbers_of(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


def _run_id(output: str, start: int) -> str:
    """Return the id of a training's run: of the run before where it is resumed, else a new one, kept beside the checkpoint."""
    path = fs.join(output, WANDB_ID)
    if start and fs.exists(path):
        return fs.read_text(path).strip()
    new = secrets.token_hex(8)
    fs.write_text(path, new + "\n")
    return new


class _Tracker:
    """wandb, or trackio, which has the same functions."""

    def __init__(self, name: str, config: TrainConfig, start: int) -> None:
        import importlib

        try:
            self._package: Any = importlib.import_module(name)
        except ImportError:
            raise UsageError(f"--report-to {name}: the package is not installed", "an installed one", f"pip install {name}") from None
        # wandb goes on with a run by its id alone; trackio knows it by its name, and takes no id.
        where = {"dir": config.output, "id": _run_id(config.output, start)} if name == "wandb" else {}
        label = config.output.rstrip("/").rpartition("/")[2]
        refused = self._package.Error if name == "wandb" else ()
        try:
            self._package.init(project="provender", name=label, config=config.essence(), resume="allow", **where)
        except refused as error:
            advice = "`wandb login`, or WANDB_MODE=offline in the environment"
            raise RunError(f"--report-to wandb: {error}", advice=advice) from error

    def add(self, row: dict[str, Any]) -> None:
        self._package.log(numbers_of(row), step=row["step"])

    def close(self) -> None:
        self._package.finish()
