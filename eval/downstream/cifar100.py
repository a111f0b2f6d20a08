"""CIFAR-100: 100 everyday things and animals at 32 pixels; 50,000 train, 10,000 test. Shifted: CIFAR-100-C, corrupted."""

from __future__ import annotations

from eval.downstream._cifar import SHIFTS, Cifar

__all__ = ["CLASSES", "LAYOUT", "METRIC", "SHIFTS", "TEMPLATES", "load", "splits"]

CLASSES = (
    "apple", "aquarium fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy", "bridge", "bus",
    "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn mower", "leopard", "lion", "lizard", "lobster", "man", "maple tree", "motorcycle",
    "mountain", "mouse", "mushroom", "oak tree", "orange", "orchid", "otter", "palm tree", "pear", "pickup truck", "pine tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark",
    "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet pepper", "table",
    "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow tree",
    "wolf", "woman", "worm",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}.", "a blurry photo of a {c}.", "a black and white photo of a {c}.", "a low contrast photo of a {c}.",
    "a high contrast photo of a {c}.", "a bad photo of a {c}.", "a good photo of a {c}.", "a photo of a small {c}.",
    "a photo of a big {c}.", "a photo of the {c}.", "a blurry photo of the {c}.", "a black and white photo of the {c}.",
    "a low contrast photo of the {c}.", "a high contrast photo of the {c}.", "a bad photo of the {c}.", "a good photo of the {c}.",
    "a photo of the small {c}.", "a photo of the big {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "cifar-100-python/{train,test,meta}, as cifar-100-python.tar.gz unpacks; CIFAR-100-C/*.npy beside it for corruptions"


SET = Cifar(
    name="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
    corrupted="CIFAR-100-C",
    classes=CLASSES,
    templates=TEMPLATES,
    metric=METRIC,
    layout=LAYOUT,
)
splits, load = SET.splits, SET.load
