"""CIFAR-10: ten animals and vehicles at 32 pixels; 50,000 train, 10,000 test. Shifted: CIFAR-10-C, corrupted."""

from __future__ import annotations

from eval.downstream._cifar import SHIFTS, Cifar

__all__ = ["CLASSES", "LAYOUT", "METRIC", "SHIFTS", "TEMPLATES", "load", "splits"]

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}.", "a blurry photo of a {c}.", "a black and white photo of a {c}.", "a low contrast photo of a {c}.",
    "a high contrast photo of a {c}.", "a bad photo of a {c}.", "a good photo of a {c}.", "a photo of a small {c}.",
    "a photo of a big {c}.", "a photo of the {c}.", "a blurry photo of the {c}.", "a black and white photo of the {c}.",
    "a low contrast photo of the {c}.", "a high contrast photo of the {c}.", "a bad photo of the {c}.", "a good photo of the {c}.",
    "a photo of the small {c}.", "a photo of the big {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "cifar-10-batches-py/{data_batch_1 … 5,test_batch,batches.meta}, as cifar-10-python.tar.gz unpacks; CIFAR-10-C/*.npy beside it"


SET = Cifar(
    name="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    labels="labels",
    names="label_names",
    corrupted="CIFAR-10-C",
    classes=CLASSES,
    templates=TEMPLATES,
    metric=METRIC,
    layout=LAYOUT,
)
splits, load = SET.splits, SET.load
