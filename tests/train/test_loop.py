"""The whole loop on a few drawn samples: it learns, it resumes to the bit, it stops when it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from train import cli, loop
from train.config import TrainConfig
from train.model import build_model, load_checkpoint

MakeShards = Callable[..., str]


MICRO = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(autouse=True, scope="module")
def _a_model_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user's own configuration, made known to open_clip; small, since these tests save many checkpoints."""
    import open_clip

    file = tmp_path_factory.mktemp("models") / "micro-rn.json"
    file.write_text(json.dumps(MICRO))
    open_clip.add_model_config(file)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(build: str, output: Path | str, **values: Any) -> TrainConfig:
    tiny = {"model": "micro-rn", "batch_size": 16, "epochs": 2.0, "lr": 2e-3, "log_every": 4, "workers": 1, "json": True}
    if "samples_seen" in values:
        tiny["epochs"] = None  # type: ignore[assignment]
    return TrainConfig.from_flags({"manifest": (build,), "output": str(output), "tensorboard": False, **tiny, **values})


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "checkpoint.pt", weights_only=True)["model"]


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_the_loss_goes_down(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert loop.clip(config(make_shards(64), out, epochs=12.0, tensorboard=True)) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    rows = lines(out)
    assert [row["step"] for row in rows] == list(range(4, 49, 4))
    assert rows[-1]["samples_seen"] == 48 * 16 == result["samples_seen"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["epoch"] == 12.0
    assert result["checkpoint"] == str(out / "checkpoint.pt")
    assert result["steps"] == 48
    assert "steps      48, of which 4 warm-up" in captured.err
    assert "samples    64 to an epoch" in captured.err
    assert any((out / "tensorboard").iterdir())
    assert TrainConfig.from_flags({"config": str(out / "config.yaml")}).digest == config("", out, epochs=12.0).digest


def test_resuming_at_any_step_gives_the_same_bits(make_shards: MakeShards, tmp_path: Path) -> None:
    build, whole = make_shards(40), tmp_path / "whole"
    options: dict[str, Any] = {"checkpoint_every": 1, "epochs": None, "samples_seen": 5 * 16, "grad_clip": 1.0, "captions": "sampled"}
    options["augment"] = {"flip": 0.5, "color_jitter": [0.4, 0.4, 0.4, 0.1], "scale": [0.5, 1.0]}
    loop.clip(config(build, whole, keep=100, **options))
    expected = weights(whole)
    for step in (1, 4):
        part = tmp_path / f"from-{step}"
        part.mkdir()
        shutil.copy(whole / f"checkpoint-{step:09d}.pt", part / "checkpoint.pt")
        loop.clip(config(build, part, workers=2, **options))
        resumed = weights(part)
        assert all(torch.equal(resumed[name], expected[name]) for name in expected), f"from step {step}"
    optimizers = [torch.load(p / "checkpoint.pt", weights_only=True)["optimizer"] for p in (whole, part)]
    moments = [o["state"][0]["exp_avg_sq"] for o in optimizers]
    assert torch.equal(*moments)


def test_equal_seeds_equal_weights_and_others_differ(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        loop.clip(config(build, tmp_path / name, seed=seed, epochs=1.0))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["visual.conv1.weight"], c["visual.conv1.weight"])


def test_a_finished_training_has_nothing_to_do(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, out = make_shards(20), tmp_path / "run"
    loop.clip(config(build, out))
    before = (out / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert loop.clip(config(build, out)) == 0
    captured = capsys.readouterr()
    assert "nothing to do" in captured.err
    assert json.loads(captured.out)["steps"] == 3
    assert (out / "checkpoint.pt").read_bytes() == before


def test_a_continued_log_has_each_step_once(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(32), tmp_path / "run"
    options: dict[str, Any] = {"checkpoint_every": 3, "keep": 9, "log_every": 1, "samples_seen": 8 * 16}
    loop.clip(config(build, out, **options))
    first = lines(out)
    shutil.copy(out / "checkpoint-000000003.pt", out / "checkpoint.pt")
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    loop.clip(config(build, out, **options))
    assert [row["step"] for row in lines(out)] == list(range(1, 9))
    assert [row["loss"] for row in lines(out)] == [row["loss"] for row in first]


def test_another_data_set_or_setting_is_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, other, out = make_shards(20), make_shards(20, "other", seed=5), tmp_path / "run"
    loop.clip(config(build, out, epochs=1.0))
    for changed in (config(other, out, epochs=1.0), config(build, out, epochs=1.0, lr=0.1), config(build, out, epochs=1.0, samples=10)):
        with pytest.raises(UsageError, match="is of another training"):
            loop.clip(changed)
    assert loop.clip(config(other, out, epochs=1.0, resume="never")) == 0


def test_a_loss_that_is_no_number_names_its_batch(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(32), tmp_path / "run"
    with pytest.raises(RunError, match="not a number") as error:
        loop.clip(config(build, out, lr=1e30, warmup=0, samples_seen=20 * 16, checkpoint_every=100))
    named = json.loads((out / "bad-batch.json").read_text())
    known = {sample.key for sample in read_samples(read_manifest(build))}
    assert len(named["uids"]) == 16
    assert set(named["uids"]) <= known
    assert named["uids"][0] in str(error.value)
    assert f"step {named['step']}:" in str(error.value)
    assert error.value.exit_code == 1
    assert not (out / "checkpoint.pt").exists()


def test_a_plan_is_printed_and_nothing_written(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.clip(config(make_shards(40), tmp_path / "run", dry_run=True, epochs=3.0, warmup=2)) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"steps": 8, "warmup": 2, "samples_seen": 128, "epochs": 3.2}
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="a warm-up of 8 steps in a training of 8"):
        loop.clip(config(make_shards(40), tmp_path / "run", epochs=3.0, warmup=8))
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_a_model_to_use(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(24), tmp_path / "run"
    loop.clip(config(build, out, samples=20, augment={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}))
    loaded = load_checkpoint(str(out))
    assert (loaded.image_size, loaded.step, loaded.samples_seen) == (32, 3, 48)
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)
    assert loaded.manifests == [{"digest": read_manifest(build).digest, "weight": None, "samples": 20}]
    assert loaded.config["model"] == "micro-rn"
    assert not loaded.model.training
    stored = weights(out)
    assert all(torch.equal(value, stored[name]) for name, value in loaded.model.state_dict().items())
    with torch.no_grad():
        images = loaded.model.encode_image(torch.zeros(2, 3, 32, 32), normalize=True)
        texts = loaded.model.encode_text(loaded.tokenize(["a red circle"]), normalize=True)
    assert images.shape == (2, 32)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(1))


def test_builds_are_mixed_by_share(make_shards: MakeShards, tmp_path: Path) -> None:
    a, b = make_shards(24, "a"), make_shards(40, "b", seed=3)
    both = config("", tmp_path / "run", manifest=(f"{a}@3", f"{b}@1"), epochs=None, samples_seen=64)
    assert loop.clip(both) == 0
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["manifests"]
    assert [(m["weight"], m["samples"]) for m in saved] == [(3.0, 24), (1.0, 40)]


@pytest.mark.slow
def test_bfloat16_and_vision_transformers_train_too(make_shards: MakeShards, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "tiny-vit-32", "precision": "bf16", "channels_last": False, "epochs": 1.0}
    assert loop.clip(config(make_shards(32), tmp_path / "run", **options)) == 0
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "run").values() if value.is_floating_point())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is about machines without CUDA")
def test_float16_and_absent_devices_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(8)
    with pytest.raises(UsageError, match="float16 on a CPU"):
        loop.clip(config(build, tmp_path / "run", precision="amp"))
    with pytest.raises(UsageError, match="no CUDA device"):
        loop.clip(config(build, tmp_path / "run", device="cuda"))


def test_the_logit_scale_stays_within_clips_bounds() -> None:
    from train.tasks.clip import build

    task = build(config("", "", epochs=1.0))
    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (2.0, float(torch.tensor(2.0).exp()))):
        with torch.no_grad():
            task.model.logit_scale.fill_(value)
        task.constrain()
        assert float(task.gauges()["logit_scale"]) == pytest.approx(kept, rel=1e-5)


def test_unknown_models_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError) as error:
        build_model("tiny-rn-3")
    assert "did you mean 'tiny-rn-32'?" in str(error.value)
    with pytest.raises(UsageError, match="tokenizer"):
        build_model("ViT-B-16-SigLIP")


def test_the_command_line(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, out = make_shards(20), tmp_path / "run"
    flags = ["clip", "--manifest", f"{build}/manifest.json", "--output", str(out), "--config", "clip-tiny-cpu", "--model", "micro-rn"]
    assert cli.main([*flags, "--epochs", "1", "--batch-size", "8", "--no-tensorboard"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}/checkpoint.pt: 3 steps, 24 samples seen, loss ")
    assert cli.main(["clip", "--manifest", str(tmp_path / "absent"), "--output", str(out), "--epochs", "1"]) == 2
    assert cli.main(["clip", "--manifest", build, "--output", str(out)]) == 2
    assert "exactly one of --epochs and --samples-seen" in capsys.readouterr().err
