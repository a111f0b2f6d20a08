"""The profanity matcher: whole words, phrases, spelling with symbols, the allow-list; against a naive twin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters import profanity
from curate.filters.base import Facts
from curate.filters.profanity import matcher
from shards.core.errors import UsageError

LIST = [
    "tit",
    "cock",
    "coon",
    "son-of-a-bitch",
    "blow job",
    "f.u.c.k",
    "sh!t",
    "shi+",
    "scheiße",
    "くそ",
    "鸡巴",
    "शाप",
    "🖕",
    "pot",
    "pot head",
]
ALLOW = ["Maine Coon", "cock-of-the-rock", "pot"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a tit", ["tit"]),
        ("Tit-Bits, TIT. (tit)", ["tit", "tit", "tit"]),
        ("title constitution Scunthorpe cockatoo grasshopper", []),
        ("a Maine Coon and a coon", ["coon"]),
        ("MAINE  COON! maine-coon", []),
        ("Andean Cock-of-the-Rock on a rock", []),
        ("cock of the walk", ["cock"]),
        ("son of a bitch; son-of-a-bitch", ["son-of-a-bitch", "son-of-a-bitch"]),
        ("blow\tjob, blowjob", ["blow job"]),
        ("f u c k, F.U.C.K., f-u_c-k", ["f.u.c.k"] * 3),
        ("Sh!t! 'sh!t' shi+", ["sh!t", "sh!t", "shi+"]),
        ("shi tzu, sh it", []),
        ("SCHEISSE scheiße", ["scheiße", "scheiße"]),
        ("ｔｉｔ", ["tit"]),
        ("これはくそです", ["くそ"]),
        ("शाप शापित", ["शाप"]),
        ("no🖕way", ["🖕"]),
        ("a pot, a pot head", ["pot head"]),
        ("", []),
    ],
)
def test_known_cases(text: str, found: list[str]) -> None:
    assert matcher(LIST, ALLOW)(text) == found


def naive(entries: list[str], text: str) -> set[str]:
    """Search each entry with its own pattern: no letter or digit on either side, anything else between its words."""
    return {e for e in entries if re.search(r"(?<![0-9a-z])" + r"[^0-9a-z]+".join(e.split()) + r"(?![0-9a-z])", text.casefold())}


def facts(*captions: str) -> Facts:
    """Return what the filter sees of a sample with these captions."""
    return Facts("toy", captions[0], captions, captions[0], 1, 1, 1, 1, "JPEG", 1, "")


words = st.sampled_from(["tit", "tits", "hand", "job", "Hand", "of", "god", "a", "JOB", "tit4tat"])
texts = st.lists(st.tuples(words, st.sampled_from([" ", ", ", "-", "_", "", "’"])), max_size=8).map(lambda p: "".join(w + s for w, s in p))


@settings(max_examples=400, deadline=None)
@given(texts)
def test_single_words_and_phrases_against_the_naive_twin(text: str) -> None:
    assert set(matcher(["tit", "god"], [])(text)) == naive(["tit", "god"], text)
    assert set(matcher(["hand job"], [])(text)) == naive(["hand job"], text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_no_text_is_too_odd(text: str) -> None:
    matcher(LIST, ALLOW)(text)


def test_lists_of_users(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# a comment\nblimey\n\nbloody hell\r\n")
    row = profanity.Options(list=str(path), allow=("bloody hell boy",))
    measure = profanity.measurer(row)
    assert measure(facts("Blimey! shit")) == (1, "blimey")
    assert measure(facts("Bloody Hell", "Bloody Hell Boy")) == (1, "bloody hell")
    with pytest.raises(UsageError, match="no word list"):
        profanity.measurer(profanity.Options(list=str(tmp_path / "nowhere")))


def test_the_allow_list_is_tidy() -> None:
    """Every line has a use: it is an entry of the default list, or a phrase with one (or a plural) in it."""
    allowed = profanity._read(profanity.ALLOW_FILE)
    assert len(set(allowed)) == len(allowed)
    find = matcher([*profanity._entries(""), "coons"], [])
    assert [line for line in allowed if not find(line)] == []


def test_the_default_list_is_read_whole() -> None:
    entries = profanity._entries("")
    assert len(entries) == 916
    find = matcher(entries, [])
    missed = [e for e in entries if not find(f"so, {e} it is")]
    assert missed == []
