"""Sets that are published as class folders without an official split: a rule makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.downstream import _layout
from eval.downstream.base import Rule, check_split

if TYPE_CHECKING:
    from eval.datasets.base import Examples


@dataclass(frozen=True)
class Folders:
    """One such set. `folders` are the class folders in label order, `inner` the folders that archives unpack to."""

    rule: Rule
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    metric: str
    layout: str
    inner: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def splits(self, path: str) -> list[str]:
        """Return the splits that the rule makes.

        Raises:
            UsageError: the class folders are not there.
        """
        self._root(path)
        return self.rule.splits()

    def load(self, path: str, split: str) -> Examples:
        """Read one of them.

        Raises:
            UsageError: no such split, a class folder that is missing or empty, or one that is no class.
        """
        check_split(self.splits(path), path, split)
        items = _layout.class_folders(self._root(path), self.folders, self.layout, self.beside)
        chosen = _layout.by_rule(items, self.rule, split)
        return _layout.examples(self.rule.name, chosen, self.classes, self.templates, self.metric)

    def _root(self, path: str) -> str:
        return _layout.root_of(path, self.layout, self.folders[:1], self.inner)
