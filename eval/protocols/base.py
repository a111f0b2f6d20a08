"""What a protocol is: a file whose `run` yields (metric, score) pairs for one model on one data set.

A protocol module has

    VERSION                                          raised whenever its numbers change
    Config(EvalConfig)                               its flags; PROTOCOL is the file's name
    prepare(config) -> Any                           what its flags say, read and checked before anything is opened
    check(config, sets, examples)                    refuses a set that `run` would refuse, before an image is opened
    run(config, bench, test) -> Iterator[tuple[str, Score]]

and may have

    NEEDS_TEXT                                       True: the model must read text
    check_model(config, loaded)                      refuses a model that `run` would refuse, before an image is encoded
    open_data(config, sets) -> Examples              opens its data, where these are no labelled set
    source(config, loaded) -> eval.features.Source   what gives its features, where that is not the model as it is

`check` is also called by `train --eval-data`. A `Score` whose `answers` are set has its predictions kept by `evaluate`.

The first line of its docstring is its help. It becomes a verb of `evaluate` by being there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from eval.config import EvalConfig
from eval.data import open_examples
from eval.datasets.base import Columns, Examples
from eval.features import Encoded, Encoder
from eval.metrics import Score

Scores = Iterator[tuple[str, Score]]


@dataclass(frozen=True)
class Sets:
    """Opens labelled sets as the flags say, each one once."""

    config: EvalConfig
    opened: dict[tuple[str, str], Examples] = field(default_factory=dict, compare=False)

    def open(self, path: str, classnames: str = "") -> Examples:
        """Return the labelled set at a path, all of it."""
        key = (path, classnames)
        if key not in self.opened:
            columns = Columns(self.config.image_column, self.config.label_column)
            self.opened[key] = open_examples(path, self.config.format, classnames, columns)
        return self.opened[key]


@dataclass(frozen=True)
class Bench:
    """A model that can encode sets, and how sets are opened."""

    encoder: Encoder
    config: EvalConfig
    sets: Sets | None = None

    def open(self, path: str, classnames: str = "") -> Examples:
        """Return the labelled set at a path, all of it."""
        return (self.sets or Sets(self.config)).open(path, classnames)

    def encode(self, examples: Examples) -> Encoded:
        """Return a set's features."""
        return self.encoder.encode(examples)


class Module(Protocol):
    """The shape of a protocol module."""

    VERSION: int
    Config: type[EvalConfig]

    def prepare(self, config: Any) -> Any:
        """Check the flags."""
        ...

    def check(self, config: Any, sets: Sets, examples: Examples) -> None:
        """Refuse a set that does not do."""
        ...

    def run(self, config: Any, bench: Bench, test: Encoded) -> Scores:
        """Yield the scores."""
        ...
