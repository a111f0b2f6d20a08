"""wit: records that hold line feeds, tabs and quotes, closed or not; damage that costs one record; captions and languages."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import jpeg, ledger, make_pool, peak_memory, records, sidecar

from curate.sources import _wit, wit
from curate.sources.base import Record
from shards.core.errors import TornFileError, UsageError

COLUMNS = _wit.COLUMNS
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one(i: int, **given: str) -> dict[str, str]:
    """Return record i, as WIT has it."""
    return {
        "language": "en",
        "page_url": f"https://en.wikipedia.org/wiki/Page_{i}",
        "image_url": f"https://upload.wikimedia.org/wikipedia/commons/0/04/{i}.jpg",
        "page_title": f"Page {i}",
        "caption_reference_description": f"reference {i}",
        "caption_attribution_description": f"English: attribution {i}",
        "caption_alt_text_description": f"alt {i}",
        "mime_type": "image/jpeg",
        "original_height": "107",
        "original_width": "272",
        "is_main_image": "false",
        "attribution_passes_lang_id": "true",
        "page_changed_recently": "true",
        "context_page_description": "The page.",
    } | given


def lines(rows: Sequence[dict[str, str]], columns: Sequence[str] = COLUMNS, quoting: bool = True) -> list[str]:
    """Return the header and one text per record, by the csv module's rules, or raw."""
    texts = []
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        cells = [row.get(name, "") for name in columns]
        out = io.StringIO(newline="")
        csv.writer(out, delimiter="\t", lineterminator="\n").writerow(cells)
        texts.append(out.getvalue() if quoting else "\t".join(cells) + "\n")
    return texts


def write(path: Path, texts: Sequence[str], packed: bool = False) -> Path:
    """Write texts as a file."""
    content = "".join(texts).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def values(path: Path) -> list[dict[str, str]]:
    """Return the fields of all records, of which none may be damaged."""
    found = list(_wit.rows(str(path)))
    assert [problem for _, problem in found if problem] == []
    return [fields for fields, _ in found]


words = st.lists(st.sampled_from([*'ab \n",é\u2028\x85', "\r."]), max_size=12).map("".join)
free = [c for c in COLUMNS if c not in _wit.SHAPES]


@QUICK
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(free, words)), min_size=1, max_size=5), st.permutations(free), st.booleans())
def test_what_was_written_comes_back(tmp_path: Path, texts: list[dict[str, str]], order: list[str], packed: bool) -> None:
    """Whatever quotes and line feeds the fields hold, and in whatever order free columns stand behind the URLs."""
    rows = [one(i) | text for i, text in enumerate(texts)]
    columns = [c for c in COLUMNS if c in _wit.SHAPES] + order
    path = write(tmp_path / "w.tsv", lines(rows, columns), packed)
    assert values(path) == [{c: row.get(c, "") for c in columns} for row in rows]


@QUICK
@given(st.lists(st.text(st.sampled_from('ab \n"é'), max_size=12).map(lambda t: f'"{t}.'), min_size=1, max_size=6))
def test_quotes_that_are_never_closed_end_nothing(tmp_path: Path, texts: list[str]) -> None:
    rows = [one(i, caption_reference_description=t, context_page_description=t, context_section_description=t) for i, t in enumerate(texts)]
    found = values(write(tmp_path / "w.tsv", lines(rows, quoting=False)))
    assert [row["caption_reference_description"] for row in found] == texts
    assert [row["context_section_description"] for row in found] == texts


def test_the_csv_module_would_swallow_such_records(tmp_path: Path) -> None:
    """Why quotes alone cannot be trusted: the oracle of the trap itself."""
    texts = lines([one(0, page_title='"Half Dome'), *(one(i) for i in range(1, 4))], quoting=False)
    assert len(list(csv.reader(texts, delimiter="\t"))) < len(texts)
    assert len(values(write(tmp_path / "w.tsv", texts))) == 4


