"""`evaluate ensemble`: what several models are worth together, from the answers that a table of results keeps; no model is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from eval import metrics, predictions, results
from eval.config import RESULTS, EvalConfig
from eval.ensembles import diversity, members, softmax
from eval.ensembles.members import Entry, Group
from eval.fields import where
from eval.gather import common_name
from eval.metrics import Score
from eval.tables import long_table
from shards.core.config import digest, option
from shards.core.console import Progress, emit, say
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
PROTOCOL = "ensemble"
_LOWEST = -60_000.0  # as in `predictions.from_scores`: float16 ends at -65,504


@dataclass(frozen=True)
class EnsembleConfig:
    """Flags of `evaluate ensemble`."""

    results: str = option(RESULTS, "table of results whose rows keep answers by image", positional=True, metavar="RESULTS")
    kind: Literal["local", "global", "all"] = option(
        "local",
        "local: members of one pre-trained checkpoint, an ensemble for each; global: one of each checkpoint, an ensemble for each place in"
        " the table; all: one ensemble of everything",
    )
    names: tuple[str, ...] = option((), "only models of these names", metavar="NAME")
    where: dict[str, Any] = option({}, "only rows with this value, or one of several separated by commas, such as source=redcaps k=5")
    protocol: str = option("", "only this protocol, such as ft")
    draws: Literal["apart", "members"] = option(
        "apart", "draws of the shots: apart, an ensemble in each draw; or members, which have then seen different images"
    )
    most: int = option(softmax.MOST_SUBSETS, "at most so many subsets of the members of a size", least=1)
    checkpoints: tuple[str, ...] = option((), "with --data: checkpoints whose features are compared (linear CKA)", metavar="PATH")
    data: str = option("", "with --checkpoints: the labelled set whose images they see", metavar="PATH")
    limit: int = option(0, "with --checkpoints: N images only, drawn by hash; 0 takes all", least=0)
    device: str = option("auto", "with --checkpoints: cpu, cuda, or auto", metavar="NAME")
    name: str = option("", "what to call the ensembles in tables; what their members' names begin with alike where not given")
    strict: bool = option(False, "exit 1 where a row or an image was left out")
    json: bool = option(False, "print JSON")


def show(config: EnsembleConfig) -> None:
    """Append ensembles' metrics by number of members and the members' diversity to the table, and print them.

    Raises:
        UsageError: nothing to combine, answers that are not kept, or flags that do not fit.
    """
    if bool(config.checkpoints) != bool(config.data) or len(config.checkpoints) == 1:
        raise UsageError("--checkpoints and --data: one without the other, or one checkpoint alone", "two checkpoints or more, with --data")
    results.check(config.results)
    rows = where([row for row in results.read(config.results) if _wanted(row, config)], config.where)
    mains = {(row["data"], row["dataset"]): row["metric"] for row in rows if row.get("main")}
    by_draw = config.draws == "apart"
    ensembles = [
        group
        for gathered in members.together(members.candidates(rows), by_draw=by_draw)
        for group in members.groups(gathered, config.kind, config.results, by_draw=by_draw)
    ]
    if not ensembles:
        found = f"{config.results}: no {config.kind} ensemble of two members or more among {len(rows)} rows"
        raise UsageError(found, "rows of one set, protocol and number of shots, with answers", "--kind all, or other --where")
    made: list[results.Row] = []
    with Progress("ensembles", sum(len(group.members) for group in ensembles), "sizes") as progress:
        for group in ensembles:
            for row in rows_of(group, config, mains):
                made.append(row)
                progress.add(int(row.metric == "acc1"))
    made += [_similar(config, made[0])] if config.checkpoints else []
    results.append(config.results, made)
    emit([asdict(row) for row in made] if config.json else long_table([asdict(row) for row in made]))
    say(f"{len(made)} results of {len(ensembles)} ensembles appended to {config.results}")


def _wanted(row: Mapping[str, Any], config: EnsembleConfig) -> bool:
    """Return whether a row is asked for; those of ensembles and soups, which have members themselves, are no members."""
    named = not config.names or row["name"] in config.names
    return named and config.protocol in ("", row["protocol"]) and "members" not in (row.get("settings") or {})


def rows_of(group: Group, config: EnsembleConfig, mains: Mapping[tuple[str, str], str]) -> Iterator[results.Row]:
    """Yield the rows of an ensemble: metrics for 1 … M members, then diversity.

    Args:
        mains: the main metric of each set, by its name and digest.
    """
    first = group.members[0]
    main = mains.get((first.row["data"], first.row["dataset"]), "acc1")
    size_of_all = len(group.members)
    for size in range(1, size_of_all + 1):
        chosen = softmax.subsets(size_of_all, size, config.most)
        settings = {"subsets": len(chosen), "rule": "all" if len(chosen) < config.most else f"at most {config.most}"}
        kept = _kept(group, config.results) if size == size_of_all else ()
        for metric, score in _over_draws(group, size, config.most).items():
            yield _row(group, config, metric, score, {"members": size, **settings}, main == metric, kept)
    for metric, score in _diversities(group).items():
        yield _row(group, config, metric, score, {"members": size_of_all}, False, ())


def _over_draws(group: Group, size: int, most: int) -> dict[str, Score]:
    """Return the metrics of ensembles of a size: of the only draw, or their means over draws."""
    draws = range(len(group.members[0].draws))
    labels = group.members[0].draws[0].labels
    scored = [softmax.scores(members.logits_of(group, draw), labels, size, most) for draw in draws]
    if len(scored) == 1:
        return scored[0]  # one evaluation, whose intervals are over test images
    return {metric: metrics.over_runs([draw[metric] for draw in scored], metric) for metric in scored[0]}


def _diversities(group: Group) -> dict[str, Score]:
    """Return the members' diversity: its mean over pairs, and over draws."""
    draws = range(len(group.members[0].draws))
    labels = group.members[0].draws[0].labels
    measured = [diversity.between(members.answers_of(group, draw), labels) for draw in draws]
    scored = {}
    for metric in diversity.METRICS:
        values = [draw[metric] for draw in measured if metric in draw]
        if values:
            undefined = sum(value.undefined for value in values)
            score = metrics.over_runs([Score(value.value) for value in values], metric)
            pairs = {f"{i + 1}-{j + 1}": round(value, 6) for (i, j), value in values[0].pairs.items()}
            scored[metric] = score.having(n=len(labels), settings={"pairs": pairs, "undefined_pairs": undefined})
    return scored


