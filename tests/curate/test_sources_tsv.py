"""cc3m and cc12m: headerless TSV is read as it stands, and the wrong file is refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.captions.clean import clean
from curate.sources import cc3m, cc12m, shutterstock, webdataset
from curate.sources.base import Input, Record
from shards.core.errors import TornFileError, UsageError
from shards.tables.values import NULL_WORDS

URL = "http://host.example/a.jpg"


def records(module: ModuleType, path: Path | str) -> list[Record]:
    """Return all records of all inputs."""
    options = module.Options()
    return [r for one in module.inputs(str(path), options) for r in module.read(one, options)]


def write(folder: Path, content: str | bytes, name: str = "some.tsv") -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_of_the_two(tmp_path: Path) -> None:
    path3 = write(tmp_path, f"a cat\t{URL}\n", "3.tsv")
    path12 = write(tmp_path, f"{URL}\ta cat\n", "12.tsv")
    expected = [Record(f"{URL}\na cat", ("a cat",), 0, (URL,))]
    assert records(cc3m, path3) == records(cc12m, path12) == expected


def test_traps_of_other_readers(tmp_path: Path) -> None:
    """Quotes do not span lines, NA is a word, and only a line feed ends a line."""
    captions = ['"a quote opens', "NA", "nullable", 'it closes"', "", "a\x0bb\x85c\u2028d\re", "  spaces  ", "nul \0 byte"]
    found = records(cc12m, write(tmp_path, "".join(f"{URL}?{i}\t{c}\n" for i, c in enumerate(captions))))
    assert [r.captions[0] for r in found] == captions
    assert [r.row for r in found] == list(range(len(captions)))
    assert not any(r.status for r in found)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_marks_and_line_ends(tmp_path: Path, mark: str, end: str, last: bool) -> None:
    text = mark + end.join([f"one\t{URL}", f"two\t{URL}"]) + (end if last else "")
    assert [(r.captions, r.urls) for r in records(cc3m, write(tmp_path, text))] == [(("one",), (URL,)), (("two",), (URL,))]


def test_labelled_subset(tmp_path: Path) -> None:
    line = f"a tree\t{URL}\ttree,plant\t/m/1,/m/2\t0.9,0.8\n"
    first, second = records(cc3m, write(tmp_path, line + f"short\t{URL}\n"))
    assert json.loads(first.meta) == {"labels": "tree,plant", "mids": "/m/1,/m/2", "confidences": "0.9,0.8"}
    assert (first.source_id, first.captions) == (f"{URL}\na tree", ("a tree",))
    assert (second.status, second.detail) == ("bad_record", "line 2: 2 fields, not 5")


def test_bad_lines_are_rows(tmp_path: Path) -> None:
    text = f"caption\turl\ngood\t{URL}\nonly a caption\n\nthree\t{URL}\tfields\nnot a url\tftp://x\nbytes \xff\t{URL}\n"
    found = records(cc3m, write(tmp_path, text.encode("latin-1")))
    assert [r.status for r in found] == ["bad_record", "", "bad_record", "bad_record", "bad_record", "bad_record", ""]
    assert found[2].detail == "line 3: 1 fields, not 2"
    assert found[5].detail == "line 6: no URL in field 2"
    assert found[6].captions == ("bytes ÿ",)
    assert len({r.source_id for r in found}) == len(found)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    whole = "".join(f"caption {i}\t{URL}\n" for i in range(5)).encode()
    path = write(tmp_path, pack(whole), "Train_GCC-training.tsv.gz")
    assert records(cc3m, path) == records(cc3m, write(tmp_path, whole, "plain.tsv"))
    path.write_bytes(path.read_bytes()[:-6])
    (one,) = cc3m.inputs(str(path), cc3m.Options())
    with pytest.raises(TornFileError, match="cut off or damaged"):
        list(cc3m.read(one, cc3m.Options()))


def test_layouts_are_stated(tmp_path: Path) -> None:
    def stated(module: ModuleType, text: str) -> str:
        return str(module.layout(Input(str(write(tmp_path, text)), "x"), module.Options()))

    assert stated(cc12m, f"{URL}\ta\n") == "headerless TSV: url⇥caption"
    assert stated(cc3m, f"a\t{URL}\n") == "headerless TSV: caption⇥url"
    assert stated(cc3m, f"a\t{URL}\ttree\t/m/1\t0.9\n") == "headerless TSV: caption⇥url⇥labels⇥mids⇥confidences"


def test_persons_stay(tmp_path: Path) -> None:
    """CC12M's mask is no HTML tag: not for the reader, and not for cleaning."""
    (found,) = records(cc12m, write(tmp_path, f"{URL}\t<PERSON> and <PERSON> at the premiere\n"))
    assert clean(found.captions[0]) == "<PERSON> and <PERSON> at the premiere"