DAMAGE: dict[str, Callable[[str], str]] = {
    "a tab less": lambda t: t.replace("\t", " ", 1),
    "a tab more": lambda t: t.replace("image/jpeg", "image/\tjpeg"),
    "no page": lambda t: t.replace("https://en.wiki", "ftp://en.wiki"),
    "cut short": lambda t: t[: len(t) // 2].rstrip("\n") + "\n",
    "no line end": lambda t: t[: t.index("upload")],
    "empty": lambda t: "\t" * 16 + "\n",
    "one line": lambda t: "nothing of WIT's\n",
    "shifted": lambda t: t.replace("image/jpeg\t107", "107\timage/jpeg"),
    "an odd flag": lambda t: t.replace("\tfalse\t", "\tmaybe\t"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("place", [1, 2, 4])
def test_a_damaged_record_costs_itself_alone(tmp_path: Path, name: str, place: int) -> None:
    texts = lines([one(i, context_section_description="two\nlines") for i in range(5)])
    texts[place] = DAMAGE[name](texts[place]) if name != "one line" or place > 1 else "x\ty\n"
    found = records(wit, write(tmp_path / "w.tsv", texts))
    whole = [r.source_id for r in found if not r.status]
    expected = [f"{one(i)['page_url']}\n{one(i)['image_url']}" for i in range(5) if i != place - 1]
    if name == "no line end":  # the next record's first line is part of it
        expected = [e for e in expected if e != f"{one(place)['page_url']}\n{one(place)['image_url']}"]
    assert whole == expected
    damaged = [r for r in found if r.status]
    assert {r.status for r in damaged} <= {"bad_record"}
    assert all(r.detail and r.source_id.startswith("w.tsv:") for r in damaged)
    assert [r.row for r in found] == list(range(len(found)))


def test_a_tab_inside_quotes_is_no_column(tmp_path: Path) -> None:
    path = write(tmp_path / "w.tsv", lines([one(0, page_title='a\t"b"\tc'), one(1)]))
    assert values(path)[0]["page_title"] == 'a\t"b"\tc'
    assert len(values(path)) == 2


@QUICK
@given(st.data())
def test_a_torn_file_gives_its_whole_records(tmp_path: Path, data: st.DataObject) -> None:
    texts = [t.encode() for t in lines([one(i, page_title='"é\n') for i in range(3)])]
    whole = b"".join(texts)
    cut = data.draw(st.integers(len(texts[0]), len(whole) - 1))
    path = tmp_path / "w.tsv"
    path.write_bytes(whole[:cut])
    # The last column, context, may be cut without a trace; a record counts once its sixteenth tab is there.
    ends = [sum(map(len, texts[:i])) + t.rindex(b"\t") + 1 for i, t in enumerate(texts)][1:]
    begins = [sum(map(len, texts[:i])) for i in range(1, 4)]
    found: list[dict[str, str]] = []
    complete = sum(end <= cut for end in ends)
    # A tail without a tab may be a further line of the last column, where a record stands before it.
    tails = [(whole[begin:cut], end) for begin, end in zip(begins, ends, strict=True) if begin < cut < end]
    torn = any(not tail.endswith(b"\n") and (b"\t" in tail or end == ends[0]) for tail, end in tails)
    if torn:
        with pytest.raises(TornFileError, match=f"record {complete + 1} is cut off"):
            found.extend(v for v, p in _wit.rows(str(path)) if not p)
    else:
        found.extend(v for v, p in _wit.rows(str(path)) if not p)
    assert len(found) == complete


def test_a_torn_gzip_file(tmp_path: Path) -> None:
    path = write(tmp_path / "w.tsv.gz", lines([one(i, page_title=f"{i * 7919:x}" * 9) for i in range(2000)]), packed=True)
    path.write_bytes(path.read_bytes()[:-2000])
    options = wit.Options()
    (given,) = wit.inputs(str(tmp_path), options)
    found: list[Record] = []
    with pytest.raises(TornFileError, match="cut off or damaged"):
        found.extend(wit.read(given, options))
    assert 0 < len(found) < 2000
    assert {r.status for r in found} == {""}


def test_a_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    texts = [t.replace("\n", "\r\n") for t in lines([one(0), one(1)])]
    path = write(tmp_path / "w.tsv", ["\ufeff", *texts])
    assert [row["context_section_description"] for row in values(path)] == ["", ""]
    assert values(path)[1]["language"] == "en"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[1:], "no header line"),
        (lambda t: [t[0].replace("image_url", "image"), *t[1:]], "no column 'image_url'"),
        (lambda t: [t[0].replace("page_title", "page_url"), *t[1:]], "2 columns named 'page_url'"),
        (lambda t: [t[0].replace("page_url\timage_url", "image_url\tpage_url"), *t[1:]], "page_url is 'https://upload"),
        (lambda t: [t[0].replace("language\tpage_url", "page_url\tlanguage"), *t[1:]], "none of the first 3 records"),
        (lambda t: [], "an empty file"),
        (lambda t: ["caption\turl\n", "a\thttp://h.example/1.jpg\n"], "no header line"),
    ],
)
def test_missing_and_swapped_columns_are_refused_by_name(tmp_path: Path, change: Any, says: str) -> None:
    path = write(tmp_path / "w.tsv", change(lines([one(i) for i in range(3)])))
    with pytest.raises(UsageError, match=says):
        wit.inputs(str(path), wit.Options())


