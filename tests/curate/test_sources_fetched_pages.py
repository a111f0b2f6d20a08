"""WIT and a Hugging Face table of URLs, fetched over a loopback server and built: what is not selected is never asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetch_server import Server
from native import sidecar
from test_sources_fetched import LINKS, PLAIN, fetched, reasons
from test_sources_wit import lines, one, write

pytestmark = pytest.mark.slow  # a worker takes seconds to import img2dataset


@pytest.fixture
def web() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_wit(tmp_path: Path, web: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """One picture on two pages is asked for twice and kept once; a page in another language is not asked for."""
    rows = [one(i, image_url=f"{web.url}/{link}", page_title="two\nlines") for i, link in LINKS.items()]
    rows[3] |= {"language": "fr"}
    rows[4] |= {"image_url": rows[0]["image_url"]}
    path = write(tmp_path / "wit.tsv.gz", lines(rows), packed=True)
    flags = ("--languages", "en", "--caption-fields", "alt")
    pool = fetched("wit", path, *flags)
    assert not any("img/3" in asked for asked in web.log)
    code, out, err = build("--source", "wit", "--input", path, "--images", pool, *flags, *PLAIN)
    assert code == 0, err
    assert reasons(out) == {"kept": 2, "exact_duplicate": 1, "failed_to_download": 1, "not_selected": 1}
    assert {r["caption"] for r in sidecar(out)} < {"alt 0", "alt 2", "alt 4"}


def test_a_table_of_urls(tmp_path: Path, web: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Rows without a URL stay rows; ids are the rows' numbers through both files."""
    links = [f"{web.url}/{link}" for link in LINKS.values()]
    for name, part in (("train-00000-of-00002", links[:2]), ("train-00001-of-00002", [*links[2:], None])):
        table = pa.table({"image_url": part, "text": [f"photo {name[10]} {i}" for i in range(len(part))]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    pool = fetched("huggingface", tmp_path / "*.parquet")
    code, out, err = build("--source", "huggingface", "--input", tmp_path / "*.parquet", "--images", pool, *PLAIN)
    assert code == 0, err
    assert reasons(out) == {"kept": 4, "failed_to_download": 1, "image_missing": 1}
    assert {r["source_id"]: r["caption"] for r in sidecar(out)} == {"0": "photo 0 0", "2": "photo 1 0", "3": "photo 1 1", "4": "photo 1 2"}