def _kept(group: Group, table: str) -> tuple[str, ...]:
    """Keep the answers of all members together, beside the table; return their digests, one for each draw."""
    digests = []
    for draw in range(len(group.members[0].draws)):
        parts = [member.draws[draw] for member in group.members]
        logits = softmax.mean_softmax([part.logits for part in parts])
        meta = {**_alike([part.meta for part in parts]), "protocol": PROTOCOL, "members": [part.digest for part in parts]}
        digests.append(predictions.write(table, _as_kept(parts[0], logits, meta)))
    return tuple(digests)


def _as_kept(like: predictions.Predictions, logits: np.ndarray, meta: dict[str, Any]) -> predictions.Predictions:
    import numpy as np

    below = np.maximum(logits - logits.max(axis=1, keepdims=True), _LOWEST)
    return replace(like, ranks=metrics.ranks(logits, like.labels), logits=below.astype(np.float32), meta=meta)


def _alike(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that all entries have alike."""
    return {key: value for key, value in entries[0].items() if all(key in entry and entry[key] == value for entry in entries)}


def _row(
    group: Group, config: EnsembleConfig, metric: str, score: Score, more: Mapping[str, Any], main: bool, kept: tuple[str, ...]
) -> results.Row:
    rows = group.rows
    first = rows[0]
    same = _alike(rows)
    settings: Entry = {
        **_alike([row["settings"] for row in rows]),
        "kind": group.kind,
        "of_protocol": first["protocol"],
        "of": len(rows),
        "draws": config.draws,
        **more,
        **score.settings,
        "protocol_version": VERSION,
    }
    for found_of_one in ("chance", "val", "acc1_by_lr", "acc1_by_alpha"):
        settings.pop(found_of_one, None)
    if group.kind != "all":
        settings["group"] = group.number
    essence = digest({"protocol": PROTOCOL, "k": first["k"], "members": [row["predictions"] for row in rows], **settings})
    if score.chance is not None:
        settings["chance"] = score.chance
    if group.skipped:
        settings["images_skipped"] = group.skipped
    return results.Row(
        name=config.name or common_name([str(row["name"]) for row in rows]),
        data=first["data"],
        protocol=PROTOCOL,
        metric=metric,
        main=main,
        value=score.value,
        low=score.low,
        high=score.high,
        interval=score.interval,
        k=first["k"],
        n=score.n,
        n_undecodable=int(first["n_undecodable"]),
        n_classes=int(first["n_classes"]),
        runs=score.runs,
        checkpoint=same.get("checkpoint", ""),
        step=same.get("step", 0),
        samples_seen=same.get("samples_seen", 0),
        manifests=tuple(_manifests(rows)),
        train_config=same.get("train_config", ""),
        dataset=first["dataset"],
        classes=first["classes"],
        config=essence,
        settings=settings,
        predictions=kept,
        labels=_alike([row["labels"] for row in rows]),
    )


def _manifests(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the builds that any member was pre-trained on, each once."""
    by_digest = {str(manifest.get("digest")): manifest for row in rows for manifest in row.get("manifests") or ()}
    return list(by_digest.values())


def _similar(config: EnsembleConfig, like: results.Row) -> results.Row:
    """Return the row of the mean linear CKA between the features of `--checkpoints` on the images of `--data`."""
    from eval.features import Encoder
    from eval.protocols.base import Sets
    from eval.run import device_of, model_label
    from train.models.load import load_checkpoint

    examples = Sets(EvalConfig(data=(config.data,))).open(config.data).limit(config.limit)
    device = device_of(config.device)
    loaded = [load_checkpoint(path) for path in config.checkpoints]
    encoded = [Encoder(model, device).encode(examples) for model in loaded]
    alike = diversity.cka([part.features for part in encoded])
    pairs = {f"{i + 1}-{j + 1}": round(value, 6) for (i, j), value in alike.pairs.items()}
    labels = [model_label(path) for path in config.checkpoints]
    settings = {"members": len(loaded), "pairs": pairs, "checkpoints": [model.digest for model in loaded], "protocol_version": VERSION}
    return replace(
        like,
        name=config.name or common_name(labels),
        data=examples.name,
        metric="cka",
        main=False,
        value=alike.value,
        low=None,
        high=None,
        interval="",
        k=None,
        n=len(encoded[0].examples),
        n_classes=len(examples.classes),
        runs=(),
        checkpoint="",
        step=0,
        samples_seen=0,
        manifests=tuple({str(m.get("digest")): m for model in loaded for m in model.manifests}.values()),
        train_config="",
        dataset=encoded[0].digest,
        classes=examples.class_digest,
        config=digest({"protocol": PROTOCOL, **settings}),
        settings=settings,
        predictions=(),
        labels={},
    )
