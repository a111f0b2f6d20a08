"""What a protocol is: a file whose `run` yields (metric, score) pairs for one model on one data set.

A protocol module has

    VERSION                                          raised whenever its numbers change
    Config(EvalConfig)                               its flags; PROTOCOL is the file's name
    run(config, bench, test) -> Iterator[tuple[str, Score]]

The first line of its docstring is its help. It becomes a verb of `evaluate` by being there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from eval.config import EvalConfig
from eval.data import open_examples
from eval.datasets.base import Columns, Examples
from eval.features import Encoded, Encoder
from eval.metrics import Score

Scores = Iterator[tuple[str, Score]]


@dataclass(frozen=True)
class Bench:
    """A model that can encode sets, and how sets are opened."""

    encoder: Encoder
    config: EvalConfig

    def open(self, path: str, classnames: str = "") -> Examples:
        """Return the labelled set at a path, all of it."""
        columns = Columns(self.config.image_column, self.config.label_column)
        return open_examples(path, self.config.format, classnames, columns)

    def encode(self, examples: Examples) -> Encoded:
        """Return a set's features."""
        return self.encoder.encode(examples)


class Module(Protocol):
    """The shape of a protocol module."""

    VERSION: int
    Config: type[EvalConfig]

    def run(self, config: Any, bench: Bench, test: Encoded) -> Scores:
        """Yield the scores."""
        ...
