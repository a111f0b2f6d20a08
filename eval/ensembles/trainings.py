"""Several fine-tunings of one trunk on the same images, by the trainer's own loop, and the images that they are judged on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from eval.protocols import _shots
from eval.transfer import heads
from eval.transfer.inputs import trunk_of
from eval.transfer.judge import Judge
from eval.transfer.subset import write_subset
from eval.transfer.tuning import Schedule, Trunk, Tuned, config_of, tune
from shards.core.console import Progress
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np
    import torch

    from eval.ensembles.config import Several
    from eval.protocols.base import Bench
    from train.run import Run

Begin = Callable[["Run"], None]
Per = Literal["step", "epoch"]
SEEDS_APART = 1_000  # between two --tune-seed: so many trainings of one seed differ in order and augmentation


@dataclass(frozen=True)
class Trainings:
    """What all trainings of one draw share.

    Attributes:
        build: folder of the build that holds the draw's images alone; `n` of them.
        changes: other settings of the trainer, such as the optimiser.
        begin: sets the first weights of a training from the trunk.
        done: is called after each training.
    """

    trunk: Trunk
    schedule: Schedule
    build: str
    n: int
    seed: int
    changes: dict[str, Any] = field(default_factory=dict)
    begin: Begin | None = None
    done: Callable[[], None] = lambda: None

    def fit(self, lr: float, epochs: float, number: int, begin: Begin | None = None, *, warmup: int = 0, per: Per = "step") -> Tuned | None:
        """Train once, with a cosine from `lr` to 0 and a new optimiser; None where the training diverged.

        Args:
            number: of the training among those of one seed: it decides order and augmentation.
            begin: sets the first weights; those of the trunk where it is None.
            per: the learning rate changes with each step, or with each epoch alone.
        """
        schedule = replace(self.schedule, epochs=epochs, warmup=warmup)
        seed = self.seed * SEEDS_APART + number
        config = replace(config_of(self.trunk, schedule, self.build, self.n, lr, seed), **self.changes)

        def begun(made: Run) -> None:
            first = self.begin if begin is None else begin
            if first is not None:
                first(made)
            if per == "epoch":
                step_by_epoch(made)

        try:
            model = tune(config, begun)
        finally:
            self.done()
        if model is None:
            note(1, "[training diverged and counts|trainings diverged and count] as accuracy 0", f"lr {lr:g}, {epochs:g} epochs")
        return model


def resuming(model: Tuned, weights: dict[str, torch.Tensor] | None = None) -> Begin:
    """Return what puts a model's weights into a training, tower, head and BatchNorm statistics; the training's optimiser is a new one.

    Args:
        weights: others of the same architecture, such as those that the model started from.
    """
    chosen = model.end if weights is None else weights
    copied = {name: value.detach().clone() for name, value in chosen.items()}

    def begin(made: Run) -> None:
        for prefix, module in (("tower.", made.task.model), ("head.", made.task.heads["classifier"])):
            part = {name.removeprefix(prefix): value for name, value in copied.items() if name.startswith(prefix)}
            module.load_state_dict(part)
        made.task.unit_features = model.classifier.unit_features

    return begin


def step_by_epoch(made: Run) -> None:
    """Let the learning rate of a training change with each epoch alone: the cosine of the epochs that are through, which are whole.

    The loop sets the rate of each step; a hook before the optimiser's step puts the epoch's in its place. In the warm-up the loop's stays.
    """
    from train.optim.groups import set_lr
    from train.optim.schedules import warmup_cosine

    plan, base = made.plan, made.config.lr
    steps = iter(range(plan.steps))

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        step = next(steps)
        if step >= plan.warmup:
            epoch = step * plan.batch_size // plan.epoch_samples
            set_lr(optimizer, warmup_cosine(epoch, base, 0, int(made.config.epochs or 1)))

    made.optimizer.register_step_pre_hook(before)


class Workshop:
    """The trunk, the sets and the trainer's settings of a protocol of several fine-tunings."""

    def __init__(self, config: Several, bench: Bench, sides: _shots.Sides, build: Any) -> None:
        """Take the sets; images are read when the first model is judged."""
        self.config, self.sides, self.build, self.encoder = config, sides, build, bench.encoder
        self.size = bench.encoder.loaded.image_size
        self.test = self.judge(sides.test.examples)
        val = _shots.validation(_shots.val_path(config, config.val), config, bench, sides.test)
        self.val = self.judge(val.examples) if val is not None else None
        self.trunk = trunk_of(config)
        self.schedule = Schedule(
            batch_size=config.batch,
            weight_decay=config.weight_decay,
            augment=config.augment,
            tune=config.tune,
            head="zero" if config.head == "zero" else "normal",
            device=bench.encoder.device,
            workers=config.workers,
        )
        self.progress: Progress | None = None
        self._zero_shot = self._zero_shot_head()

    def judge(self, examples: Any) -> Judge:
        """Return what judges models on a set's images."""
        return Judge(examples, self.size, self.encoder)

    @contextlib.contextmanager
    def trainings(self, draw: np.ndarray, seed: int) -> Iterator[Trainings]:
        """Give the trainings on a draw, positions of training images; a build of them alone stands in a temporary folder."""
        config, positions = self.config, self.sides.train.positions
        places = draw if positions is None else positions[draw]
        with tempfile.TemporaryDirectory(prefix="provender-members-") as folder:
            subset = write_subset(self.build, places, folder)
            changes = {"optimizer": config.optimizer, "momentum": config.momentum, "schedule": "cosine"}
            number = config.tune_seed * 100 + seed
            yield Trainings(self.trunk, self.schedule, subset, len(places), number, changes, self._begin(draw, seed), self._count)

    def _count(self) -> None:
        if self.progress is not None:
            self.progress.add(1)

    @property
    def head(self) -> str:
        """What rows say that the classifier starts from."""
        if self.config.head == "auto":
            return "zeroshot" if self._zero_shot is not None else "normal"
        return self.config.head

    def _begin(self, draw: np.ndarray, seed: int) -> Begin | None:
        if self.config.head == "probe":
            return heads.beginning(heads.probe(self.sides.train, draw, seed))
        return heads.beginning(self._zero_shot) if self._zero_shot is not None else None

    def _zero_shot_head(self) -> np.ndarray | None:
        config, examples, loaded = self.config, self.sides.test.examples, self.encoder.loaded
        possible = loaded.reads_text and examples.named  # `--head zeroshot` was refused where it is not
        if config.head != "zeroshot" and not (config.head == "auto" and possible):
            return None
        return heads.zero_shot(loaded, examples, config.templates, self.encoder.device)

    def settings(self, k: int | None) -> dict[str, Any]:
        """Return what rows say of all trainings at a number of shots."""
        config = self.config
        return {
            **_shots.for_shots(self.sides, k, config.small_classes).settings,
            "epochs": config.epochs,
            "batch": config.batch,
            "optimizer": config.optimizer,
            "weight_decay": config.weight_decay,
            "warmup": config.warmup,
            "augment": config.augment,
            "tune": config.tune,
            "head": self.head,
            "seeds": config.seeds,
            "tune_seed": config.tune_seed,
        }