def test_options_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "w.tsv", lines([one(0)]))
    with pytest.raises(UsageError, match="caption_fields"):
        wit.inputs(str(path), wit.Options(caption_fields=()))
    with pytest.raises(UsageError, match="languages: found 'en,de'"):
        wit.inputs(str(path), wit.Options(languages=("en,de",)))


def test_captions_stand_in_the_order_asked_for(tmp_path: Path) -> None:
    rows = [
        one(0),
        one(1, caption_reference_description=""),
        one(2, attribution_passes_lang_id="false"),
        one(3, language="de", caption_attribution_description="English: A bat Deutsch: Eine Fledermaus"),
    ]
    path = write(tmp_path / "w.tsv", lines(rows))
    every = records(wit, path)
    assert [r.captions for r in every] == [
        ("reference 0", "attribution 0", "alt 0"),
        ("", "attribution 1", "alt 1"),
        ("reference 2", "", "alt 2"),
        ("reference 3", "Eine Fledermaus", "alt 3"),
    ]
    assert records(wit, path, caption_fields=("alt", "reference"))[0].captions == ("alt 0", "reference 0")
    assert records(wit, path, attribution="any")[2].captions[1] == "attribution 2"
    german = records(wit, path, languages=("de",))
    assert [(r.status, r.detail) for r in german] == [("not_selected", "language en")] * 3 + [("", "")]
    assert [r.source_id for r in german] == [r.source_id for r in every]


@pytest.mark.parametrize(
    ("text", "language", "part"),
    [
        ("English: Half Dome, Yosemite", "en", "Half Dome, Yosemite"),
        ("Français : Une maison", "fr", "Une maison"),
        ("日本語：赤い橋", "ja", "赤い橋"),
        ("English: A bat Deutsch: Eine Fledermaus", "de", "Eine Fledermaus"),
        ("English: A bat Deutsch: Eine Fledermaus", "de-AT", "Eine Fledermaus"),
        ("English: A bat Deutsch: Eine Fledermaus", "fr", "A bat"),
        ("English: Signs in English: a study", "en", "Signs in English: a study"),
        ("A sign in English: no parking", "en", "A sign in English: no parking"),
        ("Note: English is spoken", "en", "Note: English is spoken"),
        ("", "en", ""),
    ],
)
def test_the_language_before_a_commons_description(text: str, language: str, part: str) -> None:
    assert wit.of_language(text, language) == part


def test_memory_stays_flat(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        path = tmp_path / f"{n}.tsv.gz"
        with gzip.open(path, "wt", encoding="utf-8", newline="") as out:
            out.write(lines([])[0])
            for i in range(n):
                out.write(lines([one(i, page_title="x" * 500)])[1])
        return peak_memory(wit, path, n)

    assert peak(3000) < 1.3 * peak(300) + 100_000


def test_a_build(tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    rows = [one(i) for i in range(6)]
    rows[1] |= {"caption_reference_description": ""}
    rows[2] |= {"language": "de"}
    rows[3] |= {"caption_reference_description": "", "caption_attribution_description": "", "caption_alt_text_description": "<b></b>"}
    texts = lines(rows)
    texts[6] = texts[6].replace("image/jpeg", "\t")
    path = write(tmp_path / "wit_v1.train.all-00000-of-00010.tsv.gz", texts, packed=True)
    pool = make_pool(tmp_path / "pool", {row["image_url"]: None if i == 4 else jpeg(i) for i, row in enumerate(rows)})
    flags = ["--source", "wit", "--input", path, "--images", pool, "--languages", "en", "--samples", "all"]
    code, out, talk = build(*flags)
    assert code == 0, talk
    reasons = {r["source_id"].rpartition("/")[2]: r["reason"] or r["decision"] for r in ledger(out)}
    assert reasons == {
        "0.jpg": "kept", "1.jpg": "kept", "2.jpg": "not_selected", "3.jpg": "caption_missing", "4.jpg": "failed_to_download",
        f"{path.name}:5".rpartition("/")[2]: "bad_record",
    }  # fmt: skip
    found = {row["caption"]: row for row in sidecar(out)}
    assert sorted(found) == ["attribution 1", "reference 0"]
    assert found["reference 0"]["captions"] == ["reference 0", "attribution 0", "alt 0"]
    assert found["reference 0"]["wit.language"] == "en"
    assert (found["reference 0"]["wit.original_width"], found["reference 0"]["wit.is_main_image"]) == (272, False)
    recipe = tmp_path / "drop.yaml"
    recipe.write_text(
        f"sources: [{{reader: wit, input: '{path}', images: '{pool}', empty: drop, options: {{languages: [en]}}}}]\nsamples: all\n"
    )
    code, out, talk = build("--config", recipe, output="drop")
    assert code == 0, talk
    ledger(out)
    assert [row["caption"] for row in sidecar(out)] == ["reference 0"]
