"""`evaluate PROTOCOL`: load the model, open the data, run the protocol, append its scores to the table."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from eval import results
from eval.config import EvalConfig
from eval.datasets.base import label_of
from eval.features import VERSION as FEATURES
from eval.features import Encoded, Encoder
from eval.metrics import Score
from eval.protocols.base import Bench
from eval.tables import long_table
from shards.core import registry
from shards.core.config import digest
from shards.core.console import emit, say
from shards.core.errors import UsageError

if TYPE_CHECKING:
    from train.models.load import Loaded

_LISTED = 100  # undecodable images that a row names; it counts all


def evaluate(config: EvalConfig) -> None:
    """Run one evaluation and print its rows.

    Raises:
        UsageError: a checkpoint, data set or flag that does not fit; nothing is appended then.
    """
    if config.limit < 0 or config.batch_size < 1 or config.workers < 0:
        found = f"--limit {config.limit} --batch-size {config.batch_size} --workers {config.workers}"
        raise UsageError(found, "limit and workers from 0, batch size from 1")
    protocol: Any = registry.get("eval.protocols", config.PROTOCOL)
    loaded = _loaded(config)
    if getattr(protocol, "NEEDS_TEXT", False):
        loaded.embed_texts(["a"])  # refuses a model without text before any image is encoded
    bench = Bench(Encoder(loaded, device_of(config.device), config.batch_size, config.workers, config.cache), config)
    test = bench.encode(bench.open(config.data, config.classnames).limit(config.limit))
    test = replace(test, examples=replace(test.examples, name=config.data_name)) if config.data_name else test
    pairs = list(protocol.run(config, bench, test))
    rows = [_row(config, protocol.VERSION, loaded, test, metric, score) for metric, score in pairs]
    results.append(config.results, rows)
    emit([asdict(row) for row in rows] if config.json else long_table([asdict(row) for row in rows]))
    say(f"{len(rows)} results appended to {config.results}")


def _loaded(config: EvalConfig) -> Loaded:
    """Return the model of a checkpoint of ours, or of another tool's where `--model` names its architecture."""
    from train.models.load import load_checkpoint, load_foreign

    if not config.model:
        return load_checkpoint(config.checkpoint, ema=config.ema)
    from train.data.augment.params import Augment

    usual = Augment()
    return load_foreign(config.checkpoint, config.model, config.mean or usual.mean, config.std or usual.std, config.image_size)


def device_of(name: str) -> str:
    """Return the torch device of `--device`; auto takes a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no GPU here", "cpu, auto")
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise UsageError(f"--device {name}", "cpu, cuda, cuda:N, auto") from error


def _row(config: EvalConfig, version: int, loaded: Loaded, test: Encoded, metric: str, score: Score) -> results.Row:
    settings = {**score.settings, "limit": config.limit, "protocol_version": version, "features_version": FEATURES}
    examples = test.examples
    return results.Row(
        name=config.name or model_label(config.checkpoint),
        data=examples.name,
        protocol=config.PROTOCOL,
        metric=metric,
        main=metric == examples.metric,
        value=score.value,
        low=score.low,
        high=score.high,
        interval=score.interval,
        k=score.k,
        n=score.n,
        n_undecodable=len(test.undecodable),
        n_classes=len(examples.classes),
        runs=score.runs,
        checkpoint=loaded.digest,
        step=loaded.step,
        samples_seen=loaded.samples_seen,
        manifests=tuple(loaded.manifests),
        train_config=digest(loaded.config),
        dataset=test.digest,
        classes=examples.class_digest,
        config=digest({"protocol": config.PROTOCOL, "k": score.k, **settings}),
        settings=settings,
        undecodable=test.undecodable[:_LISTED],
    )


def model_label(path: str) -> str:
    """Return what tables call a checkpoint: its training's folder, with the file's name where that is not the usual one."""
    from train.checkpoint import NAME

    folder, _, file = path.rstrip("/").rpartition("/")
    if file == NAME and folder:
        return label_of(folder)
    return f"{label_of(folder)}/{file.removesuffix('.pt')}" if folder and file.endswith(".pt") else file.removesuffix(".pt")
