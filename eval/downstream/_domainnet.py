"""DomainNet: lists of images and labels, two for each of six domains; a domain's test set has the other domains' as shifted twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from shards.core import fs
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    from eval.datasets.base import Examples

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
CLASSES = 345
LAYOUT = (
    "DOMAIN/CLASS/*.jpg (DOMAIN.zip unpacked) and the lists DOMAIN_train.txt and DOMAIN_test.txt beside the folders; "
    "of clipart and painting the cleaned ones"
)


@dataclass(frozen=True)
class Domain:
    """One domain as a data set."""

    domain: str
    templates: tuple[str, ...]
    metric: str

    @property
    def shifts(self) -> dict[str, str]:
        """The other domains' test sets, each a split of the domain's name."""
        return {name: f"the test images of the domain {name}" for name in DOMAINS if name != self.domain}

    def splits(self, path: str) -> list[str]:
        """Return train and test, and the other domains that are there.

        Raises:
            UsageError: the domain's lists or images are not there.
        """
        root = self._root(path)
        others = [name for name in self.shifts if fs.exists(fs.join(root, f"{name}_test.txt")) and fs.is_dir(fs.join(root, name))]
        return [TRAIN, TEST, *others]

    def load(self, path: str, split: str) -> Examples:
        """Read one of them. The class names are the folders that the domain's training list names.

        Raises:
            UsageError: no such split, or no such files.
            TornFileError: a list gives a label two names, or not all labels.
        """
        check_split(self.splits(path), path, split)
        root = self._root(path)
        classes = _names(fs.join(root, f"{self.domain}_{TRAIN}.txt"))
        listed = fs.join(root, f"{split}_{TEST}.txt" if split in self.shifts else f"{self.domain}_{split}.txt")
        items = [_layout.Item(name, fs.join(root, name), label) for name, label in _layout.pairs(listed)]
        for item in items:
            _check(listed, item.id, item.label, classes)
        return _layout.examples(f"domainnet_{self.domain}", items, classes, self.templates, self.metric)

    def _root(self, path: str) -> str:
        needed = (self.domain, f"{self.domain}_{TRAIN}.txt", f"{self.domain}_{TEST}.txt")
        return _layout.root_of(path, LAYOUT, needed, ("domainnet", "DomainNet"))


def _names(listed: str) -> tuple[str, ...]:
    """Return the class names of a training list, in label order."""
    names: dict[int, str] = {}
    for name, label in _layout.pairs(listed):
        names.setdefault(label, name.split("/")[-2] if "/" in name else "")
    if sorted(names) != list(range(CLASSES)):
        raise TornFileError(f"{listed}: {len(names)} labels", f"0 … {CLASSES - 1}, each with an image", "a whole list, as it is published")
    return tuple(names[label] for label in range(CLASSES))


def _check(listed: str, name: str, label: int, classes: tuple[str, ...]) -> None:
    folder = name.split("/")[-2] if "/" in name else ""
    if label >= CLASSES or classes[label] != folder:
        known = classes[label] if label < CLASSES else f"labels up to {CLASSES - 1}"
        raise TornFileError(f"{listed}: {name} has label {label}", f"{known}, as in the training list")
