"""Files of weights, read without running anything in them: torch's archives with `weights_only=True`, and safetensors.

What cannot be read is named and described: an HTML page, text, a pointer to a file that was not downloaded, a torn archive.
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
import warnings
import zipfile
from typing import IO, Any

import torch

from shards.core import fs
from shards.core.errors import TornFileError, UsageError

READABLE = (
    "files of torch.save with tensors and plain values, .safetensors, an output folder of `train`, a folder with open_clip_config.json"
)
# What a folder of weights may hold, the one to read first: our checkpoint, then the names open_clip looks for.
IN_FOLDERS = (
    "checkpoint.pt", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: the weights themselves were not downloaded"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
)
HEAD = 4096  # bytes that a file is recognised by


def find_file(path: str) -> str:
    """Return the file of weights that a path means: the file itself, or the one that a folder holds.

    Raises:
        UsageError: nothing is there, or the folder holds no weights.
    """
    if not fs.exists(path):
        raise UsageError(f"no file of weights at {path!r}", READABLE)
    if not fs.is_dir(path):
        return path
    there = fs.names(path)
    for name in IN_FOLDERS:
        if name in there:
            return fs.join(path, name)
    raise UsageError(f"{path}: a folder without weights", f"a folder with one of {', '.join(IN_FOLDERS)}")


def read_file(file: str) -> tuple[Any, str]:
    """Return what a file holds, its tensors on the CPU, and its format: `safetensors` or `torch`.

    Raises:
        UsageError: it is not a file of weights, or it holds Python objects besides tensors and plain values.
        TornFileError: it is cut off or damaged.
    """
    with fs.open_read(file) as opened:
        head = opened.read(HEAD)
    if _is_safetensors(head):
        return _read_safetensors(file), "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_archive(file)
    elif head[:1] != b"\x80":  # the first byte of a pickle, which torch's files before 2020 are
        raise UsageError(f"{file}: {describe(head)}", READABLE)
    return _read_torch(file), "torch"


def describe(head: bytes) -> str:
    """Return in words what a file with these first bytes is, when it holds no weights."""
    if not head:
        return "an empty file"
    for beginning, words in BEGINNINGS:
        if head.startswith(beginning):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive"
    try:
        text = io.TextIOWrapper(io.BytesIO(head), "utf-8", errors="strict").read(60)
    except UnicodeDecodeError:
        return "a binary file of an unknown kind"
    if re.match(r"\s*<(!doctype|html|\?xml)", text, re.IGNORECASE):
        return "an HTML page, such as a server sends instead of a file"
    if "\x00" in text:
        return "a binary file of an unknown kind"
    first_line = text.strip().partition("\n")[0]
    return f"a text file that begins {first_line[:40]!r}"


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins like safetensors: the header's length in 8 bytes, then the header, a JSON object."""
    length = int.from_bytes(head[:8], "little")
    return 0 < length < 2**32 and head[8:9] == b"{"


def _read_safetensors(file: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(fs.read_bytes(file))
    except (SafetensorError, ValueError) as error:
        raise TornFileError(f"{file}: a safetensors file that is cut off or damaged", advice="copy or download it again") from error


def _check_archive(file: str) -> None:
    """Refuse a zip archive that torch.save did not write."""
    try:
        with fs.open_read(file) as opened, zipfile.ZipFile(opened) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise TornFileError(
            f"{file}: an archive of torch.save, or another zip, that is cut off", advice="copy or download it again"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        advice = "load it with open_clip once, then torch.save(model.state_dict(), FILE)"
        raise UsageError(f"{file}: a TorchScript archive, as OpenAI's own CLIP files are", READABLE, advice)
    if any(name.endswith(".npy") for name in names):
        raise UsageError(f"{file}: a NumPy archive, as big_vision's files are", READABLE, "open_clip converts big_vision's SigLIP files")
    if not any(name.endswith("data.pkl") for name in names):
        raise UsageError(f"{file}: a zip archive of {', '.join(names[:3]) or 'nothing'}", READABLE)


def _read_torch(file: str) -> Any:
    # timm, SLIP and MoCo keep their command line as a Namespace, a bag of values without code of its own.
    with fs.open_read(file) as opened, torch.serialization.safe_globals([argparse.Namespace, *_numpy_scalars()]):
        try:
            return _load(opened)
        except pickle.UnpicklingError as error:
            raise _refusal(file, str(error)) from error
        except (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
            raise TornFileError(f"{file}: a file of torch.save that is cut off or damaged", advice="copy or download it again") from error


def _load(opened: IO[bytes]) -> Any:
    with warnings.catch_warnings():
        # Of a pickle newer than torch writes: it is read all the same, or refused below with a reason.
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        return torch.load(opened, map_location="cpu", weights_only=True)


def _numpy_scalars() -> list[Any]:
    """Return what a number of NumPy, such as a best accuracy, is read by; its constructor only copies bytes."""
    import numpy as np

    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _refusal(file: str, reason: str) -> Exception:
    """Return the error for what torch's restricted reader did not take. Its own words advise to lift the restriction."""
    name = re.search(r"GLOBAL (\S+)", reason) or re.search(r"[Cc]lass (\S+)", reason)
    if name is None:
        return UsageError(f"{file}: a pickle that is no file of weights, or a damaged one", READABLE)
    found = f"{file}: holds a Python object ({name[1].strip('`.,')}), which is not loaded because loading it could run code"
    return UsageError(found, READABLE, "where the file was made: torch.save(model.state_dict(), FILE)")
