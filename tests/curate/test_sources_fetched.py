"""From native metadata over a loopback server to shards: URLs work through `curate fetch`, and the ledger balances."""

from __future__ import annotations

import bz2
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetch_server import Server
from native import jpeg, ledger, make_pool, sidecar
from test_sources_yfcc import ONE, lines

from curate.cli import main

pytestmark = pytest.mark.slow  # a worker takes seconds to import img2dataset

LINKS = {0: "img/0.jpg", 1: "status/404", 2: "img/2.png", 3: "img/3.jpg?a=1,2&b=%22x%22", 4: "img/4.jpg"}
PLAIN = ("--samples", "all", "--no-near", "--no-profanity")


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def fetched(source: str, metadata: Path, *more: Any) -> Path:
    """Fetch the images of some metadata and return the pool."""
    pool = metadata.parent / "pool"
    flags = ("--workers", 1, "--threads", 8, "--timeout", 10, "--allow-private-hosts", *more)
    assert main(["fetch", "--source", source, "--input", str(metadata), "--output", str(pool), *map(str, flags)]) == 0
    return pool


def reasons(out: Path) -> Counter[str]:
    return Counter(row["reason"] or row["decision"] for row in ledger(out))


def test_laion(tmp_path: Path, server: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Scores stay typed columns of the sidecar, and a text with commas, quotes and line feeds stays itself."""
    texts = [f'alt "text", {i}\nover lines' for i in LINKS]
    scores = [0.25 + i / 8 for i in LINKS]
    urls = [f"{server.url}/{link}" for link in LINKS.values()]
    columns = {"SAMPLE_ID": list(LINKS), "URL": urls, "TEXT": texts, "similarity": scores, "NSFW": ["UNLIKELY"] * 4 + ["NSFW"]}
    part = tmp_path / "part-00000.parquet"
    pq.write_table(pa.table(columns | {"punsafe": pa.array([None, *scores[1:]], pa.float32())}), part)
    code, out, err = build("--source", "laion", "--input", part, "--images", fetched("laion", part), *PLAIN)
    assert code == 0, err
    assert reasons(out) == {"kept": 4, "failed_to_download": 1}
    rows = {row["source_id"]: row for row in sidecar(out)}
    for i in (0, 2, 3, 4):
        row = rows[f"{urls[i]}\n{texts[i]}"]
        assert (row["laion.similarity"], row["laion.nsfw"], row["laion.punsafe"]) == (
            scores[i],
            columns["NSFW"][i],
            scores[i] if i else None,
        )
        assert row["caption_raw"] == texts[i]


def test_yfcc(tmp_path: Path, server: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Only the listed photos are asked for; HTML goes, an empty title falls back, and licences come along."""
    texts = {0: ("A+cat+in+C%2B%2B", ""), 1: ("gone", ""), 2: ("", quote_plus('a <a href="x">linked</a> dog')), 3: ("not+listed", "")}
    row = {i: ONE | {"photoid": str(100 + i), "title": t, "description": d} for i, (t, d) in texts.items()}
    rows = [r | {"downloadurl": f"{server.url}/{LINKS[i]}"} for i, r in row.items()] + [ONE | {"photoid": "109", "marker": "1"}]
    path, ids = tmp_path / "yfcc100m_dataset.txt", tmp_path / "ids.tsv.bz2"
    path.write_text(lines(rows))
    ids.write_bytes(bz2.compress("".join(f"{n}\t{n}\thash\n" for n in (100, 101, 102, 109, 555)).encode()))
    pool = fetched("yfcc", path, "--ids", ids)
    assert sorted(server.log) == ["/img/0.jpg", "/img/2.png", "/status/404"]
    code, out, err = build("--source", "yfcc", "--input", path, "--ids", ids, "--images", pool, *PLAIN)
    assert code == 0, err
    assert f"4 of the 5 ids in {ids} are there, 1 are not" in err
    assert reasons(out) == {"kept": 2, "failed_to_download": 1, "unsupported": 1}
    found = {r["source_id"]: r for r in sidecar(out)}
    assert {k: (r["caption"], r["licence"]) for k, r in found.items()} == {
        "100": ("A cat in C++", ONE["licenseurl"]),
        "102": ("a linked dog", ONE["licenseurl"]),
    }
    assert found["100"]["yfcc.usertags"] == ["ada", "chinese garden", "b&w, c"]
    ids.write_bytes(bz2.compress(b"100\n"))
    assert build("--source", "yfcc", "--input", path, "--ids", ids, "--images", pool, *PLAIN, output="fewer")[0] == 0
    assert reasons(tmp_path / "fewer") == {"kept": 1}


def test_shutterstock(tmp_path: Path, server: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """An export with columns of other names, mapped for fetch and build alike."""
    path = tmp_path / "export.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("asset", "headline", "keywords", "link", "is_editorial"))
        for i, link in LINKS.items():
            writer.writerow((i, f'photo {i}, "quoted"', "wood, old", f"{server.url}/{link}", "yes" if i else "no"))
        writer.writerow((4, "the same id again", "", f"{server.url}/img/5.jpg", "no"))
    mapped = ("--columns", "id=asset", "caption=headline", "url=link")
    pool = fetched("shutterstock", path, *mapped)
    code, out, err = build("--source", "shutterstock", "--input", path, *mapped, "--field", "both", "--images", pool, *PLAIN)
    assert code == 0, err
    assert reasons(out) == {"kept": 4, "failed_to_download": 1, "duplicate_id": 1}
    found = {r["source_id"]: r for r in sidecar(out)}
    assert found["0"]["caption"] == 'photo 0, "quoted" wood, old'
    assert {k: r["shutterstock.is_editorial"] for k, r in found.items()} == {"0": False, "2": True, "3": True, "4": True}


def test_a_flag_of_another_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cc12m.tsv"
    path.write_text("http://h.example/1.jpg\ta cat\n")
    assert main(["fetch", "--source", "cc12m", "--input", str(path), "--output", str(tmp_path / "pool"), "--ids", "x"]) == 2
    assert "--ids is no option of the source 'cc12m'" in capsys.readouterr().err


def test_json_members_have_one_type_per_key(tmp_path: Path, server: Server, build: Callable[..., tuple[int, Path, str]]) -> None:
    """What a publisher leaves out is unknown in the column's own type, so that Hugging Face's reader takes every sample."""
    import datasets

    urls = [f"{server.url}/img/{i}.jpg" for i in range(8)]
    half = [i % 2 == 0 for i in range(8)]
    scores = [0.5 if known else None for known in half]
    part = tmp_path / "part.parquet"
    pq.write_table(
        pa.table({"URL": urls, "TEXT": [f"photo {i}" for i in range(8)], "similarity": scores, "NSFW": ["UNSURE", None] * 4}), part
    )
    export = tmp_path / "export.csv"
    rows = [
        f"{i},{url},stock {i},{'Nature' if known else ''},{'yes' if known else ''}"
        for i, (url, known) in enumerate(zip(urls, half, strict=True))
    ]
    export.write_text("\n".join(["id,url,description,categories,is_editorial", *rows]) + "\n")
    pool = fetched("laion", part)
    stock = make_pool(tmp_path / "stock", {url: jpeg(i) for i, url in enumerate(urls)})
    sources = [
        {"reader": "laion", "input": str(part), "images": str(pool)},
        {"reader": "shutterstock", "input": str(export), "images": str(stock)},
    ]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"sources": sources}))
    code, out, err = build("--config", tmp_path / "recipe.yaml", "--json-member", "--bytes-per-shard", 30_000, *PLAIN)
    assert code == 0, err
    found = list(datasets.load_dataset("webdataset", data_files=str(out / "*.tar"), split="train", streaming=True))
    kinds = {key: {type(one["json"][key]) for one in found} for key in found[0]["json"]}
    assert {key: kind for key, kind in kinds.items() if len(kind) > 1} == {}
    assert {(r["json"]["laion.similarity"], r["json"]["laion.nsfw"]) for r in found} == {(0.5, "UNSURE"), (-1.0, "")}
    assert {r["json"]["shutterstock.is_editorial"] for r in found} == {1, -1}
    assert all(part.stat().st_size <= 30_000 for part in out.glob("*.tar"))
