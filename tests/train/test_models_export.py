"""What is exported, open_clip, timm and torchvision load by their own functions, and it computes what our model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shards.core.errors import UsageError
from train import checkpoint
from train.commands.export import ExportConfig, run
from train.models.clip import build_clip
from train.models.elsewhere import load_foreign
from train.models.export import export
from train.models.load import load_checkpoint
from train.models.towers import build_tower

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def saved(folder: Path, model: nn.Module, name: str, image_size: int | None = None, **more: Any) -> str:
    config = {
        "task": "clip",
        "text": "",
        "model": name,
        "image_size": image_size,
        "augment": {"mean": list(MEAN), "std": list(STD)},
        **more,
    }
    state = {
        "task": "clip",
        "ema": None,
        "state_dict": model.state_dict(),
        "step": 7,
        "samples_seen": 448,
        "manifests": [],
        "config": config,
    }
    folder.mkdir(exist_ok=True)
    return checkpoint.save(str(folder), state)


def trained(name: str, image_size: int | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    return build_clip(name, image_size, **options).eval()


def check_equal(theirs: nn.Module, ours: nn.Module, side: int) -> None:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 49408, (2, 24), generator=torch.Generator().manual_seed(0))
    theirs = theirs.eval()
    assert torch.equal(theirs.encode_image(images), ours.encode_image(images))
    assert torch.equal(theirs.encode_text(tokens), ours.encode_text(tokens))


MODELS: dict[str, tuple[str, int | None, dict[str, Any], int]] = {
    "ours": ("tiny-rn-32", None, {}, 32),
    "another size": ("tiny-vit-32", 64, {}, 64),
    "timm": ("timm/test_resnet", 64, {"text": "tiny-vit-32"}, 64),
    "torchvision": ("torchvision/resnet18", 64, {"text": "tiny-vit-32", "embed_dim": 64}, 64),
    "siglip": ("tiny-vit-32", None, {"siglip": True}, 32),
    "quick": ("tiny-vit-32", None, {"quick_gelu": True}, 32),
}


@pytest.mark.parametrize("case", MODELS)
def test_open_clip_loads_the_folder(case: str, tmp_path: Path) -> None:
    import open_clip
    from torchvision.transforms import Normalize

    name, size, options, side = MODELS[case]
    model = trained(name, size, **options)
    out = str(tmp_path / "hf")
    exported = export(saved(tmp_path, model, name, size, **options), "hf", out)
    assert exported.load == f"open_clip.create_model_and_transforms('local-dir:{out}')"
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{out}")
    check_equal(theirs, model, side)
    normalise = next(step for step in transform.transforms if isinstance(step, Normalize))
    assert (tuple(normalise.mean), tuple(normalise.std)) == (MEAN, STD)
    assert open_clip.get_tokenizer(f"local-dir:{out}")(["a cat"]).shape == (1, 24)
    if options.get("siglip"):
        assert theirs.logit_bias.item() == -10


@pytest.mark.parametrize("case", MODELS)
def test_open_clip_loads_the_file_by_the_line_that_is_printed(case: str, tmp_path: Path) -> None:
    import open_clip

    name, size, options, side = MODELS[case]
    model = trained(name, size, **options)
    exported = export(saved(tmp_path, model, name, size, **options), "open_clip", str(tmp_path / "out" / "w.pt"))
    assert exported.files[0] == str(tmp_path / "out" / "w.pt")
    described = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert described["preprocess_cfg"]["mean"] == list(MEAN)
    register, _, create = exported.load.rpartition("; ")
    if register:
        eval(register, {"open_clip": open_clip})
    theirs, _, _ = eval(create, {"open_clip": open_clip})
    check_equal(theirs, model, side)


@pytest.mark.parametrize("changed", [{"quick_gelu": True}, {"augment": {"mean": [0.5, 0.5, 0.5], "std": list(STD)}}])
def test_another_exports_configuration_is_not_written_over(changed: dict[str, Any], tmp_path: Path) -> None:
    """Two exports of one model share a folder; one with other options would change what the first computes, and is refused."""
    first = saved(tmp_path / "first", trained("tiny-vit-32"), "tiny-vit-32")
    quick = {name: value for name, value in changed.items() if name == "quick_gelu"}
    other = saved(tmp_path / "other", trained("tiny-vit-32", **quick), "tiny-vit-32", **changed)
    out = tmp_path / "out"
    exported = export(first, "open_clip", str(out / "a.pt"))
    assert [Path(file).name for file in exported.files] == ["a.pt", "open_clip_config.json", "a.json"]
    export(first, "open_clip", str(out / "b.pt"))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert sorted(before) == ["a.json", "a.pt", "b.json", "b.pt", "open_clip_config.json"]
    with pytest.raises(UsageError, match=r"open_clip_config\.json is there already, with other content") as error:
        export(other, "open_clip", str(out / "c.pt"))
    assert "--overwrite" in error.value.advice
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    export(other, "open_clip", str(out / "c.pt"), overwrite=True)
    after = {file.name: file.read_bytes() for file in out.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"open_clip_config.json"}


def test_a_file_named_like_a_model_of_open_clip_does_not_take_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", trained("tiny-vit-32"), "tiny-vit-32")
    exported = export(path, "open_clip", str(tmp_path / "ViT-B-32.pt"))
    assert Path(exported.files[2]).name == "ViT-B-32-provender.json"
    assert "create_model_and_transforms('ViT-B-32-provender', pretrained=" in exported.load


@pytest.mark.slow
def test_a_model_that_open_clip_has_loads_by_its_name_alone(tmp_path: Path) -> None:
    import open_clip

    model = trained("RN50")
    file = str(tmp_path / "rn50.pt")
    exported = export(saved(tmp_path, model, "RN50"), "open_clip", file)
    assert exported.load.startswith("open_clip.create_model_and_transforms('RN50', pretrained=")
    theirs, _, _ = open_clip.create_model_and_transforms("RN50", pretrained=file)
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(theirs.eval().encode_image(images), model.encode_image(images))


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/resnet18"])
def test_a_towers_weights_load_into_its_library(name: str, tmp_path: Path) -> None:
    import safetensors.torch
    import timm
    import torchvision

    tower = build_tower(name).eval()
    exported = export(saved(tmp_path, tower, name), "safetensors", str(tmp_path / "w.safetensors"))
    made, _, rest = exported.load.partition(".load_state_dict(")
    theirs = eval(made, {"timm": timm, "torchvision": torchvision})
    modules = {"theirs": theirs, "safetensors": safetensors}
    eval(f"theirs.load_state_dict({rest}", modules)
    if "torchvision" in name:
        theirs.fc = nn.Identity()
    images = torch.randn(1, 3, tower.image_size, tower.image_size)
    assert torch.equal(theirs.eval()(images), tower(images))


def test_a_clips_safetensors_keep_their_names_and_come_back(tmp_path: Path) -> None:
    model = trained("tiny-rn-32").to(memory_format=torch.channels_last)
    file = str(tmp_path / "deep" / "w.safetensors")
    export(saved(tmp_path, model, "tiny-rn-32"), "safetensors", file)
    loaded = load_foreign(file, "tiny-rn-32", MEAN, STD)
    check_equal(loaded.model, load_checkpoint(str(tmp_path)).model, 32)
    assert (loaded.image_size, loaded.step, loaded.manifests, loaded.config["provenance"]) == (32, 0, [], "unknown")
    assert len(loaded.digest) == 64


def test_a_checkpoint_with_a_text_tower_of_its_own_comes_back(tmp_path: Path) -> None:
    options = {"text": "tiny-vit-32", "siglip": True}
    model = trained("timm/test_resnet", 64, **options)
    saved(tmp_path, model, "timm/test_resnet", 64, **options)
    loaded = load_checkpoint(str(tmp_path))
    check_equal(loaded.model, model, 64)
    assert loaded.tokenize(["a cat"]).shape == (1, 24)


def test_the_command_prints_files_and_the_line_that_loads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, trained("tiny-vit-32"), "tiny-vit-32")
    out = str(tmp_path / "hf")
    assert run(ExportConfig(checkpoint=path, output=out, format="hf")) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/open_clip_model.safetensors",
        f"{out}/open_clip_config.json",
        f"load it with: open_clip.create_model_and_transforms('local-dir:{out}')",
    ]
    with pytest.raises(UsageError, match="there already"):
        run(ExportConfig(checkpoint=path, output=out, format="hf"))
    assert run(ExportConfig(checkpoint=path, output=out, format="hf", overwrite=True, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["files"][0] == f"{out}/open_clip_model.safetensors"


def test_averaged_weights_are_written_where_there_are_some(tmp_path: Path) -> None:
    model = trained("tiny-vit-32")
    path = saved(tmp_path, model, "tiny-vit-32")
    with pytest.raises(UsageError, match="has no averaged weights"):
        export(path, "safetensors", str(tmp_path / "a.safetensors"), ema=True)
    state = checkpoint.read(path)
    doubled = {f"module.{name}": 2 * tensor for name, tensor in model.state_dict().items()}
    checkpoint.save(str(tmp_path), state | {"ema": {"updates": 1, **doubled}})
    export(path, "safetensors", str(tmp_path / "a.safetensors"), ema=True)
    written = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(written[name], 2 * tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "options", "match"),
    [("torchvision/swin_t", 64, {"text": "tiny-vit-32"}, "no such tower of torchvision"),
     ("timm/test_vit", 64, {"text": "tiny-vit-32"}, "open_clip would build model 'timm/test_vit' otherwise: visual.trunk.pos_embed")],
)  # fmt: skip
def test_what_open_clip_cannot_build_is_refused_before_anything_is_written(
    name: str, size: int, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "run", trained(name, size, **options), name, size, **options)
    with pytest.raises(UsageError, match=match) as caught:
        export(path, "hf", str(tmp_path / "hf"))
    assert "safetensors" in caught.value.advice
    assert not (tmp_path / "hf").exists()


def test_a_model_without_text_is_refused_and_so_are_odd_outputs(tmp_path: Path) -> None:
    path = saved(tmp_path, build_tower("tiny-rn-32"), "tiny-rn-32")
    with pytest.raises(UsageError, match="without a text tower"):
        export(path, "open_clip", str(tmp_path / "w.pt"))
    with pytest.raises(UsageError, match=r"ends in \.pt"):
        export(path, "open_clip", str(tmp_path / "w.safetensors"))
    with pytest.raises(UsageError, match="is there already"):
        export(path, "open_clip", path)  # a slip of the keyboard must not write over the checkpoint
    with pytest.raises(UsageError, match="is a file"):
        export(path, "hf", path)
