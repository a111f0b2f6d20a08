"""The view: slices, limits, nested shots, halves, and what it refuses."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from eval.data import open_examples
from eval.datasets.base import Examples, label_of
from shards.classes.templates import prompts, read_templates
from shards.core.errors import UsageError


def toy(n: int = 60, classes: int = 3, order: np.ndarray | None = None) -> Examples:
    places = np.arange(n) if order is None else order
    return Examples(
        "toy", tuple(f"c{i}" for i in range(classes)), tuple(f"id{i}" for i in places), places % classes, lambda i: b"image %d" % places[i]
    )


def contents(view: Examples, positions: np.ndarray) -> list[bytes]:
    return [view.read(int(i)) for i in positions]


def test_slices_read_what_they_name() -> None:
    view = toy()[10:20][::3]
    assert view.ids == ("id10", "id13", "id16", "id19")
    assert [view.read(i) for i in range(4)] == [b"image 10", b"image 13", b"image 16", b"image 19"]
    assert view.labels.tolist() == [1, 1, 1, 1]


def test_hashes_survive_views() -> None:
    whole = toy()
    before = whole[::7].hashes
    assert whole.hashes[::7].tolist() == before.tolist() == whole[::7].hashes.tolist()
    assert toy().take([5, 5]).digest != toy().take([5]).digest


def test_limit_mixes_classes_and_nests() -> None:
    sorted_by_class = toy().take(np.argsort(toy().labels, kind="stable"))
    small, large = sorted_by_class.limit(12), sorted_by_class.limit(30)
    assert len(small) == 12
    assert set(small.ids) < set(large.ids)
    assert len(Counter(small.labels.tolist())) == 3
    assert sorted_by_class.limit(0) is sorted_by_class


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shots_nest_and_are_balanced(seed: int) -> None:
    view = toy()
    draws = {k: view.shots(k, seed) for k in (1, 2, 5, 10, 20)}
    for k, chosen in draws.items():
        assert Counter(view.labels[chosen].tolist()) == {0: k, 1: k, 2: k}
    sizes = sorted(draws)
    assert all(set(draws[a]) < set(draws[b]) for a, b in itertools.pairwise(sizes))


def test_seeds_draw_independently() -> None:
    view = toy(3000)
    draws = [set(view.shots(100, seed).tolist()) for seed in range(6)]
    overlaps = [len(a & b) / 300 for i, a in enumerate(draws) for b in draws[:i]]
    assert 0.05 < np.mean(overlaps) < 0.15  # 100 of 1,000 per class: a tenth


def test_shots_do_not_depend_on_the_order_of_the_images() -> None:
    plain, mixed = toy(), toy(order=np.random.default_rng(0).permutation(60))
    assert sorted(contents(plain, plain.shots(4, 3))) == sorted(contents(mixed, mixed.shots(4, 3)))
    assert plain.digest == mixed.digest


def test_too_many_shots_name_the_class() -> None:
    view = toy(59)  # class 2 has 19
    with pytest.raises(UsageError, match="20 shots asked for, class 'c2' has 19") as error:
        view.shots(20, 0)
    assert error.value.allowed == "k up to 19"


def test_halves_part_every_class_and_keep_copies_together() -> None:
    base = toy()
    doubled = base.take([*range(60), *range(30)])
    train, test = doubled.halves()
    assert sorted([*train, *test]) == list(range(90))
    assert not set(contents(doubled, train)) & set(contents(doubled, test))
    assert {c: len({doubled.ids[i] for i in train if doubled.labels[i] == c}) for c in range(3)} == {0: 10, 1: 10, 2: 10}


def test_labels_follow_names_into_another_order() -> None:
    view = toy().relabel(("c2", "c0", "c1"))
    assert [view.classes[label] for label in view.labels] == [f"c{i % 3}" for i in range(60)]
    assert view.class_digest != toy().class_digest


def test_what_a_set_may_not_be() -> None:
    with pytest.raises(UsageError, match="no labelled image"):
        Examples("empty", ("a",), (), np.zeros(0, np.int64), lambda i: b"")
    with pytest.raises(UsageError, match="class name 'a' stands 2 times"):
        Examples("twice", ("a", "b", "a"), ("x",), np.array([0]), lambda i: b"")
    with pytest.raises(UsageError, match="x has label 2"):
        Examples("beyond", ("a", "b"), ("x",), np.array([2]), lambda i: b"")


@pytest.mark.parametrize(
    ("path", "label"),
    [("/a/cifar10/test", "cifar10/test"), ("pets/", "pets"), ("out/manifest.json", "out"), ("./toy", "toy"), ("test", "test")],
)
def test_label_of(path: str, label: str) -> None:
    assert label_of(path) == label


def test_classnames_files(tmp_path, class_folders: str) -> None:  # type: ignore[no-untyped-def]
    lines, mapping, few, double = (tmp_path / name for name in ("lines.txt", "names.json", "few.txt", "double.txt"))
    lines.write_text("azure\n\nemerald\nruby\n")
    mapping.write_text('{"red_square": "ruby", "blue_square": "azure", "green_square": "emerald"}')
    few.write_text("azure\nemerald\n")
    double.write_text("azure\nruby\nruby\n")
    for file in (lines, mapping):
        assert open_examples(class_folders, classnames=str(file)).classes == ("azure", "emerald", "ruby")
    with pytest.raises(UsageError, match="2 class names for 3 classes"):
        open_examples(class_folders, classnames=str(few))
    with pytest.raises(UsageError, match="'ruby' stands 2 times"):
        open_examples(class_folders, classnames=str(double))
    mapping.write_text('{"red_square": "ruby", "blue_square": "azure", "grene_square": "emerald"}')
    with pytest.raises(UsageError, match="no name for class 'green_square'") as error:
        open_examples(class_folders, classnames=str(mapping))
    assert "grene_square" in error.value.advice


def test_templates(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "templates.json"
    file.write_text('["a photo of a {c}.", "art of the {}"]')
    assert prompts(read_templates(str(file)), "red_square") == ["a photo of a red square.", "art of the red square"]
    with pytest.raises(UsageError, match="no place for the class name"):
        prompts(("a photo",), "cat")
