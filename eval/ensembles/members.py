"""Which rows of a table are members of one ensemble: of one pre-trained model (local), of several (global), or all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from eval import metrics
from eval.predictions import Predictions, aligned, read
from shards.core.errors import UsageError
from shards.core.notices import note

if TYPE_CHECKING:
    import numpy as np

Entry = dict[str, Any]
Kind = Literal["local", "global", "all"]
_NUDGE = 1e-6  # float16 near 0 is finer than that: logits that rounding has made equal were nearer to each other


@dataclass(frozen=True, eq=False)
class Member:
    """One model's answers, once for each draw of the shots, and the row that names them."""

    row: Entry
    draws: tuple[Predictions, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Members of one ensemble.

    Attributes:
        number: which of several groups of its kind this is, from 1.
        skipped: images that not all members have answered.
    """

    kind: Kind
    number: int
    members: tuple[Member, ...]
    skipped: int = 0

    @property
    def rows(self) -> list[Entry]:
        """The members' rows."""
        return [member.row for member in self.members]


def candidates(rows: Sequence[Entry]) -> list[Entry]:
    """Return one row for each evaluation whose answers are kept and are logits of a softmax: that of acc1.

    An evaluation whose scores are no such logits (kNN, sigmoid losses) has no nll, and cannot be averaged with others. An evaluation that
    stands in the table twice under one protocol counts once.
    """
    probabilistic = {_evaluation(row) for row in rows if row.get("metric") == "nll"}
    kept: dict[tuple[str, ...], Entry] = {}
    unkept = 0
    for row in rows:
        if row.get("metric") != "acc1":
            continue
        if not row.get("predictions"):
            unkept += 1
        elif _evaluation(row) in probabilistic:
            kept[(str(row["protocol"]), *row["predictions"])] = row
    note(unkept, "[evaluation keeps|evaluations keep] no answers by image and cannot be [a member|members]")
    scoreless = {_evaluation(row) for row in rows if row.get("metric") == "acc1" and row.get("predictions")} - probabilistic
    note(len(scoreless), "[evaluation has|evaluations have] scores that are no logits of a softmax, and cannot be [a member|members]")
    return list(kept.values())


def _evaluation(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row.get("predictions") or ())


def together(rows: Sequence[Entry], *, by_draw: bool) -> list[list[Entry]]:
    """Return the rows of one set, classes, protocol and number of shots together, in the order of the table.

    Raises:
        UsageError: with `by_draw`, rows of unlike numbers of draws.
    """
    gathered: dict[str, list[Entry]] = {}
    for row in rows:
        place = json.dumps([row.get(field) for field in ("data", "dataset", "classes", "protocol", "k")])
        gathered.setdefault(place, []).append(row)
    for group in gathered.values():
        counts = sorted({len(row["predictions"]) for row in group})
        if by_draw and len(counts) > 1:
            where = f"{group[0]['data']}, {group[0]['protocol']}, k {group[0]['k']}"
            raise UsageError(f"members with {', '.join(map(str, counts))} draws of the shots ({where})", "one number", "--where seeds=N")
    return list(gathered.values())


def groups(rows: Sequence[Entry], kind: Kind, results: str, *, by_draw: bool) -> list[Group]:
    """Return the ensembles of rows of one set, protocol and number of shots.

    `local` has a group for each pre-trained checkpoint: all its members. `global` has a group for each j: the j-th member of every
    checkpoint. `all` has one group.

    Args:
        results: the table, beside which answers are kept.
        by_draw: the draws of the shots stay apart: each member counts once, and ensembles are made draw by draw. Otherwise each draw is a
            member of its own.

    Raises:
        UsageError: fewer than two members, or members without a common image.
    """
    by_checkpoint: dict[str, list[Member]] = {}
    for row in rows:
        by_checkpoint.setdefault(str(row["checkpoint"]), []).extend(_members(row, results, by_draw=by_draw))
    pools = list(by_checkpoint.values())
    if kind == "local":
        chosen = pools
    elif kind == "global":
        chosen = [[pool[at] for pool in pools] for at in range(min(map(len, pools)))]
        note(
            sum(map(len, pools)) - len(pools) * len(chosen),
            "[member|members] of a checkpoint [has|have] no fellow in every other one, and [is|are] left out",
        )
    else:
        chosen = [[member for pool in pools for member in pool]]
    whole = [members for members in chosen if len(members) > 1]
    note(len(chosen) - len(whole), f"{kind} ensembles have one member alone, and are left out", f"such as {chosen[0][0].row['name']}")
    return [_on_common_images(Group(kind, number, tuple(members))) for number, members in enumerate(whole, start=1)]


def _members(row: Entry, results: str, *, by_draw: bool) -> list[Member]:
    draws = tuple(_settled(read(results, digest)) for digest in row["predictions"])
    return [Member(row, draws)] if by_draw else [Member(row, (draw,)) for draw in draws]


def _settled(kept: Predictions) -> Predictions:
    """Return answers whose logits say what their ranks say, too: rounding to float16 can make the true class equal to another one."""
    import numpy as np

    right = metrics.ranks(kept.logits, kept.labels) == 0
    wrongly = np.flatnonzero(right != kept.correct())
    if not len(wrongly):
        return kept
    logits = kept.logits.copy()
    logits[wrongly, kept.labels[wrongly]] += np.where(right[wrongly], -_NUDGE, _NUDGE)
    return Predictions(kept.uids, kept.labels, kept.ranks, logits, kept.meta)


def _on_common_images(group: Group) -> Group:
    """Return a group whose members have answered the same images in one order."""
    flat = [draw for member in group.members for draw in member.draws]
    ordered = aligned(flat)
    skipped = max(map(len, flat)) - len(ordered[0])
    note(skipped, "images are not answered by all members of an ensemble, and do not count", group.members[0].row["data"])
    members, at = [], 0
    for member in group.members:
        members.append(Member(member.row, tuple(ordered[at : at + len(member.draws)])))
        at += len(member.draws)
    return Group(group.kind, group.number, tuple(members), skipped)


def logits_of(group: Group, draw: int) -> list[np.ndarray]:
    """Return the members' logits of a draw, (n, classes) each."""
    return [member.draws[draw].logits for member in group.members]


def answers_of(group: Group, draw: int) -> np.ndarray:
    """Return the classes that the members answer in a draw, (M, n)."""
    import numpy as np

    return np.stack([logits.argmax(axis=1) for logits in logits_of(group, draw)])
