"""Recipe files that are odd in form: each is refused by name, in little time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shards.core import recipes
from shards.core.errors import UsageError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: &a\n  b: *a\n", "the alias *a in line 2 stands inside of what it means"),
        (b"a: &a [1, [2, *a]]\n", "the alias *a in line 1 stands inside"),
        (b"a: " + b"[" * 2000 + b"]" * 2000, "levels deep"),
        ("\n".join("  " * i + "a:" for i in range(2000)).encode(), "levels deep"),
        (LAUGHS.encode(), "more than 1,000,000 values by line 6"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text in UTF-8: invalid start byte at byte 0"),
        ("samples: all\n".encode("utf-16"), "not text in UTF-8"),
        (b"samples: \x01\n", "not YAML"),
        (b"samples: " + b"9" * 5000, "not YAML"),
        (b"when: 2026-13-45\n", "not YAML"),
        (b"samples: 3\nsamples: 4\n", "the key 'samples' in line 1 and again in line 2"),
        (b"a: !!python/object/apply:os.getcwd []\n", "not YAML"),
        (b"- 1\n- 2\n", "found [1, 2]"),
        (b"", "found None"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
    ],
)
def test_an_odd_recipe_file_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(UsageError) as error:
        recipes.read(str(path), tmp_path)
    assert time.perf_counter() - began < 5
    assert said in error.value.found
    assert "odd.yaml" in error.value.found
    assert len(str(error.value)) < 1000


def test_an_alias_beside_what_it_means_is_fine(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\n")
    found = recipes.read(str(tmp_path / "fine.yaml"), tmp_path)
    assert found == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
