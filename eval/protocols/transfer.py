"""Fine-tuning over shots, draws and learning rates: FT, LP-FT, WiSE-FT and the from-scratch control, judged on the whole test set.

`ft` trains everything from a zero-shot head where the trunk reads text and the classes have names, else from a random one. `lp-ft`
starts from a linear probe on the trunk's features (wise-ft's AdamW, learning rate 3e-3). `wise-ft` is the line between the start
of `ft` and its end, over α from 0 to 1; its number is that at α = 0.5, fixed in advance. `scratch` trains the same architecture
from random weights. Each row's protocol is the strategy's name.

The learning rate is chosen on validation images where the set has them; else, from five shots on, on a fifth of the shots, and
the model is trained anew on all of them; with fewer shots it is the second of the grid, fixed in advance. It is never chosen on
the test set, but by `--procedure paper`, which does what was published and says so in each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from eval.protocols import _shots
from eval.protocols._shots import FewShot
from eval.transfer import inputs
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores, Sets
    from eval.transfer.tuning import Schedule
    from train.models.load import Loaded

VERSION = 2
RATES = (1e-4, 3e-4, 1e-3, 3e-3)  # the published grid
PAPER_WARMUP = 500
Strategy = Literal["ft", "lp-ft", "wise-ft", "wise-ft-fisher", "scratch"]


@dataclass(frozen=True)
class Config(FewShot):
    """Flags of `evaluate transfer`."""

    PROTOCOL: ClassVar[str] = "transfer"

    strategies: tuple[Strategy, ...] = option(("ft",), "what to run: ft, lp-ft, wise-ft, wise-ft-fisher, scratch; one or more")
    val: str = option("", "labelled validation set that chooses the learning rate (default: a packed set's own)", metavar="PATH")
    lr: tuple[float, ...] = option(RATES, "learning rates to choose from, one or more", above=0)
    epochs: float = option(128.0, "epochs of each training", above=0)
    batch: int = option(128, "images in a step; all there are where these are fewer", above=0)
    weight_decay: float = option(0.1, "weight decay, of all weights", least=0)
    augment: str = option("finetune", "augmentation of the training images, by name (`train finetune --help`)", metavar="NAME")
    tune: Literal["all", "houlsby", "lora"] = option("all", "what of the trunk is trained: all, or adapters alone")
    head: Literal["auto", "zeroshot", "normal", "zero"] = option("auto", "first weights of the classifier of ft; wise-ft needs zeroshot")
    templates: str = option(
        "", "prompts of a zero-shot head, one per line with {c} for the class; the data's own where not given", metavar="FILE"
    )
    procedure: Literal["sound", "paper"] = option(
        "sound",
        "paper: the published procedure: 500 steps of warm-up however short the training, its augmentation, and the epoch and the"
        " learning rate that are best on the test set (rows say so)",
    )

    def grid(self) -> tuple[float, ...]:
        """Return the learning rates in rising order."""
        return tuple(sorted(set(self.lr)))


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    if not config.strategies:
        raise UsageError("no --strategies", ", ".join(get_args(Strategy)))
    between = _between(config)
    if between and config.head in ("normal", "zero"):
        raise UsageError(f"{between} with --head {config.head}: its line starts at class names", "--head zeroshot, auto")
    inputs.trunk_of(config)
    if config.tune != "all" and "scratch" in config.strategies:
        raise UsageError(f"--strategies scratch with --tune {config.tune}: adapters on random weights", "--tune all")
    return inputs.prepare(config)


def check(config: Config, sets: Sets, examples: Examples) -> None:
    """Refuse a training set that is no build of ours, other classes, a k beyond the smallest class, or one learning rate to choose.

    Raises:
        UsageError: so it is.
    """
    inputs.check(config, sets, examples, _shots.val_path(config, config.val))
    between = _between(config)
    if between and not examples.named:
        raise UsageError(f"{between}: the data do not name their classes", "class names, for a zero-shot head")


def check_model(config: Config, loaded: Loaded) -> None:
    """Refuse a zero-shot head from a trunk that reads no text, and adapters in a trunk that has no place for them.

    Raises:
        UsageError: so it is.
    """
    inputs.check_model(config.tune, config.head, loaded)
    between = _between(config)
    if between:
        inputs.check_text(between, loaded, "--strategies ft lp-ft")


def _between(config: Config) -> str:
    """Return the flag that asks for a line from a zero-shot head; empty where none does."""
    asked = [name for name in config.strategies if name.startswith("wise-ft")]
    return f"--strategies {asked[0]}" if asked else ""


def schedule_of(config: Config, device: str) -> Schedule:
    """Return how each training goes."""
    from eval.transfer.tuning import Schedule

    paper = config.procedure == "paper"
    return Schedule(
        epochs=config.epochs,
        batch_size=config.batch,
        weight_decay=config.weight_decay,
        warmup=PAPER_WARMUP if paper else None,
        augment="finetune-paper" if paper else config.augment,
        tune=config.tune,
        head="normal" if config.head in ("auto", "zeroshot") else config.head,  # a zero-shot head is made once, for all trainings
        device=device,
        workers=config.workers,
    )


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1, acc5, mean_per_class, nll, ece and brier for every strategy and k.

    Raises:
        UsageError: a class with fewer than k training images, other classes, or flags that make no sense.
    """
    from eval.transfer.grid import Study

    shots = prepare(config)
    sides = _shots.checked_sides(config, bench, test, shots)
    yield from Study(config, bench, sides, inputs.build_of(config)).run(shots)
