"""The compiled loop that finds phrases in a stream of words. Imports numba: import it where there is work.

The forms of all lists stand in one tree of words: a caption is walked once, however many lists there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numba import njit
from numpy.typing import NDArray

from curate.report.concepts import ConceptList, Form, forms_of

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Phrases:
    """The tree. `numbers`: each word in it, numbered; `arrays`: see count_mentions, from `root` on."""

    numbers: dict[str, int]
    arrays: tuple[I32, I32, I32, I32, I32, I32, I32, int]


@lru_cache(8)
def compiled(lists: tuple[ConceptList, ...]) -> Phrases:
    """Return the tree of all forms of all lists."""
    numbers: dict[str, int] = {}
    children: list[dict[int, int]] = [{}]
    classes: list[list[int]] = [[]]
    first = [0, *accumulate(len(concepts.classes) for concepts in lists)]
    deepest = 1
    for start, concepts in zip(first, lists, strict=False):
        for form, places in forms_of(concepts).items():
            classes[_grown(form, numbers, children, classes)] += [start + place for place in places]
            deepest = max(deepest, len(form))
    root = np.zeros(len(numbers) + 1, np.int32)  # a word that is in no form has the number -1: the last one
    root[list(children[0])] = list(children[0].values())
    below = [sorted(edges.items()) for edges in children]
    array = lambda values: np.array(values, np.int32)
    sets = [place for place, concepts in enumerate(lists) for _ in concepts.classes]
    arrays = (
        root,
        array([0, *accumulate(map(len, below))]),
        array([word for edges in below for word, _ in edges]),
        array([node for edges in below for _, node in edges]),
        array([0, *accumulate(map(len, classes))]),
        array([place for places in classes for place in places]),
        array(sets),
        deepest,
    )
    return Phrases(numbers, arrays)


def _grown(form: Form, numbers: dict[str, int], children: list[dict[int, int]], classes: list[list[int]]) -> int:
    """Return the node of a form, made if there is none."""
    node = 0
    for word in form:
        number = numbers.setdefault(word, len(numbers))
        if number not in children[node]:
            children[node][number] = len(children)
            children.append({})
            classes.append([])
        node = children[node][number]
    return node


@njit(cache=True, nogil=True, inline="always")
def _walk(stream: I32, begin: int, end: int, known: I32, node: int, edges: I32, edge_word: I32, edge_node: I32, path: I32) -> int:
    """Walk down the tree from the node of the word at `begin`; `path` gets the nodes. Returns how many there are."""
    depth = 0
    while node != 0:
        path[depth] = node
        depth += 1
        if begin + depth == end:
            break
        word, above, node = known[stream[begin + depth]], node, 0
        for edge in range(edges[above], edges[above + 1]):
            if edge_word[edge] == word:
                node = edge_node[edge]
                break
    return depth


@njit(cache=True, nogil=True)
def count_mentions(
    stream: I32,
    lengths: I64,
    known: I32,
    root: I32,
    edges: I32,
    edge_word: I32,
    edge_node: I32,
    entries: I32,
    entry_class: I32,
    sets: I32,
    deepest: int,
) -> tuple[I64, I64]:
    """Count the forms found in captions, per class: of each set the one that begins first, then the longest.

    Args:
        stream, lengths: the words of captions and how many each has, as in wordcount.Counts.
        known: the tree's number of each word of the stream, -1 for none.
        root: the node of each word that begins a form, 0 for none.
        edges: (nodes + 1,) where the edges of each node begin in `edge_word` and `edge_node`: the next word, the next node.
        entries: (nodes + 1,) where the classes of the form that ends at each node begin in `entry_class`.
        sets: the set of each class.
        deepest: the most words of a form.

    Returns:
        Mentions, and captions with at least one, of each class.
    """
    count, captions = np.zeros(len(sets), np.int64), np.zeros(len(sets), np.int64)
    last = np.full(len(sets), -1, np.int64)
    free = np.zeros(sets.max() + 1, np.int64)  # where in the stream the next mention of each set may begin
    path = np.zeros(deepest, np.int32)
    end = 0
    for caption in range(len(lengths)):
        start, end = end, end + lengths[caption]
        for begin in range(start, end):
            node = root[known[stream[begin]]]
            if node == 0:
                continue
            for deep in range(_walk(stream, begin, end, known, node, edges, edge_word, edge_node, path), 0, -1):
                here = range(entries[path[deep - 1]], entries[path[deep - 1] + 1])
                for entry in here:
                    place = entry_class[entry]
                    if free[sets[place]] <= begin:
                        count[place] += 1
                        captions[place] += last[place] != caption
                        last[place] = caption
                for entry in here:  # only now, since classes of one set may share the form
                    one = sets[entry_class[entry]]
                    if free[one] <= begin:
                        free[one] = begin + deep
    return count, captions
