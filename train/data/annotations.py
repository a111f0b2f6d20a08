"""What a batch knows of each sample beside its picture: its caption, the caption's token ids, its label and its weight.

A caption is a sample's own or one of a layer. Which one is drawn follows from (seed, epoch, uid) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from shards.core.errors import RunError, UsageError
from train.data.order import CAPTION, few_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from train.data.batch import Needs
    from train.data.blocks import Source
    from train.data.maker import LoaderSettings, Ready

NO_LABEL = -1


class LayerShare(NamedTuple):
    """A layer that captions are taken from, and with which probability."""

    name: str
    share: float = 1.0


def layer_shares(texts: Sequence[str]) -> tuple[LayerShare, ...]:
    """Return the layers that `NAME@P` or, of a single one, `NAME` state.

    Raises:
        UsageError: a share that is none, several layers of which one has no share, or what `bounds_of` refuses.
    """
    shares = []
    for text in texts:
        name, at, stated = text.partition("@")
        if not name or (not at and len(texts) > 1):
            raise UsageError(f"layer {text!r} among {len(texts)}", "NAME@P for each of several layers, P from 0 to 1")
        try:
            share = float(stated) if at else 1.0
        except ValueError:
            raise UsageError(f"layer {text!r}: share {stated!r}", "NAME or NAME@P, P from 0 to 1") from None
        shares.append(LayerShare(name, share))
    bounds_of(shares)
    return tuple(shares)


def bounds_of(layers: Sequence[LayerShare]) -> list[float]:
    """Return up to where in [0, 1) each layer is drawn: the shares added up. What lies above the last is a sample's own.

    Raises:
        UsageError: a share is not from 0 to 1, the sum is above 1, or a layer comes twice.
    """
    total = Fraction(0)
    bounds = []
    for layer in layers:
        if not 0 <= layer.share <= 1:
            raise UsageError(f"layer {layer.name!r}: share {layer.share:g}", "a number from 0 to 1")
        # As fractions: 0.7 + 0.2 + 0.1 of floats is below 1, and 0.1 + 0.2 + 0.7 could come out above it.
        total += Fraction(str(layer.share))
        bounds.append(float(total))
    if total > 1:
        raise UsageError(f"shares of layers that add up to {float(total):g}", "1 at most; the rest goes to the samples' own captions")
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        raise UsageError(f"layers {', '.join(names)}", "each layer once")
    return bounds


def check_tokens_alone(tokens: str, captions: str, layers: Sequence[LayerShare]) -> None:
    """Refuse a choice among captions together with a layer of tokens, which holds the ids of one caption of each sample.

    Raises:
        UsageError: naming both options.
    """
    if tokens and captions != "first":
        raise UsageError(f"--tokens {tokens} with --captions {captions}", "--captions first: such a layer holds the chosen caption alone")
    if tokens and layers:
        names = ", ".join(layer.name for layer in layers)
        raise UsageError(f"--tokens {tokens} with --layer {names}", "one of the two: such a layer holds the samples' own captions")


class Annotator:
    """Finds the annotations of samples that were read."""

    def __init__(self, settings: LoaderSettings, sources: Sequence[Source]) -> None:
        """See that the settings fit together; nothing is read of the samples yet.

        Raises:
            UsageError: shares of layers or a layer of tokens that cannot be.
        """
        from shards import layers as layer_files
        from train.data.text import Tokenizer

        self.settings, self.sources = settings, sources
        self._bounds = bounds_of(settings.layers)
        length = settings.needs.context_length
        self._tokenizer = Tokenizer(length) if length else None
        check_tokens_alone(settings.tokens, settings.captions, settings.layers)
        if settings.tokens and not length:
            raise UsageError(f"--tokens {settings.tokens} for a task that reads no text", "train clip, train slip")
        for source in sources if settings.tokens else ():
            layer_files.check_tokens(source.manifest, settings.tokens, length)

    def captions(self, ready: Sequence[Ready]) -> list[str]:
        """Return the caption of each sample; an empty text where it has none. An empty list where the task needs none."""
        return [self._caption(sample) for sample in ready] if self.settings.needs.captions else []

    def fill_tokens(self, ready: Sequence[Ready], captions: Sequence[str], out: NDArray[Any]) -> None:
        """Write the ids of captions: from the layer of tokens, where there is one, else encoded.

        Args:
            captions: of these samples.
            out: (n, context length) integers; every element is written.
        """
        if self._tokenizer is None:
            return
        if self.settings.tokens:
            rows = [sample.block.tokens[sample.record.row] if sample.block.tokens is not None else None for sample in ready]
            self._tokenizer.fill_known(rows, captions, out)
        else:
            self._tokenizer.fill(captions, out)

    def _caption(self, sample: Ready) -> str:
        texts = self._texts(sample)
        if len(texts) > 1 and self.settings.captions == "sampled":
            return texts[self._words(sample)[0] % len(texts)]
        return texts[0]

    def _texts(self, sample: Ready) -> list[str]:
        """Return the captions to choose from; one empty text where there is none."""
        block, row = sample.block, sample.record.row
        number = self._layer_of(sample)
        if number is not None and block.layers[number][row]:
            return block.layers[number][row]
        if self.settings.captions == "sampled" and block.captions is not None:
            texts = block.captions[row]
            if texts:
                return texts
        return [self.sources[sample.source].caption(block, sample.record)]

    def _layer_of(self, sample: Ready) -> int | None:
        """Return which layer is drawn for a sample in its epoch; None for its own captions."""
        if not self._bounds:
            return None
        if self._bounds[0] >= 1.0:
            return 0
        drawn = float(self._words(sample)[1] >> 11) * 2.0**-53
        return next((number for number, bound in enumerate(self._bounds) if drawn < bound), None)

    def _words(self, sample: Ready) -> list[int]:
        """Return two random words: one for the caption among several, one for the layer."""
        return few_words(self.settings.seed, CAPTION, (sample.epoch, *sample.record.identity), 2).tolist()

    def labels(self, ready: Sequence[Ready]) -> NDArray[Any] | None:
        """Return the labels as `label_array` does; None where the task needs none.

        Raises:
            RunError: a number that is no class, or several labels where a sample may have one.
        """
        needs = self.settings.needs
        return label_array([self._label(sample) for sample in ready], needs) if needs.classes else None

    def _label(self, sample: Ready) -> Any:
        """Return a sample's class number or list of class numbers."""
        record, classes, noise = sample.record, self.settings.needs.classes, self.settings.noise
        labels = sample.block.labels
        label = self.sources[sample.source].class_member(record) if labels is None else labels[record.row]
        label = NO_LABEL if label is None else label
        numbers = label if isinstance(label, list) else [label]
        for number in numbers:
            if not isinstance(number, int) or not NO_LABEL <= number < classes:
                raise RunError(
                    f"{record.path}: sample {record.uid} has label {number!r}", f"0 … {classes - 1}, or −1 for none", "--classes N"
                )
        if len(numbers) > 1 and not self.settings.needs.multi_label:
            raise RunError(f"{record.path}: sample {record.uid} has the labels {numbers}", "one label", "--multi-label")
        if noise.labels and isinstance(label, list):
            raise RunError(f"{record.path}: sample {record.uid} has a list of labels, to which no noise is added", "noise: {labels: 0}")
        return noise.label(record.identity, label, classes) if noise.labels and label != NO_LABEL else label

    def weights(self, ready: Sequence[Ready]) -> NDArray[np.float32] | None:
        """Return by how much each sample's loss counts, (n,); None where all count alike.

        Raises:
            RunError: a weight that is no number, negative, or larger than float32 holds.
        """
        import numpy as np

        from shards.weights import ALLOWED, in_words, is_weight

        name = self.settings.weights
        if not name:
            return None
        weights = np.empty(len(ready), np.float32)
        for place, sample in enumerate(ready):
            column, record = sample.block.weights, sample.record
            weight = float("nan") if column is None else float(column[record.row])
            if not is_weight(weight):
                raise RunError(f"{record.path}: sample {record.uid}: {in_words(weight)} in {name!r}", ALLOWED)
            weights[place] = weight
        return weights


def label_array(labels: list[Any], needs: Needs) -> NDArray[Any]:
    """Return (n,) int64 class numbers, or (n, classes) float32 of 0 and 1 where a sample may have several.

    A sample whose label is unknown has −1, or a row of −1; an empty list says that it has none of the labels.
    """
    import numpy as np

    if not needs.multi_label:
        return np.array([_single(label) for label in labels], np.int64)
    rows = np.zeros((len(labels), needs.classes), np.float32)
    for row, label in enumerate(labels):
        numbers = label if isinstance(label, list) else [label]
        for number in numbers:
            if number == NO_LABEL:
                rows[row] = NO_LABEL
            else:
                rows[row, number] = 1.0
    return rows


def _single(label: Any) -> int:
    """Return a label, or the first one of a list; an empty list is no label."""
    if not isinstance(label, list):
        return label
    return label[0] if label else NO_LABEL
