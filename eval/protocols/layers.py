"""Linear probes on every block or stage of the image tower: where in depth the classes can be told apart.

Each layer's map is averaged to 1 token or several (`--tokens`), and a ViT's class token stands beside it; each is scaled to unit length and
probed as in `evaluate probe`. A row's metric names the layer: `acc1@blocks.3:cls`. acc1 is that of the model's own features.
saturation is the depth, as a share of all layers, of the first layer whose accuracy is within one point of the best one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from eval.protocols import _shots
from eval.protocols._shots import FewShot, check
from shards.core.config import option
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from eval.features import Encoded
    from eval.layers import Layered, Place
    from eval.metrics import Score
    from eval.protocols.base import Bench, Scores

__all__ = ["VERSION", "Config", "check", "prepare", "run", "saturation", "source"]

VERSION = 1
WITHIN = 0.01  # of the best accuracy


@dataclass(frozen=True)
class Config(FewShot):
    """Flags of `evaluate layers`."""

    PROTOCOL: ClassVar[str] = "layers"

    k: str = option("all", "images per class, separated by commas; `all` takes every training image", metavar="K")
    tokens: tuple[int, ...] = option((1,), "tokens that a map is averaged to, square numbers such as 1 4 16", above=0)
    l2: float = option(1024.0, "weight of the ridge; fixed in advance, never chosen on the test set", above=0)


def prepare(config: Config) -> list[int | None]:
    """Return the numbers of `--k`.

    Raises:
        UsageError: flags that make no sense.
    """
    from eval.layers import check_tokens

    check_tokens(config.tokens)
    if config.l2 <= 0:
        raise UsageError(f"--l2 {config.l2:g}", "a positive weight")
    return _shots.prepare(config)


def source(config: Config, loaded: Any) -> Layered:
    """Return the layers of a model as its features.

    Raises:
        UsageError: its tower has no known blocks.
    """
    from eval.layers import Layered, blocks_of, tower_of

    blocks_of(tower_of(loaded.model))
    return Layered(loaded, tuple(sorted(set(config.tokens))))


def run(config: Config, bench: Bench, test: Encoded) -> Scores:
    """Yield acc1 of every layer and pooling, that of the model's own features, and the saturation, for every k.

    Raises:
        UsageError: a class with fewer than k training images, or other classes in training.
    """
    from eval.layers import LAST

    shots = prepare(config)
    places = _places(bench)
    whole = _shots.sides_of(config, bench, test)
    all_sides = [_shots.for_shots(whole, k, config.small_classes) for k in shots]  # before any number: a k too large costs nothing
    for k, sides in zip(shots, all_sides, strict=True):
        settings = {**sides.settings, "l2": config.l2, "seeds": config.seeds, "tokens": list(config.tokens)}
        settings["layers"] = list(dict.fromkeys(place.layer for place in places))
        by_layer: dict[str, list[Score]] = {}
        for place in places:
            score = _score(config, sides, place, k)
            by_layer.setdefault(place.layer, []).append(score)
            name = "acc1" if place.layer == LAST else f"acc1@{place.layer}:{place.pooled}"
            yield name, score.having(k="all" if k is None else k, settings=settings)
        depth, layer = saturation(by_layer)
        yield "saturation", depth.having(k="all" if k is None else k, settings={**settings, "saturation_layer": layer})


def _places(bench: Bench) -> list[Place]:
    """Return which columns are whose; features from a cache have seen no batch, so one image is run."""
    import torch

    layered: Layered = bench.encoder.loaded
    if not layered.places:
        layered.model.to(bench.encoder.device).eval()
        with torch.inference_mode():
            layered.embed_images(torch.zeros((1, 3, layered.image_size, layered.image_size), device=bench.encoder.device))
    return list(layered.places)


def _score(config: Config, sides: _shots.Sides, place: Place, k: int | None) -> Score:
    """Return acc1 of a probe on some columns."""
    import numpy as np

    from eval.protocols.probe import ridge

    columns = slice(place.start, place.stop)
    train, test = (replace(part, features=part.features[:, columns]) for part in (sides.train, sides.test))
    runs: list[np.ndarray] = []
    for seed in _shots.seeds_of(config, k):
        chosen = _shots.draw(train.examples, k, seed)
        classify = ridge(train.features[chosen], train.examples.labels[chosen], len(train.examples.classes), config.l2)
        runs.append(classify(test.features).astype(np.float32))
    scored = dict(_shots.over_draws(replace(sides, train=train, test=test), runs, k))
    return scored["acc1"].having(answers=())


def saturation(by_layer: dict[str, Sequence[Score]] | dict[str, list[Score]]) -> tuple[Score, str]:
    """Return the share of the depth, 0 to 1, at which accuracy is first within one point of the best layer's, and that layer's name.

    A layer's accuracy is that of its best pooling. Layers are in order; the last one is the model's own features.
    """
    from eval.metrics import Score

    best = {layer: max(score.value for score in scores) for layer, scores in by_layer.items()}
    top = max(best.values())
    names = list(best)
    first = next(i for i, name in enumerate(names) if best[name] >= top - WITHIN)
    n = next(iter(by_layer.values()))[0].n
    return Score((first + 1) / len(names), n=n), names[first]
