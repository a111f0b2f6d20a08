"""`evaluate PROTOCOL`: load the model, open the data, run the protocol, append its scores to the table."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from eval import pixels, results
from eval.answers import Keeper
from eval.config import EvalConfig
from eval.data import resolve
from eval.datasets.base import label_of
from eval.features import VERSION as FEATURES
from eval.features import Encoded, Encoder
from eval.metrics import Score
from eval.overlap import seen
from eval.overlap.rows import Without
from eval.overlap.seen import Seen
from eval.protocols import _shots
from eval.protocols.base import Bench, Sets
from eval.tables import long_table
from shards.core import fs, registry
from shards.core.config import digest
from shards.core.console import counted, emit, say
from shards.core.errors import UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    from eval.datasets.base import Examples

_LISTED = 100  # undecodable images that a row names; it counts all
_SHOWN = 3
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
_OF_OTHERS = "for weights of another tool, or that `train export` wrote: --model with the name of their architecture"


def evaluate(config: EvalConfig) -> None:
    """Run one protocol on one set or several, and print the rows.

    What is cheap to check is checked first, of all sets: flags and files, then the data's labels, then the model; then images are read.

    Raises:
        UsageError: a checkpoint, data set or flag that does not fit; nothing is appended then.
    """
    protocol: Any = registry.get("eval.protocols", config.PROTOCOL)
    _check_flags(config)
    config = _with_file(config)
    protocol.prepare(config)
    configs = [replace(config, data=(path,)) for path in resolve(config)]
    if config.data_name and len(configs) > 1:
        raise UsageError(f"--data-name {config.data_name} for {len(configs)} sets", "one set, or the sets' own names")
    seen.check(config, trains=hasattr(config, "train"))
    opened = [_checked(protocol, part) for part in configs]
    loaded = _loaded(config)
    if getattr(protocol, "NEEDS_TEXT", False):
        loaded.embed_texts(["a"])  # refuses a model without text before any image is encoded
    if hasattr(protocol, "check_model"):
        protocol.check_model(config, loaded)  # before any image is encoded
    source = protocol.source(config, loaded) if hasattr(protocol, "source") else loaded
    encoder = Encoder(source, device_of(config.device), config.batch_size, config.workers, config.cache)
    builds = seen.builds_of(config, loaded)
    rows = []
    for part, (sets, examples) in zip(configs, opened, strict=True):
        in_training = seen.search(part, examples, builds, _trained_on(part, sets))  # before any image is encoded
        rows += _on(part, protocol, encoder, loaded, sets, examples, in_training)
    emit([asdict(row) for row in rows] if config.json else long_table([asdict(row) for row in rows]))
    say(f"{len(rows)} results appended to {config.results}")


def _checked(protocol: Any, config: EvalConfig) -> tuple[Sets, Examples]:
    """Open a set and let the protocol check it, as far as that is cheap."""
    sets = Sets(config)
    whole = protocol.open_data(config, sets) if hasattr(protocol, "open_data") else sets.open(config.path, config.classnames)
    limited = whole.limit(config.limit)
    protocol.check(config, sets, limited)
    return sets, limited


def _trained_on(config: EvalConfig, sets: Sets) -> list[Examples]:
    """Return the labelled set that a protocol trains on, where it is another one than the test set."""
    path = _shots.train_path(config) if isinstance(config, _shots.FewShot) else ""
    return [sets.open(path, config.classnames)] if path else []


def _on(
    config: EvalConfig, protocol: Any, encoder: Encoder, loaded: Any, sets: Sets, examples: Examples, in_training: Seen | None
) -> list[results.Row]:
    """Run the protocol on a set, append its rows, and tell what stands out."""
    bench = Bench(encoder, config, sets)
    test = bench.encode(examples)
    test = replace(test, examples=replace(test.examples, name=config.data_name)) if config.data_name else test
    rows = _rows(config, protocol, bench, loaded, test, in_training)
    for opened in sets.opened.values():
        _tell_of_set(opened)
    _tell_of_images(test, max((int(row.settings.get("overlap", 0)) for row in rows), default=0))
    return rows


def _rows(config: EvalConfig, protocol: Any, bench: Bench, loaded: Any, test: Encoded, in_training: Seen | None) -> list[results.Row]:
    """Run the protocol, keep its answers, and return its rows, which are appended; also those of a run that is stopped by then."""
    names = {"checkpoint": loaded.digest, "dataset": test.digest, "protocol": config.PROTOCOL, "protocol_version": protocol.VERSION}
    keeper = Keeper(config.results, config.predictions, {**names, "features_version": FEATURES})
    without = Without(in_training.contents) if in_training and config.without_overlap else None
    rest: Encoded | None = None  # its digest sorts all images: made once, for the first row that needs it
    rows: list[results.Row] = []
    try:
        for metric, score in protocol.run(config, bench, test):
            digests = keeper.keep(score.answers, score.k)
            stated = score.having(settings={**score.settings, **(in_training.settings if in_training else {})})
            rows.append(_row(config, protocol.VERSION, loaded, test, metric, stated.having(answers=()), digests))
            if in_training and without:
                left = without.score(metric, stated)
                if left is None:
                    why = "no image is left, or it is made of more than answers" if stated.answers else "no answers by image are kept"
                    note(1, f"[result has|results have] no row without overlap: {why}", metric)
                else:
                    rest = rest or in_training.left_of(test)
                    rows.append(_row_without(config, protocol.VERSION, loaded, rest, metric, left))
    except BaseException:  # hours of finished shots are worth keeping, whatever stops the next one
        if rows:
            _append(config, keeper, rows)
            say(f"{counted(len(rows), 'result')} of what was finished appended to {config.results}")
        raise
    return _append(config, keeper, rows)


def _append(config: EvalConfig, keeper: Keeper, rows: list[results.Row]) -> list[results.Row]:
    """Append rows, after their predictions are on disk, and return them; a row whose predictions are not kept names none."""
    keeper.finish()
    appended = [row if set(row.predictions) <= keeper.kept else replace(row, predictions=()) for row in rows]
    results.append(config.results, appended)
    return appended


def _check_flags(config: EvalConfig) -> None:
    """Refuse flags, and paths of the model and of what is written, without reading any of them.

    Raises:
        UsageError: one does not do.
    """
    from train import checkpoint

    if config.limit < 0 or config.batch_size < 1 or config.workers < 0:
        found = f"--limit {config.limit} --batch-size {config.batch_size} --workers {config.workers}"
        raise UsageError(found, "limit and workers from 0, batch size from 1")
    stated = [f"--{name.replace('_', '-')}" for name in ("image_size", "mean", "std") if getattr(config, name)]
    if stated and not config.model:
        raise UsageError(
            f"{', '.join(stated)} without --model: a checkpoint of ours has its own", "with --model, for weights of another tool"
        )
    results.check(config.results)
    if config.cache and fs.exists(config.cache) and not fs.is_dir(config.cache):
        raise UsageError(f"--cache {config.cache}: a file", "a folder, or a name that is free")
    device_of(config.device)
    if getattr(config, "features", "") == pixels.NAME:
        if config.checkpoint or config.model:
            raise UsageError(f"--features pixels with --checkpoint {config.checkpoint}", "either raw pixels or a model")
        return
    if not config.checkpoint:
        raise UsageError("no --checkpoint", "a checkpoint file, or a training's output folder", "--checkpoint PATH")
    if not config.model and not fs.exists(checkpoint.path_in(config.checkpoint)):
        there = fs.is_dir(config.checkpoint)
        found = f"{config.checkpoint}: a folder without {checkpoint.NAME}" if there else f"no checkpoint at {config.checkpoint!r}"
        raise UsageError(found, "a checkpoint file, or a training's output folder", _OF_OTHERS if there else "")


def _with_file(config: EvalConfig) -> EvalConfig:
    """Return the flags with a file where `--checkpoint` is a tag of open_clip's.

    Raises:
        UsageError: open_clip does not know the tag, or its file is not on this machine.
    """
    from train.models import tags

    looks_like_path = "/" in config.checkpoint or "." in config.checkpoint
    if not config.model or fs.exists(config.checkpoint) or (looks_like_path and not tags.known(config.model)):
        return config
    tag = tags.find(config.model, config.checkpoint)
    facts: dict[str, Any] = {
        "mean": config.mean or tag.mean,
        "std": config.std or tag.std,
        "name": config.name or f"{config.model} {config.checkpoint}",
    }
    return replace(config, checkpoint=tag.file, model=tag.model, **facts)


def _tell_of_set(examples: Examples) -> None:
    """Tell at the end what opening a set passed over, and classes of it without an image."""
    import numpy as np

    for count, what, where in examples.told:
        note(count, what, where)
    empty = np.flatnonzero(np.bincount(examples.labels, minlength=len(examples.classes)) == 0)
    where = "such as " + ", ".join(examples.classes[i] for i in empty[:_SHOWN])
    if len(empty) and examples.labels.min() == 1:
        where += "; no image has label 0: do the labels count from 1?"
    note(len(empty), f"of {len(examples.classes)} classes [has|have] no test image in {examples.name}", where)


def _tell_of_images(test: Encoded, overlap: int) -> None:
    """Tell at the end which test images did not count, count twice, or were trained on."""
    if test.undecodable:
        image, why = test.undecodable[0]
        note(len(test.undecodable), "[test image does|test images do] not decode and [does|do] not count", f"such as {image}: {why}")
    copies = test.examples.in_several_classes()
    if copies:
        first, other = (test.examples.ids[i] for i in copies[0])
        note(len(copies), "[picture stands|pictures stand] in several classes, byte for byte", f"such as {first} and {other}")
    note(overlap, "[test image is a training image|test images are training images] too, byte for byte")


def _loaded(config: EvalConfig) -> Any:
    """Return the model of a checkpoint of ours, or of another tool's where `--model` names its architecture; or raw pixels."""
    if getattr(config, "features", "") == pixels.NAME:
        return pixels.Pixels()
    if not config.model:
        from train.models.load import load_checkpoint

        try:
            return load_checkpoint(config.checkpoint, ema=config.ema)
        except UsageError as error:
            if "not a checkpoint of ours" not in error.found:
                raise
            raise UsageError(error.found, "a checkpoint that `train` wrote, or --model with weights of another tool", _OF_OTHERS) from error
    from train.models.elsewhere import load_foreign

    loaded = load_foreign(config.checkpoint, config.model, config.mean, config.std, config.image_size)
    kind = "two towers" if loaded.reads_text else "an image tower without text"
    normalised = ", ".join(f"{value:.3f}" for value in loaded.mean)
    say(f"{config.checkpoint}: {kind}, {loaded.image_size} pixels, means {normalised}; what it was trained on is unknown")
    return loaded


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


