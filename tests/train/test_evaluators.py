"""Evaluation during training: sets are opened before the first step, and an evaluation that fails costs none."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from shards.core.errors import RunError, UsageError
from tests.train import runs
from train import evaluators, loop

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]
SCORES: list[float] = []  # what `scored` returns, one after the other; it fails when there are no more


def scored(loaded: Any, data: list[str], device: str) -> dict[str, float]:
    """Be an evaluator as another package may have it, without `check`."""
    if not SCORES:
        raise RunError("no more scores")
    return {"score": SCORES.pop(0)}


def labelled(folder: Path, template: str = "a photo of a {c}.", names: str = "red\nblue\n") -> str:
    """Write a set of two pictures as WebDataset tars and return its path."""
    (folder / "test").mkdir(parents=True)
    if names:
        (folder / "classnames.txt").write_text(names)
    (folder / "zeroshot_classification_templates.txt").write_text(template + "\n")
    with webdataset.TarWriter(str(folder / "test" / "0.tar")) as writer:
        for label, colour in enumerate(("red", "blue")):
            picture = io.BytesIO()
            Image.new("RGB", (32, 32), colour).save(picture, "PNG")
            writer.write({"__key__": f"s{label}", "png": picture.getvalue(), "cls": str(label).encode()})
    return str(folder / "test")


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        ("clip", None, "no data at"),
        ("clip", {"template": "a photo"}, "template 'a photo' has no place for the class name"),
        ("clip", {"names": ""}, "does not name its 2 classes"),
        ("simclr", {}, "--eval-protocol zeroshot with train simclr, which reads no text"),
    ],
)
def test_a_set_of_no_use_is_refused_before_the_first_step(
    is_dry: bool, task: str, options: dict[str, str] | None, told: str, make_shards: MakeShards, tmp_path: Path
) -> None:
    path = str(tmp_path / "absent") if options is None else labelled(tmp_path / "set", **options)
    with pytest.raises(UsageError, match=told):
        loop.train(runs.config(task, make_shards(20), tmp_path / "run", eval_data=(path,), dry_run=is_dry, measure=False))
    assert not (tmp_path / "run").exists()


def test_a_set_of_use_is_evaluated(make_shards: MakeShards, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert loop.train(runs.config("clip", make_shards(20), out, eval_data=(labelled(tmp_path / "set"),), epochs=1.0)) == 0
    best = runs.state(out)["best"]
    assert (best["step"], best["name"]) == (2, "zeroshot/set/test/acc1")
    assert runs.state(out, "best.pt")["best"] == best


def test_steps_are_saved_before_an_evaluation_and_the_best_after(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("scored", f"{__name__}:scored", evaluators.GROUP)
    monkeypatch.setattr(evaluators, "entry_points", lambda group: [point])
    options = {"eval_data": ("any",), "eval_protocol": "scored", "eval_every": 1, "samples_seen": 5 * 16, "keep": 1}
    build, out = make_shards(20), tmp_path / "run"
    SCORES[:] = [0.5, 0.7, 0.6]
    with pytest.raises(RunError, match="no more scores"):
        loop.train(runs.config("clip", build, out, **options))
    best = {"step": 2, "value": 0.7, "name": "score"}
    assert runs.state(out)["step"] == 4
    assert runs.state(out)["best"] == runs.state(out, "best.pt")["best"] == best
    assert runs.state(out, "best.pt")["step"] == 2
    SCORES[:] = [0.9]
    assert loop.train(runs.config("clip", build, out, **options)) == 0
    best = {"step": 5, "value": 0.9, "name": "score"}
    for name in ("checkpoint.pt", "checkpoint-000000005.pt", "best.pt"):
        assert runs.state(out, name)["best"] == best
