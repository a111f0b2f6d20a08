"""A page of samples and all copies of their pictures, with what became of each: `curate why --pictures`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.report.examples import Pointer, read_examples, thumbnails
from curate.report.page import render_page
from curate.report.stats.rows import image_of
from shards.core import fs
from shards.manifest import Manifest
from shards.reader import Shard

if TYPE_CHECKING:
    import pyarrow as pa


def write_page(path: str, manifest: Manifest, rows: list[dict[str, Any]], work: str) -> None:
    """Write the page.

    Args:
        rows: of the ledger, each with its `copies`.
        work: the build's work folder; without it, pictures of dropped samples come from the build's examples alone.
    """
    from curate.why import name_of, outcome

    wanted = {sample["uid"] for row in rows for sample in [row, *row["copies"]]}
    urls = dict(_urls(manifest, wanted, work))
    groups = []
    for row in rows:
        names = {sample["uid"]: name_of(sample) for sample in [row, *row["copies"]]}
        cards = []
        for sample in [row, *row["copies"]]:
            card = {key: sample[key] for key in ("source", "uid", "caption_raw")}
            lines = [*_place(sample, urls.get(sample["uid"], "")), outcome(sample, names)]
            cards.append(card | {"picture": sample["uid"], "lines": lines})
        groups.append(cards)
    sources = list(dict.fromkeys(card["source"] for cards in groups for card in cards))
    values = {"groups": groups}
    page = render_page("copies.html", values, _pictures(manifest, wanted, work), sources, [], groups=groups, build=set_name(manifest))
    fs.write_text(path, page)


def _place(sample: dict[str, Any], url: str) -> list[str]:
    """Return where a sample is from: its id, or of several lines the first, and its URL; of one that must not be known, nothing."""
    name = sample["source_id"].partition("\n")[0]
    if name == sample["uid"]:
        return []
    return list(dict.fromkeys(text for text in (name, url) if text))


def _urls(manifest: Manifest, wanted: set[str], work: str) -> Iterator[tuple[str, str]]:
    """Yield the URLs of samples, from the work folder and from the shards, which go before."""
    for table in (*_tables_of_work(work, wanted, ["uid", "url"]), *_tables_of_shards(manifest, ["uid", "url"])):
        if table.num_columns == 2:  # a foreign set's shards have no sidecar
            for uid, url in zip(table["uid"].to_pylist(), table["url"].to_pylist(), strict=True):
                if uid in wanted and url:
                    yield uid, url


def _tables_of_shards(manifest: Manifest, columns: list[str]) -> Iterator[pa.Table]:
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            yield shard.sidecar(columns)


def set_name(manifest: Manifest) -> str:
    """Return the name of a set's folder."""
    return manifest.folder.rstrip("/").rpartition("/")[2]


def _pictures(manifest: Manifest, wanted: set[str], work: str) -> dict[str, bytes]:
    """Return thumbnails by uid: those that the build keeps, else of the shards, else of where pictures were measured."""
    kept_thumbnails = {row["uid"]: row["thumbnail"] for row in read_examples(manifest.folder) if row["uid"] in wanted and row["thumbnail"]}
    absent = wanted - kept_thumbnails.keys()
    places = dict(_measured(work, absent)) | dict(_in_shards(manifest, absent))  # what the shards hold goes before
    made = dict(thumbnails(sorted(set(places.values())), engine_name="inline"))
    return kept_thumbnails | {uid: picture for uid, place in places.items() if (picture := made.get(place))}


def _in_shards(manifest: Manifest, wanted: set[str]) -> Iterator[tuple[str, Pointer]]:
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            uids = shard.sidecar(["uid"])["uid"].to_pylist()
            for position, uid in enumerate(uids):
                image = image_of(shard.groups[position]) if uid in wanted else None
                if image:
                    yield uid, (shard.path, image.offset, image.size)


def _measured(work: str, wanted: set[str]) -> Iterator[tuple[str, Pointer]]:
    for table in _tables_of_work(work, wanted, ["uid", "path", "offset", "size"]):
        for row in table.to_pylist():
            if row["path"]:
                yield row["uid"], (row["path"], row["offset"], row["size"])


def _tables_of_work(work: str, wanted: set[str], columns: list[str]) -> Iterator[pa.Table]:
    """Yield what a work folder has measured of some samples."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = fs.join(work, "measured")
    uids = pa.array(sorted(wanted), pa.string())
    for name in fs.names(folder) if wanted else []:
        if not name.endswith(".parquet"):
            continue
        with fs.open_read(fs.join(folder, name)) as file:
            table = pq.read_table(file, columns=columns)
        yield table.filter(pc.is_in(table["uid"], uids))
