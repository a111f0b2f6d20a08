"""Evaluation during training: what `train --eval-data` calls, by entry points (`train.evaluators`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eval.data import open_examples
from eval.features import Encoder
from eval.protocols import probe as probing
from eval.protocols import zeroshot as prompting
from eval.protocols.base import Bench, Sets
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from train.models.load import Loaded

BATCH = 64


def zeroshot(loaded: Loaded, data: list[str], device: str) -> dict[str, float]:
    """Return the zero-shot accuracy on each labelled set, by `zeroshot/NAME/METRIC`.

    Raises:
        UsageError: the model reads no text, or a set does not name its classes.
    """
    return _numbers(prompting, "zeroshot", loaded, data, device)


def probe(loaded: Loaded, data: list[str], device: str) -> dict[str, float]:
    """Return the accuracy of a linear probe on half of each labelled set, fitted on its other half, by `probe/NAME/METRIC`."""
    return _numbers(probing, "probe", loaded, data, device)


def check(protocol: str, path: str) -> None:
    """Refuse a set that an evaluation would refuse, after steps that took hours.

    Raises:
        UsageError: no such set; for zero-shot also classes without names, or a template without a place for them.
    """
    try:
        module: Any = prompting if protocol == "zeroshot" else probing
        config: EvalConfig = module.Config(checkpoint="", data=(path,))
        module.check(config, Sets(config), open_examples(path))
    except UsageError as error:
        raise UsageError(f"--eval-data {path}: {error.found}", error.allowed, error.advice) from error


def _numbers(protocol: Any, name: str, loaded: Loaded, data: list[str], device: str) -> dict[str, float]:
    encoder = Encoder(loaded, device, BATCH)
    numbers = {}
    for path in data:
        config: EvalConfig = protocol.Config(checkpoint="", data=(path,))
        test = encoder.encode(open_examples(path))
        for metric, score in protocol.run(config, Bench(encoder, config), test):
            if metric == test.examples.metric:
                numbers[f"{name}/{test.examples.name}/{metric}"] = float(score.value)
    if not numbers:
        raise UsageError("no set to evaluate on during training", "--eval-data PATH")
    return numbers
