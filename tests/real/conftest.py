"""Where the real sample lies: `PROVENDER_REALDATA`, else `../shared/realdata` beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from photo_server import Photos


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of the real-data sample; tests are skipped where it is not."""
    checkout = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("PROVENDER_REALDATA") or checkout.parent / "shared" / "realdata")
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real-data sample at {folder}; PROVENDER_REALDATA names another place")
    return folder


@pytest.fixture
def photos(realdata: Path) -> Iterator[Photos]:
    """Serve the real photos on loopback."""
    one = Photos(realdata)
    yield one
    one.http.shutdown()
    one.http.server_close()
