"""Statistics of the real captions and metadata: CLIP tokens against open_clip, words against a Counter, text that is no caption."""

from __future__ import annotations

import contextlib
import json
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from real_captions import by_origin

from curate.captions.clean import clean
from curate.config import source_options
from curate.report import native, stats
from curate.report.clip_tokens import clip_tokens
from curate.report.readability import CLASSES, readability
from curate.report.subject import most_repeated, open_subject
from curate.report.wordcount import count, tokens
from shards.core import registry
from shards.decoding import FORMATS


def test_clip_tokens_are_open_clips(realdata: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    naughty = json.loads((realdata / "text/naughty_strings.json").read_text("utf-8"))
    mojibake = [case["original"] for case in json.loads((realdata / "text/mojibake.json").read_text("utf-8"))]
    texts = [*(text for some in by_origin(realdata).values() for text in some), *naughty, *mojibake]
    assert len(texts) > 11_000
    found = clip_tokens(pa.array(texts)).tolist()
    assert [(text, n) for text, n in zip(texts, found, strict=True) if n != len(theirs.encode(text))] == []


# Every match was read: all are what their class says.
NOT_WORDS = {
    "alttext": {"url": 1, "file_name": 12, "single_word": 1},
    "redcaps": {"no_letters": 2, "single_word": 91},
    "cc3m": {},
    "coco": {},
    "flickr30k": {},
}


def test_readability_of_real_captions(realdata: Path) -> None:
    found = {}
    for source, texts in by_origin(realdata).items():
        classes = Counter(CLASSES[i] for i in readability(pa.array(texts), count(texts).lengths))
        found[source] = {name: n for name, n in classes.items() if name != "words"}
    assert found == NOT_WORDS


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("redcaps", "redcaps/derived"), ("redcaps", "redcaps/native"), ("cc3m", "cc3m/Validation_GCC.sample.tsv"), ("cc12m", "cc12m/cc12m.tsv"),
        ("laion", "laion/alttext.parquet"), ("shutterstock", "shutterstock/shutterstock_from_cc3m.csv"), ("yfcc", "yfcc/yfcc100m_dataset.tsv"),
        ("wit", "wit/wit_v1.sample.tsv"),
    ],
)  # fmt: skip
def test_native_metadata_has_the_words_of_its_captions(realdata: Path, reader: str, name: str) -> None:
    """The first caption that cleaning leaves, of each record that the reader calls usable."""
    source = native.source_of(reader, str(realdata / "metadata" / name), {})
    module, options = registry.get("curate.sources", reader), source_options(source)
    records = [r for one in module.inputs(source.input, options) for r in module.read(one, options) if not r.status]
    chosen = [next(filter(None, map(clean, record.captions)), None) for record in records]
    words = Counter(word for caption in chosen if caption for word in tokens(caption))
    said = Counter(" ".join(tokens(caption)) or caption for caption in chosen if caption)
    with open_subject([], engine="inline", sources=[source]) as subject:
        assert dict(subject.con.sql("SELECT word, count FROM words").fetchall()) == words
        assert subject.con.sql("SELECT sum(count)::BIGINT FROM others WHERE kind = 'samples'").fetchall() == [(len(records),)]
        assert subject.sample.num_rows == said.total()
        assert sorted(subject.sample["caption"].to_pylist()) == sorted(filter(None, chosen))
        found = stats.duplicates(subject.con, reader)
        assert (found["captions"], found["distinct"]) == (said.total(), len(said))
        assert [row["count"] for row in most_repeated(subject, reader, 5)] == [n for _, n in said.most_common(5) if n > 1]
    assert words


def test_a_foreign_tar_as_found(realdata: Path, tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "image3.tar").write_bytes((realdata / "metadata/webdataset/image3.tar").read_bytes())
    with open_subject([str(tmp_path / "found")], engine="inline") as subject:
        assert subject.sources == ("found",)
        formats = dict(subject.con.sql("SELECT text, count FROM others WHERE kind = 'format'").fetchall())
        assert subject.sample.num_rows == sum(formats.values()) > 0
        assert "unreadable" not in formats


def test_odd_images_in_a_foreign_tar(realdata: Path, tmp_path: Path) -> None:
    """What Pillow opens, of the formats that are allowed, has the size and the format that Pillow says; the others are unreadable, and nothing else happens."""
    paths = sorted(p for p in (realdata / "odd-images").rglob("*") if p.is_file() and p.suffix != ".csv")
    expected = Counter[str]()
    (tmp_path / "odd").mkdir()
    with tarfile.open(tmp_path / "odd" / "0.tar", "w") as tar:
        for number, path in enumerate(paths):
            tar.add(path, f"{number}.jpg")
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                expected[str(Image.open(path, formats=FORMATS).format)] += 1
    expected["unreadable"] = len(paths) - expected.total()
    with open_subject([str(tmp_path / "odd")], engine="inline") as subject:
        assert dict(subject.con.sql("SELECT text, count FROM others WHERE kind = 'format'").fetchall()) == +expected
    assert expected.total() > 40
    assert len(expected) > 4
