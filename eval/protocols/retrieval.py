"""Retrieval: finds the captions of an image and the image of a caption by cosine, recall at 1, 5 and 10 both ways.

An image with several captions counts as found where one of them is among the first (Karpathy & Fei-Fei 2015, as CLIP_benchmark). All images
and captions of the set are searched. mean_recall is the mean of all recalls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eval.config import EvalConfig
from shards.core.config import option
from shards.core.errors import RunError, UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

    from eval.datasets.base import Examples
    from eval.features import Encoded
    from eval.protocols.base import Bench, Scores, Sets

VERSION = 1
NEEDS_TEXT = True
BATCH = 256  # captions that go through the model at a time


@dataclass(frozen=True)
class Config(EvalConfig):
    """Flags of `evaluate retrieval`."""

    PROTOCOL: ClassVar[str] = "retrieval"

    depths: tuple[int, ...] = option((1, 5, 10), "numbers of answers in which the right one counts", above=0)
    split: str = option("", "split of a captions file that has several (default: test)", metavar="NAME")
    caption_column: str = option("", "caption column of a table; common names are guessed", metavar="NAME")
    images: str = option("", "folder of the images, where it is not the captions file's", metavar="DIR")


def prepare(config: Config) -> tuple[int, ...]:
    """Return the depths, each once and in rising order.

    Raises:
        UsageError: a depth below 1, or a flag of labelled sets.
    """
    if not config.depths or min(config.depths) < 1:
        raise UsageError(f"--depths {config.depths}", "whole numbers from 1")
    if config.classnames:
        raise UsageError("--classnames with retrieval", "a set of images with captions has no classes")
    return tuple(sorted(set(config.depths)))


def open_data(config: Config, sets: Sets) -> Examples:
    """Return the images and captions of `--data`.

    Raises:
        UsageError: nothing there, or no captions.
    """
    from eval.datasets.paired import open_paired
    from eval.protocols._pairs import captioned

    pairs = open_paired(
        config.path, split=config.split, image_column=config.image_column, caption_column=config.caption_column, images=config.images
    )
    examples = captioned(pairs)
    sets.opened[config.path, ""] = examples
    return examples


def check(config: Config, sets: Sets, examples: Examples) -> None:
    """Refuse a set with a single image, where each answer is right.

    Raises:
        UsageError: so it is.
    """
    if len(examples) < 2:
        raise UsageError(f"{examples.name}: {len(examples)} image: every answer is right", "at least two images")


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield the recalls of both directions at each depth, and their mean."""
    import numpy as np

    from eval.protocols import _pairs

    examples = test.examples
    assert isinstance(examples, _pairs.Captioned)
    check(config, bench.sets or None, examples)  # type: ignore[arg-type]
    depths = prepare(config)
    counts = [len(texts) for texts in examples.captions]
    texts = [text for several in examples.captions for text in several]
    owners = np.repeat(np.arange(len(counts)), counts)
    found = _pairs.ranks(test.features, _encoded(bench, texts), owners)
    repeated = len(texts) - len(set(texts))
    note(repeated, "[caption stands|captions stand] for several images, of which one alone is right", "")
    copies = len(examples) - len(np.unique(examples.hashes))
    note(copies, "[image stands|images stand] twice, byte for byte, of which one alone is right", "")
    settings = {"captions": len(texts), "repeated_captions": repeated, "repeated_images": copies}
    chance = _pairs.chances(counts, depths)
    for metric, score in _pairs.recalls(found, depths).items():
        yield metric, score.having(settings=settings, chance=chance[metric])


def _encoded(bench: Bench, texts: list[str]) -> np.ndarray:
    """Return the features of texts, (texts, d) float32; equal ones are encoded once.

    Raises:
        RunError: they are no finite numbers.
    """
    import numpy as np
    import torch

    from shards.core.console import Progress

    unique = sorted(set(texts), key=lambda text: (len(text), text))  # texts of like length share batches
    loaded, device = bench.encoder.loaded, bench.encoder.device
    loaded.model.to(device).eval()
    parts = []
    with Progress("encode captions", len(unique), "captions") as progress, torch.inference_mode():
        for at in range(0, len(unique), BATCH):
            parts.append(loaded.embed_texts(unique[at : at + BATCH], device).cpu().numpy())
            progress.add(len(parts[-1]))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise RunError("the model gives text features that are no finite numbers", "a model whose training has not diverged")
    places = {text: i for i, text in enumerate(unique)}
    return features[[places[text] for text in texts]]
