"""Croissant metadata (JSON-LD, Croissant 1.0) of a set of shards, as plain dictionaries.

The specification is MLCommons' "Croissant Format Specification", 1.0; `mlcroissant` is its reference library, and the tests hold what
is written here to it. 1.0 is what every reader of Croissant takes; nothing of 1.1 is needed.

Shape. Each tar is a FileObject with its sha256 and size. The FileSet `image-files` is what they contain (`containedIn` all of them);
the FileSet `sidecars` is the parquet files beside croissant.json. The record set `samples` joins the two: the image by its file
name, all else by the column `key`. Tars must be FileObjects, since the library unpacks nothing else. Captions come from the
sidecars, since it loses track of a second FileSet in the same tars when it joins. The sidecars are no FileObjects, since it reads
no parquet FileSet that is contained in such; `manifest.json`, which holds their digests, is one. 1,000 shards make 0.3 MB, which
the library checks in about a second.

`contentUrl`s are relative: the folder may move. The library unpacks into a cache by the URL alone, so that two data sets with a
`00000.tar` need a cache each (the environment variable CROISSANT_CACHE). It holds a whole record set in memory; webdataset streams.

Tars without sidecars (`shards index`) give two record sets without a join, `images` and `captions`. No record set is stated where
the tars of the folder are not the set (cut subsets; samples taken down, before `shards compact`): Croissant cannot leave members out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from curate.card.facts import Facts, one_line
from curate.card.words import limits, steps
from shards.core import fs
from shards.manifest import NAME

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
COLUMNS = {
    "source": "the source that the sample comes from",
    "source_id": "the sample's id in its source",
    "url": "where the image was found, or an empty text",
    "caption": "the caption to train on, cleaned",
    "caption_raw": "that caption as the source has it",
    "captions": "all captions of the image, cleaned",
    "width": "pixels",
    "height": "pixels",
    "original_width": "pixels of the file that was found",
    "original_height": "pixels of the file that was found",
    "original_format": "format of the file that was found",
    "bytes": "size of the image file in the tar",
    "sha256": "digest of the image file in the tar",
    "original_sha256": "digest of the file that was found",
    "phash": "64-bit perceptual hash of the image, in hex",
    "information": "how much the image shows: the standard deviation of its coarse structure, in gray levels",
    "rank": "the sample's place in the set",
    "class": "number of the class, or -1",
    "licence": "the licence that the source states for the image, or an empty text",
}
_MIME = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_LIST = "list of "
_KEYS = ("key", "uid")  # columns that the record's uid says already


def metadata(facts: Facts) -> dict[str, Any]:
    """Return the Croissant metadata of a set; what was not said on the command line is left out."""
    config, manifest = facts.config, facts.manifest
    values: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": facts.summary,
        "conformsTo": VERSION,
        "version": f"1.0.0+{manifest.digest[:16]}",
        "license": config.license,
        "url": config.url,
        "creator": {"@type": "Organization", "name": config.creator} if config.creator else "",
        "datePublished": config.date,
        "citeAs": config.citation,
        "keywords": ["webdataset", *(["image–text pairs"] if facts.captioned and facts.image else [])],
        "rai:dataPreprocessingProtocol": steps(facts),
        "rai:dataLimitations": limits(facts),
        "distribution": _distribution(facts),
        "recordSet": _record_sets(facts),
    }
    return {k: v for k, v in values.items() if v not in ("", [])}


def _distribution(facts: Facts) -> list[dict[str, Any]]:
    manifest = facts.manifest
    entries = {e.path: e for e in manifest.shards}.values()  # a subset may use a tar twice
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": f"shard-{number:05d}",
            "name": one_line(entry.path),
            "contentUrl": entry.path,
            "contentSize": f"{entry.bytes} B",
            "encodingFormat": "application/x-tar",
            "sha256": entry.sha256,
        }
        for number, entry in enumerate(entries)
    ]
    path = fs.join(manifest.folder, NAME)
    said = "The shards, their sidecars and indices with their sha256; the counts of each source."
    about = {"@type": "cr:FileObject", "@id": "manifest", "name": NAME, "description": said, "contentUrl": NAME}
    about |= {"contentSize": f"{fs.size(path)} B", "encodingFormat": "application/json", "sha256": fs.sha256(path)}
    contained = [{"@id": tar["@id"]} for tar in tars]
    sets = []
    if facts.whole and facts.image:
        sets.append(_file_set("image-files", _MIME[facts.image.lower()], [f"*.{facts.image}"], contained))
    if facts.whole and facts.captioned and not facts.sidecars:
        sets.append(_file_set("caption-files", "text/plain", ["*.txt"], contained))
    if facts.whole and facts.sidecars:
        # Globs reach into folders (`ledger/`, `stats/`): the pattern is the shards' names with any digits.
        names = {re.sub("[0-9]", "[0-9]", e.path.removesuffix(".tar")) + ".parquet" for e in entries}
        sets.append(_file_set("sidecars", "application/x-parquet", sorted(names), []))
    return [about, *tars, *sets]


def _file_set(name: str, encoding: str, includes: list[str], contained: list[dict[str, str]]) -> dict[str, Any]:
    values: dict[str, Any] = {"@type": "cr:FileSet", "@id": name, "name": name}
    values |= {"containedIn": contained} if contained else {}
    return values | {"encodingFormat": encoding, "includes": includes[0] if len(includes) == 1 else includes}


def _record_sets(facts: Facts) -> list[dict[str, Any]]:
    if not facts.whole or not facts.image:
        return []
    if not facts.sidecars:
        sets = [_members("image", facts.image, "sc:ImageObject")]
        return sets + ([_members("caption", "txt", "sc:Text")] if facts.captioned else [])
    joined = {"references": {"fileSet": {"@id": "sidecars"}, "extract": {"column": "key"}}}
    fields = [
        _field("samples/uid", "the sample's uid, its key in the tar", "sc:Text", _key("image-files", facts.image), **joined),
        _field("samples/image", "the image", "sc:ImageObject", _content("image-files")),
        *(_column(name, about, kind) for name, about, kind in columns(facts)),
    ]
    return [_record_set("samples", "An image with its captions, and what is known of it.", "samples/uid", fields)]


def _members(what: str, ext: str, kind: str) -> dict[str, Any]:
    """Return the record set of one kind of member in tars that have no sidecars."""
    name, files = f"{what}s", f"{what}-files"  # two nodes of a JSON-LD document may not share an @id
    key = _field(f"{name}/key", "the sample's key in its tar", "sc:Text", _key(files, ext))
    content = _field(f"{name}/{what}", f"the {what}", kind, _content(files))
    about = f"The {name}. Image and caption of a sample have the same key."
    return _record_set(name, about, f"{name}/key", [key, content])


def _record_set(name: str, about: str, key: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": about, "key": {"@id": key}, "field": fields}


def _field(name: str, about: str, kind: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    short = name.partition("/")[2]
    return {"@type": "cr:Field", "@id": name, "name": short, "description": about, "dataType": kind, "source": source, **more}


def _key(files: str, ext: str) -> dict[str, Any]:
    """Return the source of a key: a member's path up to the first dot of its name, as webdataset has it."""
    pattern = rf"((?:.*/)?[^./]+)\.{re.escape(ext)}"
    return {"fileSet": {"@id": files}, "extract": {"fileProperty": "fullpath"}, "transform": {"regex": pattern}}


