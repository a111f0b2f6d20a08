"""Recipe files: YAML mappings, the user's own or those that come with a room, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.core.errors import UsageError, closest, shortened

if TYPE_CHECKING:
    import yaml

# A recipe with all its options is six levels deep and has some 300 values. PyYAML's recursion ends at about 300 levels.
MAX_DEPTH = 50
MAX_VALUES = 1_000_000


def names(shipped: Path) -> list[str]:
    """Return the names of the recipes in a room's folder."""
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def read(name: str, shipped: Path) -> dict[str, Any]:
    """Return the values of a recipe: of a file, or of the shipped one with this name.

    Raises:
        UsageError: there is neither, it is no YAML mapping in UTF-8, a mapping in it has a key twice, or it is nested or repeats
            itself by aliases beyond reason.
    """
    from shards.core import fs

    shipped_file = shipped / f"{name}.yaml"
    file = str(shipped_file) if shipped_file.exists() and not fs.exists(name) else name
    if not fs.exists(file) or fs.is_dir(file):
        known = names(shipped)
        raise UsageError(f"no file and no recipe {name!r}", f"a YAML file, or {', '.join(known)}", closest(name, known))
    try:
        text = fs.read_text(file)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not text in UTF-8: {error.reason} at byte {error.start:,}", "a YAML file") from error
    values = parse(text, file)
    if not isinstance(values, dict):
        raise UsageError(f"{file}: found {shortened(values)}", "a mapping of keys to values")
    return values


def parse(text: str, file: str) -> Any:
    """Return what `yaml.safe_load` does of a text, except that it keeps the last of two equal keys without a word.

    Raises:
        UsageError: the text is no YAML, a mapping in it has a key twice, or it is nested or repeats itself beyond reason.
    """
    import yaml

    try:
        _refuse_tangles(text, file)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _refuse_repeated_keys(root, file)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of numbers and dates that Python does not take, ValueError
        raise UsageError(f"{file}: not YAML: {error}") from error


def _refuse_tangles(text: str, file: str) -> None:
    """Refuse what the recursive parts of PyYAML, and of ours, would not survive. The events read here come without recursion.

    Raises:
        UsageError: naming the line of what is nested too deep, of an alias inside of what it stands for, or of one by which the
            values would be too many.
    """
    import yaml

    open_nodes: list[tuple[str | None, int]] = []  # anchor of each node around, and how many values were counted before it
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in open_nodes]:
                raise UsageError(f"{file}: the alias *{event.anchor} in line {line} stands inside of what it means", "no recursion")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
        if len(open_nodes) > MAX_DEPTH:
            raise UsageError(f"{file}: line {line} lies {len(open_nodes)} levels deep", f"at most {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            raise UsageError(f"{file}: more than {MAX_VALUES:,} values by line {line}", "fewer", "a list of many things goes into a file")


def _refuse_repeated_keys(root: yaml.Node, file: str) -> None:
    """Refuse a mapping with the same key twice, at any depth.

    Raises:
        UsageError: naming the key and both lines.
    """
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias leads to a node again, and may lead to one that holds it
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            name = (key.tag, key.value)
            if name in lines:
                raise UsageError(f"{file}: the key {key.value!r} in line {lines[name]} and again in line {line}", "each key once")
            lines[name] = line
