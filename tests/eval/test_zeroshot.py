"""The zero-shot head against a naive loop over prompts, and the scores it gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from eval.data import open_examples
from eval.features import Encoded, Encoder
from eval.protocols.base import Bench
from eval.protocols.zeroshot import Config, build_head, run
from shards.core.errors import RunError, UsageError
from train.models.load import Loaded, load_checkpoint

TEMPLATES = ("a photo of a {c}.", "a drawing of the {c}", "{}")


@pytest.fixture(scope="module")
def loaded(checkpoint_file: str) -> Loaded:
    return load_checkpoint(checkpoint_file)


def naive_head(loaded: Loaded, classes: tuple[str, ...]) -> np.ndarray:
    columns = []
    for name in classes:
        total = torch.zeros(())
        for template in TEMPLATES:
            text = template.replace("{c}", name.replace("_", " ")).replace("{}", name.replace("_", " "))
            with torch.inference_mode():
                feature = loaded.model.encode_text(loaded.tokenize([text]))[0]
            total = total + feature / feature.norm()
        mean = total / len(TEMPLATES)
        columns.append((mean / mean.norm()).numpy())
    return np.stack(columns, axis=1)


def test_head_is_that_of_a_loop(loaded: Loaded) -> None:
    classes = tuple(f"thing_{i}" for i in range(7))
    head = build_head(loaded, classes, TEMPLATES, batch=5)  # batches end inside a class
    assert head.weights == pytest.approx(naive_head(loaded, classes), abs=1e-5)
    assert np.linalg.norm(head.weights, axis=0) == pytest.approx(1, abs=1e-6)
    assert head.class_digest != build_head(loaded, classes[::-1], TEMPLATES).class_digest


def bench_on(loaded: Loaded, path: str) -> tuple[Config, Bench]:
    config = Config(checkpoint="", data=path)
    return config, Bench(Encoder(loaded), config)


def test_features_that_lie_on_the_heads_columns_are_all_right(loaded: Loaded, class_folders: str) -> None:
    config, bench = bench_on(loaded, class_folders)
    examples = open_examples(class_folders)
    head = build_head(loaded, examples.classes, examples.templates)
    perfect = Encoded(examples, head.weights.T[examples.labels].copy(), "")
    scores = dict(run(config, bench, perfect))
    assert list(scores) == ["acc1", "mean_per_class", "nll", "ece", "brier"]  # acc5 says nothing about three classes
    assert scores["acc1"].value == scores["mean_per_class"].value == 1
    assert scores["acc1"].n == 24
    turned = dataclasses.replace(perfect, features=head.weights.T[(examples.labels + 1) % 3].copy())
    assert dict(run(config, bench, turned))["acc1"].value == 0


def test_a_set_without_names_is_refused(loaded: Loaded, class_folders: str) -> None:
    config, bench = bench_on(loaded, class_folders)
    unnamed = dataclasses.replace(open_examples(class_folders), named=False)
    with pytest.raises(UsageError, match="does not name its 3 classes"):
        list(run(config, bench, Encoded(unnamed, np.zeros((24, 4), np.float32), "")))


def test_a_diverged_model_is_no_perfect_one(checkpoint_file: str, class_folders: str) -> None:
    broken = load_checkpoint(checkpoint_file)
    with torch.no_grad():
        for parameter in broken.model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(RunError, match="text features that are no finite numbers"):
        build_head(broken, ("a", "b"), TEMPLATES)
    with pytest.raises(RunError, match="image features that are no finite numbers"):
        Encoder(broken).encode(open_examples(class_folders))