def _content(files: str) -> dict[str, Any]:
    return {"fileSet": {"@id": files}, "extract": {"fileProperty": "content"}}


def columns(facts: Facts) -> list[tuple[str, str, str]]:
    """Return (name, meaning, data type) of the sidecars' columns but for the key; a type may begin with `list of `."""
    if not facts.sidecars:
        return []
    import pyarrow.parquet as pq

    with fs.open_read(facts.manifest.path_of(facts.manifest.shards[0], ".parquet")) as file:
        schema = pq.read_schema(file)
    rows = [(f.name, COLUMNS.get(f.name) or f"measured by the filter {f.name.partition('.')[0]}", _data_type(f.type)) for f in schema]
    return [row for row in rows if row[0] not in _KEYS and row[2]]


def left_out(facts: Facts) -> list[str]:
    """Return the sidecars' columns that the metadata leaves out: Croissant has no data type for them."""
    if not facts.sidecars:
        return []
    import pyarrow.parquet as pq

    with fs.open_read(facts.manifest.path_of(facts.manifest.shards[0], ".parquet")) as file:
        return [field.name for field in pq.read_schema(file) if not _data_type(field.type)]


def _column(name: str, about: str, kind: str) -> dict[str, Any]:
    source = {"fileSet": {"@id": "sidecars"}, "extract": {"column": name}}
    return _field(f"samples/{name}", about, kind.removeprefix(_LIST), source, **({"repeated": True} if kind.startswith(_LIST) else {}))


def _data_type(kind: pa.DataType) -> str:
    """Return Croissant's data type of a column; an empty text where there is none."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _LIST + inner if (inner := _data_type(kind.value_type)) else ""
    tests = (
        (pa.types.is_string, "sc:Text"),
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
    )
    return next((name for test, name in tests if test(kind)), "")
