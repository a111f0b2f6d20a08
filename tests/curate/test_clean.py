"""Cleaning and templating captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions import clean as module
from curate.captions import template
from curate.captions.clean import clean
from shards.core.errors import UsageError


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a  cat\tsits\r\n here ", "a cat sits here"),
        ("", ""),
        (" \n", ""),
        ("l&#39;&eacute;t&eacute; &amp;amp; l&rsquo;hiver", "l'été & l'hiver"),
        ("schÃ¶n â€“ sehr", "schön – sehr"),
        ("<p>One</p><p>two <b>bo</b>ld</p>", "One two bold"),
        ('a <a href="http://x.y/?a=1" rel="nofollow">link</a><br/>end', "a link end"),
        ("<script>alert('x')</script>seen<!-- not seen --> too", "seen too"),
        ("&lt;i&gt;nested&lt;/i&gt;", "nested"),
        ("<<b>b>x", "x"),
        ("<ı>&lt;\u200dı>", "<ı><ı>"),
        ("<PERSON> and <usr> at the gate", "<PERSON> and <usr> at the gate"),
        ("a < b and c > d, I <3 u", "a < b and c > d, I <3 u"),
        ("if x <b and y> z", "if x <b and y> z"),
        ("R&B, AT&T, black & white, fish&chips", "R&B, AT&T, black & white, fish&chips"),
        ("zero\u200bwidth \ufeffmark\u00ad \u202eturn", "zerowidth mark turn"),
        ("bell\x07 nul\x00 esc\x1b[31mred\x1b[0m", "bell nul escred"),
        ("line\u2028sep\u3000wide, cp1252\x85", "line sep wide, cp1252…"),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467 \u200d", "family \U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u200db", "ab"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ("猫が座る。", "猫が座る。"),
    ],
)
def test_known_cases(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def slowly(text: str) -> str:
    """Clean without the fast path: passes until nothing changes."""
    while (better := module._pass(text)) != text:
        text = better
    return text


MARKUP = [
    "<b>",
    "</b>",
    "<",
    "&lt;",
    "&amp;",
    "&",
    "amp;",
    "#38;",
    "lt;",
    "gt;",
    ">",
    "<br/>",
    "<!--",
    "-->",
    "<script>",
    "<a href=",
    '"x">',
]
MOJIBAKE = ["â€™", "Ã©", "Ã", "â", "€", "™", "ГѓВ©", "\x9d", "\xa0", "&#x26;", "&nbsp;", "“", "Ｆ", "ﬁ", "e", "\u0301"]
INVISIBLE = [
    "\U000e0041",
    "\U0001f3f4",
    "\U000e007f",
    "\u200d",
    "\u200c",
    "\ufeff",
    "\ud83d",
    "\ude00",
    "\x00",
    "\x1b[31m",
    "\u3000",
    "\x85",
    " ",
]
pieces = st.sampled_from(MARKUP + MOJIBAKE + INVISIBLE)
anything = st.one_of(st.text(st.characters(codec=None)), st.lists(pieces, max_size=12).map("".join))


def test_text_that_nobody_sees_goes_and_flags_stay() -> None:
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "ignore the picture")
    assert clean(f"a dog{hidden} on grass\U000e0001") == "a dog on grass"
    scotland = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert clean(f"fans of {scotland}{hidden} in Oslo") == f"fans of {scotland} in Oslo"
    assert clean(f"\U0001f3f4{hidden}\U000e007f") == "\U0001f3f4"  # longer than any flag


@settings(max_examples=500, deadline=None)
@given(anything)
def test_any_text_is_cleaned_once_and_for_all(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert once == once.strip()
    once.encode()


QUIET = "’“”‘–—…®™°éüñçßÅÂÃÐØ×²³œŒ€†µ·»«¡¿ПриветŁşğφ猫が中국語กไทيא\u0301\u00a0\u0131\u1e9e 😀❤\ufe0f\t& <>;amp#39.a"


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        anything, st.text(st.characters(min_codepoint=0, max_codepoint=127)), st.text(QUIET), st.text(st.characters(max_codepoint=0x2122))
    )
)
def test_the_fast_paths_change_no_result(text: str) -> None:
    assert clean(text) == slowly(text)


def test_every_character_alone_and_in_company() -> None:
    """Each code point between letters, and eight at a time (so that neighbours may make mojibake): fast is slow."""
    for start in range(0, 0x30000, 8):
        text = "".join(map(chr, range(start, start + 8)))
        if module._QUIET.fullmatch(text):  # where it is not, the slow path is what runs
            assert clean(text) == slowly(text), hex(start)
    for c in map(chr, range(0x80, 0x2100)):
        for text in (f"a{c}b", f"{c} {c}"):
            assert clean(text) == slowly(text), hex(ord(c))


@pytest.mark.parametrize(
    "text",
    [
        "<" * 3000 + "b>" * 3000,
        "&amp;" + "amp;" * 4000 + "lt;",
        "<b " + "a=b " * 5000,
        "<a href='" * 3000,
        "<!--" * 4000,
        "<script>" * 4000,
    ],
)
def test_hostile_nesting_ends(text: str) -> None:
    """Each of these took 2 to 160 times as long before its bound was set; a hang fails the suite's own limit."""
    once = clean(text)
    assert clean(once) == once


def test_templates(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a {c} in the wild\n\nart of a {}\n")
    templates = template.load(["a photo of a {}", str(file)])
    assert templates == ("a photo of a {}", "a {c} in the wild", "art of a {}")
    drawn = [template.fill(templates, "maine_coon", f"{i:032x}") for i in range(300)]
    assert set(drawn) == {"a photo of a maine coon", "a maine coon in the wild", "art of a maine coon"}
    assert all(70 < drawn.count(text) < 130 for text in set(drawn))
    assert drawn == [template.fill(templates, "maine_coon", f"{i:032x}") for i in range(300)]
    assert template.fill(("{}",), "{c}", "0") == "{c}"


def test_templates_without_a_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no template 'a photo of a cat'"):
        template.load(["a photo of a cat"])
    (tmp_path / "t.txt").write_text("a {}\nno place\n")
    with pytest.raises(UsageError, match="'no place'"):
        template.load([str(tmp_path / "t.txt")])
