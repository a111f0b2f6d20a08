"""What is printed: tables, sparklines and bars on any terminal, and no text of others that commands it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import wcwidth
from pseudo_terminal import in_terminal

from shards.core import console


def test_tables_align_numbers_to_the_right():
    assert console.table(("name", "n"), [("a", 1), ("bb", 1000)]) == "name      n\n----  -----\na         1\nbb    1,000"
    assert [console.duration(s) for s in (47, 190, 7500)] == ["47 s", "3 min 10 s", "2 h 5 min"]


def test_tables_align_wide_characters_and_marks():
    rows = [("猫と犬", 1), ("cafe\u0301", 22), ("abc", 3)]
    assert console.table(("word", "n"), rows).split("\n") == [
        "word     n",
        "------  --",
        "猫と犬   1",
        "cafe\u0301    22",
        "abc      3",
    ]


def test_tables_stay_within_a_width_by_cutting_their_widest_text():
    rows = [("k1", "a photo of a cat", 12), ("k2", "写真写真写真写真", 3)]
    table = console.table(("key", "caption", "n"), rows, 20).split("\n")
    assert table == ["key  caption       n", "---  -----------  --", "k1   a photo of…  12", "k2   写真写真写…   3"]
    assert console.table(("a", "b"), [("x" * 30, "y" * 30)], 14) == "a       b\n------  ------\nxxxxx…  yyyyy…"
    assert len(console.table(("n", "m"), [(10**12, 10**12)], 10).split("\n")[0]) > 10, "no figure of a number is cut off"
    assert [console.cut("héllo", n) for n in (5, 4, 1, 0)] == ["héllo", "hél…", "…", ""]


# What a caption may hold to harm a terminal: colour, clear, title, a bell, 8-bit CSI, a line end, reversed order, half a character.
HOSTILE = "\x1b[31mred\x1b[2J\x1b]0;title\x07\x9b2J\r\n\u2028\u202eleft\ud800"


def test_no_text_of_others_commands_the_terminal(capsys):
    shown = console.visible(HOSTILE)
    assert shown == r"␛[31mred␛[2J␛]0;title␇\x9b2J␍␊\u2028\u202eleft\ud800"
    assert console.visible("Größe שלום 猫 👩‍🚀 é\xa0x") == "Größe שלום 猫 👩‍🚀 é\xa0x"
    assert console.table(("t",), [(HOSTILE,)]).split("\n")[2] == shown
    console.say(f"error: {HOSTILE}\n  second line")
    assert capsys.readouterr().err == f"error: {shown[: shown.index('␊')]}\n{shown[shown.index('␊') + 1 :]}\n  second line\n"
    console.emit({"caption": HOSTILE})
    written = capsys.readouterr().out
    assert json.loads(written)["caption"] == HOSTILE
    assert not {c for c in written if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0} - {"\n"}


def test_widths_are_those_of_wcwidth():
    """Against the peer library; of the characters where Unicode's versions differ, none is here."""
    blocks = ((0xA0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x3041, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xFF01, 0xFFA0))
    blocks += ((0x1100, 0x1200), (0x1F300, 0x1F650), (0x200B, 0x200E), (0xFE00, 0xFE10))
    characters = [c for first, last in blocks for c in map(chr, range(first, last)) if c.isprintable() or c in "\u200b\u200d"]
    assert len(characters) > 30_000
    assert [c for c in characters if console.visible(c) == c and console.width_of(c) != wcwidth.wcwidth(c)] == []


def test_sparklines_scale_to_the_largest_and_show_what_is_not_nothing():
    assert console.sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8]) == " ▁▂▃▄▅▆▇█"
    assert console.sparkline([1, 0, 10**9]) == "▁ █"
    assert (console.sparkline([]), console.sparkline([0, 0]), console.sparkline([0.1])) == ("", "  ", "█")


def test_bars_fill_to_an_eighth_and_only_all_is_full():
    assert [console.bar(s, 4) for s in (0, 0.5, 1, 0.25 + 3 / 32)] == ["", "██", "████", "█▍"]
    assert (console.bar(1e-9, 4), console.bar(1 - 1e-9, 4)) == ("▏", "███▉")


def test_what_is_not_known_is_blank_and_numbers_stay_to_the_right():
    assert console.table(("what", "n"), [("a", 1200), ("b", None)]).split("\n") == ["what      n", "----  -----", "a     1,200", "b"]


ASCII = """
from shards.core import console
console.emit(console.sparkline([0, 1, 4, 8]) + "|" + console.bar(0.6, 5) + "|" + console.cut("abcdef", 4))
console.emit("é\\x1b".replace("\\x1b", console.visible("\\x1b")))
console.emit(["é"])
"""


def test_a_terminal_without_unicode_gets_ascii():
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", ASCII], capture_output=True, check=False, env=env)
    assert done.stdout == b' .=@|###|abc~\n\\xe9\\x1b\n[\n "\\u00e9"\n]\n', done.stderr
    assert not done.stderr


ASKED = "from shards.core import console; console.emit(f'{console.coloured()} {console.terminal_width()}')"


def test_colour_is_for_terminals_whose_user_wants_it():
    assert in_terminal("-c", ASKED, columns=61) == "True 61\n"
    assert in_terminal("-c", ASKED, columns=100, NO_COLOR="1") == "False 100\n"
    assert in_terminal("-c", ASKED, columns=100, NO_COLOR="") == "True 100\n", "no-color.org: an empty one is none"
    assert in_terminal("-c", ASKED, columns=100, TERM="dumb") == "False 100\n"
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    assert subprocess.run([sys.executable, "-c", ASKED], capture_output=True, check=True, env=env).stdout == b"False 80\n"


def test_a_painted_cell_is_aligned_by_its_text():
    rows = [(console.painted("猫\x1b", "38;5;32"), 1), (console.painted("plain", ""), 22)]
    lines = console.table(("t", "n"), rows, 80).split("\n")
    assert lines[2:] == ["\x1b[38;5;32m猫␛\x1b[0m     1", "plain  22"]
    assert console.paint("", "1") == ""


def test_progress_of_a_resumed_run_counts_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Once a resumed training ended with `1,984 / 1,984`, of 2,048 samples."""
    with console.Progress("train", 2048, done=64) as progress:
        progress.add(1984)
    assert "train: 2,048 / 2,048 samples" in capsys.readouterr().err
