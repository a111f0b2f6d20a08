"""Quick starts: what a process of ours need not import, and what it imports while it would only wait."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any


def spare_pandas() -> None:
    """Keep pyarrow, where it is imported, from importing pandas (a quarter second, 50 MB).

    It does so at the first list it is given, only to know a pandas object when it meets one. Whatever imports pandas
    itself still has both work together.
    """
    if "pyarrow" in sys.modules and "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)  # type: ignore[arg-type]
        try:
            sys.modules["pyarrow"].array([])
        finally:
            sys.meta_path.remove(_NoPandas)  # type: ignore[arg-type]


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def load(modules: Iterable[str]) -> None:
    """Import modules that will be needed, at a moment when another process is at work."""
    for name in modules:
        importlib.import_module(name)
    spare_pandas()