def test_torn_last_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"one\t{URL}\ntwo")
    rows = cc3m.read(cc3m.inputs(str(path), cc3m.Options())[0], cc3m.Options())
    assert next(rows).captions == ("one",)
    with pytest.raises(TornFileError, match="line 2 is cut off"):
        next(rows)


@pytest.mark.parametrize(("module", "other"), [(cc3m, "cc12m"), (cc12m, "cc3m")])
def test_swapped_columns_are_refused_by_name(tmp_path: Path, module: ModuleType, other: str) -> None:
    line = f"{URL}\ta cat\n" if other == "cc12m" else f"a cat\t{URL}\n"
    path = write(tmp_path, line * 3)
    with pytest.raises(UsageError, match=f"looks like {other}") as caught:
        module.inputs(str(path), module.Options())
    assert caught.value.advice == f"use --source {other}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04zz", "zip"),
        (b"\x80\x04zz", "pickle, which is never loaded"),
        (b"PAR1zzzz", "parquet"),
        (f"a\t{URL}\n".encode("utf-16"), "looks like cc3m"),
        (b"id,caption,url\n1,a,http://x\n", "no line of the first 2"),
        (f"en\tpage\t{URL}\ttitle\n".encode(), "no line of the first 1"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        cc12m.inputs(str(write(tmp_path, content)), cc12m.Options())


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert records(cc3m, write(tmp_path, "")) == []


def test_inputs_are_named_from_what_was_given(tmp_path: Path) -> None:
    """Names must not change when other files come: they are part of some ids."""
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", f"a\t{URL}\n", "b.tsv")
    write(tmp_path / "deep", "x", "notes.md")
    write(tmp_path, "x", ".hidden.tsv")
    for pattern, name in ((tmp_path, "deep/b.tsv"), (tmp_path / "*/*.tsv", "deep/b.tsv"), (tmp_path / "deep/b.tsv", "b.tsv")):
        assert [one.name for one in cc3m.inputs(str(pattern), cc3m.Options())] == [name]
    with pytest.raises(UsageError, match="no file"):
        cc3m.inputs(str(tmp_path / "nowhere"), cc3m.Options())
    with pytest.raises(UsageError, match=r"no \.tar"):
        webdataset.inputs(str(tmp_path), webdataset.Options())


hostile = st.text(st.characters(codec="utf-8", exclude_characters="\t\n")).filter(
    lambda text: not text.endswith("\r") and text.strip().lower() not in NULL_WORDS
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(hostile, min_size=1, max_size=8))
def test_any_caption_comes_back(tmp_path: Path, captions: list[str]) -> None:
    path = write(tmp_path, "".join(f"{URL}\t{c}\n" for c in captions))
    assert [r.captions[0] for r in records(cc12m, path)] == captions


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_give_one_record_per_line(tmp_path: Path, noise: bytes) -> None:
    path = write(tmp_path, f"good\t{URL}\n".encode() + noise + b"\n")
    found = records(cc3m, path)
    assert len(found) == path.read_bytes().count(b"\n")
    assert all(r.status in ("", "bad_record") for r in found)
    for record in found:
        json.dumps([record.source_id, *record.captions], ensure_ascii=False).encode()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(hostile.filter(lambda text: "\r" not in text), min_size=1, max_size=5), st.sampled_from([cc3m, cc12m, shutterstock]), st.data()
)
def test_wherever_a_file_is_cut_whole_lines_stay(tmp_path: Path, captions: list[str], module: ModuleType, data: st.DataObject) -> None:
    """Lines before the cut give what they gave in the whole file; what is left of the cut one is one record or an error."""
    pairs = [(c, f"{URL}?{i}") for i, c in enumerate(captions)]
    whole = "".join("\t".join(pair if module is cc3m else reversed(pair)) + "\n" for pair in pairs).encode()
    expected = records(module, write(tmp_path, whole))
    assert [r.captions[0] for r in expected] == captions
    cut = data.draw(st.integers(0, len(whole)))
    path = write(tmp_path, whole[:cut])
    found: list[Record] = []
    with contextlib.suppress(TornFileError, UsageError):  # of one broken line alone nobody knows whose it is
        found.extend(module.read(Input(str(path), path.name), module.Options()))
    complete = whole[:cut].count(b"\n")
    assert found[:complete] == expected[:complete]
    assert len(found) <= complete + 1