def _row(
    config: EvalConfig, version: int, loaded: Any, test: Encoded, metric: str, score: Score, predictions: tuple[str, ...]
) -> results.Row:
    settings = {**score.settings, "limit": config.limit, "protocol_version": version, "features_version": FEATURES}
    essence = digest({"protocol": score.protocol or config.PROTOCOL, "k": score.k, **settings})
    examples = test.examples
    if score.chance is not None:
        settings["chance"] = score.chance
    return results.Row(
        name=config.name or model_label(config.checkpoint) or pixels.NAME,
        data=examples.name,
        protocol=score.protocol or config.PROTOCOL,
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
        config=essence,
        settings=settings,
        predictions=predictions,
        labels=_labels(config, loaded),
        undecodable=test.undecodable[:_LISTED],
    )


def _row_without(config: EvalConfig, version: int, loaded: Any, test: Encoded, metric: str, score: Score) -> results.Row:
    """Return a row over the test images that no training data hold: of another set, as its name and its settings say."""
    marked = score.having(settings={**score.settings, "without_overlap": True}, answers=())
    row = _row(config, version, loaded, test, metric, marked, ())
    return replace(row, data=f"{row.data} without overlap")


def _labels(config: EvalConfig, loaded: Any) -> dict[str, Any]:
    """Return what `--label` says of the model, numbers as numbers, and that a model of another tool was trained on unknown data."""
    labels = {key: _number(value) for key, value in config.label.items()}
    return labels if loaded.config.get("provenance") != "unknown" else {"data": "unknown", **labels}


def _number(text: Any) -> Any:
    """Return a label as a number where it is written as one; 01, 1_000 and nan stay text."""
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)


def model_label(path: str) -> str:
    """Return what tables call a checkpoint: its training's folder, with the file's name where that is not the usual one."""
    from train.checkpoint import NAME

    folder, _, file = path.rstrip("/").rpartition("/")
    if file == NAME and folder:
        return label_of(folder)
    return f"{label_of(folder)}/{file.removesuffix('.pt')}" if folder and file.endswith(".pt") else file.removesuffix(".pt")
