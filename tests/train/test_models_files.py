"""Files of weights that are none: each is named and described, and no error speaks of turning off torch's protection."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shards.core.errors import ProvenderError, TornFileError, UsageError
from train.models.files import find_file
from train.models.foreign import load_weights, read_weights
from train.models.towers import build_tower


class Evil:
    """What a hostile pickle does when it is loaded without protection."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("evil-was-here"),))  # type: ignore[return-value]


def torn(path: Path, share: float, write: Callable[[Path], None]) -> None:
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def scripted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # the members by which TorchScript archives differ
        for name in ("model/data.pkl", "model/constants.pkl", "model/code/__torch__.py"):
            archive.writestr(name, b"")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "a.py")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"")


def in_memory(write: Callable[[io.BytesIO, np.ndarray], None], array: np.ndarray) -> bytes:
    file = io.BytesIO()
    write(file, array)
    return file.getvalue()


def tensors() -> dict[str, torch.Tensor]:
    return {"conv1.weight": torch.randn(64, 64)}


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "an empty file"),
    "text": (lambda p: p.write_text("hello there\nsecond line"), "a text file that begins 'hello there'"),
    "html": (lambda p: p.write_text("\n<!DOCTYPE html><html>Sign in</html>"), "an HTML page"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS pointer"),
    "json": (lambda p: p.write_text(json.dumps({"embed_dim": 512})), "a text file that begins '{\"embed_dim\": 512}'"),
    "noise": (
        lambda p: p.write_bytes(bytes(range(128, 256)) * 40),
        "a binary file of an unknown kind|cut off or damaged|no file of weights",
    ),
    "numpy": (lambda p: p.write_bytes(in_memory(np.save, np.zeros(3))), "a NumPy array"),
    "npz": (lambda p: p.write_bytes(in_memory(np.savez, np.zeros(3))), "a NumPy archive"),
    "jpeg": (lambda p: p.write_bytes(b"\xff\xd8\xff\xe0" + b"\x00" * 90), "a JPEG image"),
    "tar": (tarred, "a tar archive"),
    "zip": (zipped, "a zip archive of photo.jpg"),
    "script": (scripted, "a TorchScript archive"),
    "no tensors": (lambda p: torch.save({"epoch": 3, "args": {"lr": 0.1}}, p), "holds no named tensors, only 'epoch', 'args'"),
    "empty dictionary": (lambda p: torch.save({}, p), "an empty dictionary"),
    "a list": (lambda p: torch.save([torch.zeros(3)], p), "holds a list, not named tensors"),
    "a tensor": (lambda p: torch.save(torch.zeros(3), p), "holds a Tensor, not named tensors"),
    "a module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), "holds a Python object"),
    "a hostile pickle": (lambda p: p.write_bytes(pickle.dumps({"state_dict": Evil()})), "holds a Python object|no file of weights"),
    "torn torch": (lambda p: torn(p, 0.7, lambda q: torch.save(tensors(), q)), "cut off"),
    "torn legacy": (
        lambda p: torn(p, 0.7, lambda q: torch.save(tensors(), q, _use_new_zipfile_serialization=False)),
        "cut off or damaged",
    ),
    "torn safetensors": (lambda p: torn(p, 0.7, lambda q: save_file(tensors(), q)), "a safetensors file that is cut off"),
    "another model": (lambda p: torch.save({"encoder.layer.0.weight": torch.zeros(3, 3)}, p), "weights of another model: 0 of the"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_file_of_weights_is_described(case: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, words = CASES[case]
    file = tmp_path / f"weights{suffix}"
    write(file)
    tower = build_tower("tiny-vit-32")
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    with pytest.raises(ProvenderError, match=words) as caught:
        load_weights(tower, str(file))
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "weights_only" not in message
    assert "allowlist" not in message
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())
    assert not Path("evil-was-here").exists()
    assert isinstance(caught.value, TornFileError if case.startswith("torn") else (UsageError, TornFileError))


def test_the_object_that_is_not_loaded_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"state_dict": tensors(), "model": torch.nn.Linear(2, 2)}, file)
    with pytest.raises(UsageError, match=r"torch\.nn\.modules\.linear\.Linear") as caught:
        read_weights(str(file))
    assert "torch.save(model.state_dict(), FILE)" in caught.value.advice


def test_what_timm_and_slip_keep_beside_the_weights_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth.tar"
    rest = {"args": argparse.Namespace(lr=0.1, model="vit"), "metric": np.float64(81.2), "best": np.int64(3), "epoch": 7}
    torch.save({**rest, "state_dict": tensors()}, file)
    weights, facts = read_weights(str(file))
    assert list(weights) == ["conv1.weight"]
    assert (facts.tensors, facts.format, facts.provenance) == (1, "torch", "unknown")


def test_a_missing_file_and_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of weights at"):
        find_file(str(tmp_path / "nothing.pt"))
    with pytest.raises(UsageError, match="a folder without weights"):
        find_file(str(tmp_path))
    for name in ("model.safetensors", "open_clip_model.safetensors", "checkpoint.pt"):  # a later name is preferred
        (tmp_path / name).touch()
        assert find_file(str(tmp_path)) == f"{tmp_path}/{name}"


def test_weights_come_from_other_places_too() -> None:
    import fsspec
    from safetensors.torch import save

    for name, content in (("w.safetensors", save(tensors())),):
        with fsspec.open(f"memory://models/{name}", "wb") as file:
            file.write(content)
        weights, facts = read_weights(f"memory://models/{name}")
        assert weights["conv1.weight"].shape == (64, 64)
        assert facts.format == "safetensors"
