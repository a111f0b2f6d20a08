"""What most tests of a training share: small models that open_clip knows, and one thread to compute with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.train import runs


@pytest.fixture(scope="session")
def micro_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make `micro-rn` and `micro-vit` known."""
    runs.know_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread for the length of a test."""
    with runs.one_thread():
        yield
