"""Oxford Flowers: 102 kinds of flowers; 1,020 images train, 1,020 validate, 6,149 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import PER_CLASS, TEST, TRAIN, VAL, check_split
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily", "moon orchid",
    "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea", "spear thistle", "yellow iris",
    "globe flower", "purple coneflower", "peruvian lily", "balloon flower", "giant white arum lily", "fire lily",
    "pincushion flower", "fritillary", "red ginger", "grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian",
    "artichoke", "sweet william", "carnation", "garden phlox", "love in the mist", "mexican aster", "alpine sea holly",
    "ruby-lipped cattleya", "cape flower", "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil",
    "sword lily", "poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion",
    "petunia", "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink and yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush", "californian poppy",
    "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania", "azalea", "water lily", "rose",
    "thorn apple", "morning glory", "passion flower", "lotus", "toad lily", "anthurium", "frangipani", "clematis", "hibiscus",
    "columbine", "desert-rose", "tree mallow", "magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm",
    "air plant", "foxglove", "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower",
    "trumpet creeper", "blackberry lily",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}, a type of flower.",
)  # fmt: skip
METRIC = PER_CLASS
LAYOUT = "jpg/image_00001.jpg (102flowers.tgz), imagelabels.mat and setid.mat"
_SETS = {TRAIN: "trnid", VAL: "valid", TEST: "tstid"}


def splits(path: str) -> list[str]:
    """Return the official splits."""
    _root(path)
    return [TRAIN, VAL, TEST]


def load(path: str, split: str) -> Examples:
    """Read one of them.

    Raises:
        UsageError: no such split, no such files, or classes in another order.
        TornFileError: a list is not of its published shape.
    """
    check_split(splits(path), path, split)
    import numpy as np

    root = _root(path)
    labels_file, sets_file = f"{root}/imagelabels.mat", f"{root}/setid.mat"
    labels = np.atleast_1d(_layout.variable(_layout.read_mat(labels_file), labels_file, "labels"))
    numbers = np.atleast_1d(_layout.variable(_layout.read_mat(sets_file), sets_file, _SETS[split])).astype(int).tolist()
    if numbers and not 1 <= min(numbers) <= max(numbers) <= len(labels):
        raise TornFileError(f"{sets_file}: images {min(numbers)} … {max(numbers)}", f"1 … {len(labels)}, those of imagelabels.mat")
    names = [f"image_{number:05d}.jpg" for number in numbers]
    items = [_layout.Item(name, f"{root}/jpg/{name}", int(labels[n - 1]) - 1) for n, name in zip(numbers, names, strict=True)]
    return _layout.examples("flowers102", items, CLASSES, TEMPLATES, METRIC)


def _root(path: str) -> str:
    return _layout.root_of(path, LAYOUT, ("jpg", "imagelabels.mat", "setid.mat"), ("flowers-102", "oxford_flowers"))
