"""Columns of text and of token ids held compactly and read by row: what a block of samples keeps of its captions and uids.

A Python string takes 50 bytes beside its characters, and 600,000 captions are in memory at once (15 M samples, 64 streams).
These hold Arrow's own buffers; a row is decoded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


class TextColumn:
    """A column of texts, by row."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Take a string column; what it was cut from may go."""
        import pyarrow as pa

        array = _whole(column, pa.large_string())
        self._valid = _valid(array)
        self._offsets, self._data = _text_buffers(array)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str | None:
        """Return a row's text, None for null."""
        if self._valid is not None and not self._valid[row]:
            return None
        return self._data[self._offsets[row] : self._offsets[row + 1]].tobytes().decode("utf-8", "replace")


class TextListColumn:
    """A column of lists of texts, by row."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Take a column of lists of strings."""
        import numpy as np
        import pyarrow as pa

        array = _whole(column, pa.large_list(pa.large_string()))
        self._valid = _valid(array)
        self._offsets = np.asarray(array.offsets)
        self._texts = TextColumn(array.values)

    def __getitem__(self, row: int) -> list[str]:
        """Return a row's texts; nulls among them are left out, a null row has none."""
        if self._valid is not None and not self._valid[row]:
            return []
        texts = [self._texts[i] for i in range(int(self._offsets[row]), int(self._offsets[row + 1]))]
        return [text for text in texts if text is not None]


class IdsColumn:
    """A column of lists of token ids, by row."""

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Take a column of lists of uint16; what it was cut from may go."""
        import numpy as np
        import pyarrow as pa

        array = _whole(column, pa.large_list(pa.uint16()))
        self._valid = _valid(array)
        self._offsets = np.asarray(array.offsets)
        self._ids = np.asarray(array.values)

    def __getitem__(self, row: int) -> bytes | None:
        """Return a row's ids, packed as `shards.clip_bpe` packs them; None for null."""
        if self._valid is not None and not self._valid[row]:
            return None
        return self._ids[self._offsets[row] : self._offsets[row + 1]].tobytes()


def _whole(column: Any, kind: Any) -> Any:
    """Return a column as one array that owns its buffers and starts at 0."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks, or too large for one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return pa.concat_arrays([array.cast(kind)])


def _valid(array: Any) -> NDArray[np.bool_] | None:
    import numpy as np

    return np.asarray(array.is_valid()) if array.null_count else None


def _text_buffers(array: Any) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    import numpy as np

    _, offsets, data = array.buffers()
    rows = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1] if offsets else np.zeros(1, np.int64)
    return rows, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
