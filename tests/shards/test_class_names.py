"""Lists of class names and templates in the shapes people have: understood as what they mean, or refused with what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.classes.match import label_of, like_ids, match, match_labels, sorted_classes
from shards.classes.names import read_names
from shards.classes.templates import prompts, read_templates
from shards.core.errors import UsageError

COLOURS = ("red", "green", "blue")
WORDNET = ("n01440764", "n01443537", "n01484850")
# Shapes that say red, green, blue are classes 0, 1, 2; where they also give ids, these are WORDNET.
SHAPES = {
    "lines.txt": "red\n\ngreen\r\nblue\n",
    "comments.txt": "# colours\nred\ngreen\nblue\n",
    "quoted.txt": "'red',\n'green',\n'blue',\n",
    "commas.txt": "red,\ngreen,\nblue\n",
    "numbered.txt": "0: red\n1: green\n2: blue\n",
    "shuffled.txt": "2 blue\n0 red\n1 green\n",
    "behind.txt": "red 0\ngreen 1\nblue 2\n",
    "tabs.txt": "0\tred\n1\tgreen\n2\tblue\n",
    "list.json": json.dumps(COLOURS),
    "pairs.json": json.dumps([["n0144", name] for name in COLOURS]),
    "numbers.json": json.dumps([[i, name] for i, name in enumerate(COLOURS)]),
    "index.json": json.dumps({str(i): [id, name] for i, (id, name) in enumerate(zip(WORDNET, COLOURS, strict=True))}),
    "id2label.json": json.dumps(dict(enumerate(COLOURS))),
    "label2id.json": json.dumps({name: i for i, name in enumerate(COLOURS)}),
    "model.json": json.dumps(
        {"model_type": "vit", "id2label": dict(enumerate(COLOURS)), "label2id": {n: i for i, n in enumerate(COLOURS)}}
    ),
    "records.json": json.dumps([{"id": i, "name": name, "supercategory": "colour"} for i, name in enumerate(COLOURS)]),
    "nested.json": json.dumps({"info": {}, "categories": [{"id": i, "name": name} for i, name in enumerate(COLOURS)]}),
    "sets.json": json.dumps({"colours": COLOURS, "others": ["a", "b"]}),
    "table.csv": "label,name\n0,red\n1,green\n2,blue\n",
    "semicolons.csv": "class;id\nred;0\ngreen;1\nblue;2\n",
    "plain.csv": "name\nred\ngreen\nblue\n",
    "ids.csv": "n01440764,red\nn01443537,green\nn01484850,blue\n",
    "synset.txt": "n01440764 red, crimson\nn01443537 green\nn01484850 blue\n",
    "data.yaml": "nc: 3\nnames:\n  0: red\n  1: green\n  2: blue\n",
    "names.py": "import os\ncolours = ['red', 'green', 'blue']\n",
    "dictionary.txt": "{0: 'red',\n 1: 'green',\n 2: 'blue'}\n",
    "marked.txt": "\ufeffred\ngreen\nblue\n",
}


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("known", [("0", "1", "2"), ("00", "01", "02"), WORDNET])
def test_each_shape_names_numbered_classes_in_label_order(tmp_path: Path, name: str, known: tuple[str, ...]) -> None:
    names = read_names(write(tmp_path, name, SHAPES[name]), known)
    assert match(names, known).classes == COLOURS
    assert match_labels(names, [0, 1, 2]).classes == COLOURS


@pytest.mark.parametrize("name", SHAPES)
def test_equal_sets_of_names_match_by_name_whatever_their_order(tmp_path: Path, name: str) -> None:
    known = ("Blue", "GREEN", "red") if name in ("lines.txt", "list.json") else ("blue", "green", "red")
    assert match(read_names(write(tmp_path, name, SHAPES[name]), known), known).classes == ("blue", "green", "red")


def test_names_are_matched_by_class_and_by_id(tmp_path: Path) -> None:
    known = ("a_1", "b", "c")
    by_class = write(tmp_path, "map.json", json.dumps({"c": "blue", "a_1": "red", "x": "grey", "b": "green"}))
    found = match(read_names(by_class, known), known)
    assert (found.classes, found.how, found.left_out) == (COLOURS, "key", ("grey",))
    turned = write(tmp_path, "turned.json", json.dumps({"blue": "c", "red": "a_1", "green": "b"}))
    assert match(read_names(turned, known), known).classes == COLOURS
    subset = (WORDNET[2], WORDNET[0])
    for shape in ("synset.txt", "index.json", "ids.csv"):
        assert match(read_names(write(tmp_path, shape, SHAPES[shape]), subset), subset).classes == ("blue", "red")


def test_numbers_from_one_are_met_by_folders_from_one_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "cat_to_name.json", json.dumps({"2": "green", "10": "blue", "1": "red"}))
    assert match(read_names(path), ("1", "2", "10")).classes == COLOURS
    with pytest.raises(UsageError, match="numbers 1 … 10 with gaps, the data's classes 0 … 2"):
        match(read_names(path), ("0", "1", "2"))
    lines = write(tmp_path, "lines.txt", "1 red\n2 green\n3 blue\n")
    for known in (WORDNET, ("0", "1", "2")):
        with pytest.raises(UsageError, match="numbers 1 … 3"):
            match(read_names(lines, known), known)
    assert match_labels(read_names(lines), [1, 3]).labels == (0, 2)
    with pytest.raises(UsageError, match="no name for label 0; its numbers are 1 … 3"):
        match_labels(read_names(lines), [0, 1])


def test_labels_that_count_from_one_are_no_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "lines.txt", "red\ngreen\nblue\n")
    with pytest.raises(UsageError, match="3 class names for the labels 1 … 3") as error:
        match_labels(read_names(path), [1, 2, 3])
    assert "the labels count from 1" in error.value.advice
    assert match_labels(read_names(path), [0, 1]).classes == COLOURS  # no image has the last class


@pytest.mark.parametrize(
    ("content", "known", "message"),
    [
        ("red\ngreen\nblue\npink\n", ("0", "1", "2"), "4 class names for 3 classes"),
        ("red\ngreen\n", ("red", "green", "blue"), "2 class names for 3 classes; not among the names: blue"),
        ("green\nscarlet\nnavy\n", ("blue", "green", "red"), "name 1 is 'green', the data's class 'green' is number 2"),
        ('{"00": 0, "01": 1}', ("00", "01"), "holds numbers alone"),
        ('{"red": "ruby", "bleu": "azure"}', ("red", "blue"), "no name for class 'blue'"),
        ('["red", 7, "blue"]', ("0", "1", "2"), "entry 2 is no text: '7'"),
        ('[["red", "ruby"], ["blue", "azure"]]', ("0", "1"), "2 columns may be the names"),
        ('{"0": "red", "1": null}', ("0", "1"), "the name of '1' is no text"),
        ('[["n01440764", "red"], ["n01443537"]]', ("0", "1"), "row 2 has 1 values"),
        ('{"a": ["x", "y"], "b": ["v", "w"]}', ("0", "1"), "2 lists"),
        ('[{"label": "red"}, 3]', ("0", "1"), "entry 1 is no text"),
        ("red\n]\n", ("0", "1"), "entry 2 is no name"),
        ("lambda c: f'a {c}'\n", ("0",), "entry 1 is a template"),
        ("n01440764 red\nn01443537 green\n", ("n01440764", "n09999999"), "no name for class 'n09999999'"),
        ("[]", ("0",), "is empty"),
        ("\n", ("0",), "is empty"),
        ("7", ("0", "1"), "1 class names for 2"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, content: str, known: tuple[str, ...], message: str) -> None:
    path = write(tmp_path, "names.txt", content)
    with pytest.raises(UsageError) as error:
        match(read_names(path, known), known)
    assert message in str(error.value)


def test_files_that_are_no_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 2 is no UTF-8: 'caf\\xe9'"):
        read_names(write(tmp_path, "latin.txt", b"red\ncaf\xe9\n"))
    with pytest.raises(UsageError, match="not JSON"):
        read_names(write(tmp_path, "names.json", "red\ngreen\n"))
    with pytest.raises(UsageError, match="not JSON"):
        read_names(write(tmp_path, "deep.json", "[" * 100_000))
    with pytest.raises(UsageError, match="is no text"):
        read_names(write(tmp_path, "zeros.txt", b"red\0\n"))
    with pytest.raises(UsageError, match="is a folder"):
        read_names(str(tmp_path))
    with pytest.raises(UsageError, match="no file"):
        read_names(str(tmp_path / "none"))
    wide = read_names(write(tmp_path, "wide.txt", "red\ngrün\n".encode("utf-16")))
    assert [entry.name for entry in wide.entries] == ["red", "grün"]


def test_a_name_of_two_ids_is_kept_twice_and_without_ids_is_a_mistake(tmp_path: Path) -> None:
    lines = "n02012849 crane\nn03126707 crane\nn01440764 tench\n"
    known = ("n01440764", "n02012849", "n03126707")
    found = match(read_names(write(tmp_path, "synset.txt", lines), known), known)
    assert (found.classes, found.repeated) == (("tench", "crane", "crane"), ("crane",))
    plain = match(read_names(write(tmp_path, "plain.txt", "crane\ncrane\ntench\n")), ("0", "1", "2"))
    assert plain.repeated == ()  # the set of examples then refuses it


def test_ids_are_told_from_names() -> None:
    ids = ["7", "n01440764", "001.Black_footed_Albatross", "n0144", "/m/011k07"]
    assert like_ids([*ids, "tench", "Boeing 737", "7-Eleven shop sign", "A320"]) == [*ids, "A320"]


def test_numbers_sort_as_numbers() -> None:
    assert sorted_classes(["10", "9", "1", "0"]) == ("0", "1", "9", "10")
    assert sorted_classes(["10", "9", "b"]) == ("10", "9", "b")
    assert sorted_classes(["002", "1", "01"]) == ("01", "1", "002")


@pytest.mark.parametrize(
    ("text", "label"),
    [(b"7", 7), (b" 12\n", 12), (b"-1", -1), (b"--5", None), (b"9" * 20, None), (b"", None), (b"1.0", None), ("²".encode(), None)],
)
def test_labels_as_text(text: bytes, label: int | None) -> None:
    assert label_of(text) == label


TEMPLATES = {
    "a photo of a {c}.\nart of the {}.\n": ("a photo of a {c}.", "art of the {}."),
    "lambda c: f'a photo of a {c} square.',\n": ("a photo of a {c} square.",),
    '"a photo of a {} square.",\n': ("a photo of a {} square.",),
    "T = [\n  lambda c: f'a {c}.',\n  lambda name: 'the ' + name,\n  lambda c: 'my {}'.format(c),\n  lambda c: 'x %s' % c,\n]\n": (
        *("a {c}.", "the {c}", "my {c}", "x {c}"),
    ),
    "[\n  'a {}.',\n  \"b {}\",\n]\n": ("a {}.", "b {}"),
    "- a {}\n- b {}\n": ("a {}", "b {}"),
    "{}\n": ("{}",),
    '["a {c}"]': ("a {c}",),
    '{"templates": ["a {c}"], "classes": ["cat"]}': ("a {c}",),
    '"{c}", he said.\n': ('"{c}", he said.',),
}


@pytest.mark.parametrize("content", TEMPLATES)
def test_templates_of_each_shape(tmp_path: Path, content: str) -> None:
    assert read_templates(write(tmp_path, "templates.txt", content)) == TEMPLATES[content]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lambda c: f'a photo of a {c.lower()}.'\n", "line 1 is code"),
        ("a {c}\nf'a {c}'\n", "line 2 is code"),
        ("T = [lambda c: f'a {c!r}']\n", "code that does more"),
        ("T = [template(c) for c in classes]\n", "neither a list nor a mapping"),
        ("a photo of a {label}.\n", "has no place for the class name"),
        ("a photo of a %s.\n", "has no place for the class name"),
        ("a {c} in {place}\n", "braces beside the place"),
        ("a {{c}}\n", "braces beside the place"),
        ("A = ['a {}']\nB = ['b {}']\n", "2 lists of templates: A (1), B (1)"),
        ('{"cat": "a cat"}', "a mapping without a list of templates"),
        ("def t(c):\n    return f'a {c}'\n", "has no place"),
    ],
)
def test_templates_that_would_not_be_prompts(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        read_templates(write(tmp_path, "templates.txt", content))
    assert message in str(error.value)


def test_a_name_with_braces_is_set_in_once() -> None:
    assert prompts(("a {c} and {}.",), "set_{}") == ["a set {} and set {}."]


def test_open_clips_own_templates_and_names_read_as_open_clip_has_them(tmp_path: Path) -> None:
    """The peer's file, as it is: a tuple of 80 lambdas, one of 7, and the 1,000 names."""
    import importlib.util
    import sysconfig

    path = Path(sysconfig.get_paths()["purelib"]) / "open_clip" / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", path)  # the file alone: the package loads torch
    assert spec is not None
    assert spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    text = path.read_text()
    start, end = text.index("OPENAI_IMAGENET_TEMPLATES"), text.index("# a much smaller subset")
    found = read_templates(write(tmp_path, "templates.py", text[start:end]))
    assert [prompts((template,), "cat")[0] for template in found] == [template("cat") for template in peer.OPENAI_IMAGENET_TEMPLATES]
    names = read_names(write(tmp_path, "names.py", text[text.index("IMAGENET_CLASSNAMES") :]))
    assert [entry.name for entry in names.entries] == list(peer.IMAGENET_CLASSNAMES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.json", '{"0": "blue", "0": "x", "1": "green"}'),
        ("inner.json", '{"names": {"red": 0, "green": 1, "red": 2}}'),
        ("names.yaml", "names:\n  0: blue\n  0: x\n  1: green\n"),
        ("names.py", "names = {0: 'blue', 0: 'x', 1: 'green'}\n"),
    ],
)
def test_a_key_that_stands_twice_is_refused_in_each_format(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UsageError, match=r"stands 2 times|key twice|again in line"):
        read_names(write(tmp_path, name, content))


def test_names_that_letter_case_alone_tells_apart_are_noted(tmp_path: Path) -> None:
    found = read_names(write(tmp_path, "names.txt", "Crane\ncrane\ntench\n"))
    assert found.notes == ("2 names differ from another one in letter case alone, such as 'Crane' and 'crane'",)
    assert read_names(write(tmp_path, "plain.txt", "crane\ntench\n")).notes == ()
