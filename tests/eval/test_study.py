"""Studies: the file is read strictly, jobs are known by content, a rerun does what is missing, and a failure stops only what needs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.cli import main
from eval.study import run as running
from eval.study.command import StudyConfig, slurm_script
from eval.study.jobs import Job, arguments_of, plan
from eval.study.spec import read
from shards.core.errors import UsageError
from shards.manifest import read_manifest
from tests.curate.drawing import captioned_folder, encoded, picture

MakeShards = Callable[..., str]


@pytest.fixture
def world(make_shards: MakeShards, tmp_path: Path) -> Callable[..., str]:
    """Write a study file over two builds and a packed set; changes replace its keys."""
    builds = {name: make_shards(24, name, classes=True, seed=seed) for seed, name in enumerate(("one", "two"))}
    labelled = {split: make_shards(24, split, classes=True, seed=9 + at) for at, split in enumerate(("train", "test"))}
    target = str(tmp_path / "target")
    assert main(["pack", "toy", "--parts", f"train={labelled['train']}", f"test={labelled['test']}", "--output", target]) == 0

    def write(**changes: Any) -> str:
        study = {
            "sources": {name: {"manifest": path} for name, path in builds.items()},
            "sizes": [6, 12],
            "draws": 2,
            "objectives": {"supervised": {"flags": {"lr": 1e-3}}, "scratch": {}},
            "models": ["tiny-rn-32"],
            "train": {"samples_seen": 16, "batch_size": 8, "device": "cpu"},
            "targets": {"toy": target},
            "protocols": [{"protocol": "probe", "k": "2", "seeds": 2}, {"protocol": "zeroshot"}],
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**study, **changes}))
        return str(path)

    return write


def jobs_of(path: str) -> list[Job]:
    return plan(read(path), path.removesuffix(".yaml"))


def test_windows_nest_over_sizes_and_draws_are_disjoint(world: Callable[..., str]) -> None:
    jobs = jobs_of(world())
    windows = [job.command[job.command.index("--window") + 1] for job in jobs if job.kind == "subset"]
    assert windows == ["0:6", "12:18", "0:12", "12:24"] * 2
    kinds = [job.kind for job in jobs]
    assert kinds.count("train") == 2 * 2 * 2  # sources × sizes × draws; scratch trains nothing
    assert kinds.count("evaluate") == 8  # probes alone: a classifier reads no text
    assert [job.labels["draw"] for job in jobs if job.kind == "train"] == [0, 1, 0, 1] * 2
    assert len({job.key for job in jobs}) == len(jobs)


def test_keys_follow_content_and_nothing_else(world: Callable[..., str], tmp_path: Path) -> None:
    first = {job.key for job in jobs_of(world())}
    assert {job.key for job in plan(read(world()), str(tmp_path / "elsewhere"))} == first
    assert {job.key for job in jobs_of(world(name="another page"))} == first
    more = {job.key for job in jobs_of(world(sizes=[6, 12, 9]))}
    assert first < more  # nothing is done anew because something is added
    other = {job.key for job in jobs_of(world(train={"samples_seen": 24, "batch_size": 8, "device": "cpu"}))}
    assert {job.key for job in jobs_of(world()) if job.kind == "subset"} == first & other


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"sizs": [1]}, "sizs"),
        ({"sizes": []}, "no sizes"),
        ({"sizes": [20]}, "24 samples; 2 draws of 20 need 40"),
        ({"objectives": {"clipp": {}}}, "clipp"),
        ({"objectives": {"clip": {"flgas": {}}}}, "flgas"),
        ({"protocols": [{"protocol": "prob"}]}, "prob"),
        ({"protocols": [{"protocol": "probe", "shots": 5}]}, "--shots"),
        ({"train": {"sampels_seen": 16}}, "--sampels-seen"),
        ({"targets": {"toy": "."}}, "no packed set"),
        ({"sources": {"one": "nowhere"}}, "no manifest"),
        ({"sources": {"one": {"flags": {}}}}, "neither manifest nor recipe"),
        ({"sources": {"one": {"recipe": "nowhere.yaml"}}}, "no recipe file"),
        ({"sources": {"one": {"recipe": "pyproject.toml", "build": {"output": "x"}}}}, "the study says where its builds lie"),
        ({"draws": 0}, "draws"),
        ({"sources": {"one": {"recipe": "demo/recipe.yaml", "build": {"hsah": "fast"}}}}, "--hsah"),
    ],
)
def test_what_cannot_be_is_refused_before_a_job_runs(
    changes: dict[str, Any], what: str, world: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", world(**changes)]) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_scratch_and_stages(world: Callable[..., str], tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    changes: dict[str, Any] = {
        "sizes": [6],
        "draws": 1,
        "via": [{"name": "mid", "data": target, "flags": {"epochs": 1}}],
        "protocols": [{"protocol": "transfer", "k": "2", "lr": [1e-3]}],
    }
    jobs = jobs_of(world(**changes))
    evaluations = [job for job in jobs if job.kind == "evaluate"]
    assert [job.labels.get("via") for job in evaluations if job.labels["objective"] == "supervised"] == [None, None, "mid", "mid"]
    (scratch,) = [job for job in evaluations if job.labels["objective"] == "scratch"]
    assert scratch.labels["source"] == "none"
    assert scratch.command[scratch.command.index("--strategies") + 1] == "scratch"
    staged = [job for job in jobs if job.kind == "train" and job.labels.get("via")]
    assert all(job.command[:2] == ("train", "finetune") for job in staged)
    order = [job.key for job in jobs]
    assert all(order.index(need) < order.index(job.key) for job in jobs for need in job.needs)


def test_flags_become_arguments() -> None:
    flags = {"samples_seen": 10, "tensorboard": False, "ema": 0.9, "k": "1,5", "lr": [1e-3, 3e-3], "measure": True, "text": None}
    words = "--samples-seen 10 --no-tensorboard --ema 0.9 --k 1,5 --lr 0.001 0.003 --measure"
    assert arguments_of(flags) == words.split()


def command(build: str, folder: Path, name: str, *needs: str, fails: bool = False) -> Job:
    output = str(folder / "made" / name)
    window = "0:900" if fails else "0:4"
    return Job("subset", name, name * 8, ("shards", "subset", build, "--window", window, "--output", output, "--overwrite"), needs, output)


def test_a_failure_stops_only_what_needs_it_and_a_rerun_does_what_is_missing(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(8), str(tmp_path / "study")
    jobs = [command(build, tmp_path, "a"), command(build, tmp_path, "b", fails=True), command(build, tmp_path, "c", "b" * 8)]
    jobs.append(command(build, tmp_path, "d", "a" * 8))
    outcome = running.run(out, jobs, workers=2)
    assert set(outcome.done) == {"a" * 8, "d" * 8}
    assert outcome.failed["c" * 8] == "not run: b failed"
    assert "exit code 2" in outcome.failed["b" * 8]
    assert read_manifest(str(tmp_path / "made/d")).samples == 4
    log = Path(running.folder_of(out, jobs[1]), running.LOG).read_text()
    assert "asked for samples up to 900" in log
    mended = [jobs[0], command(build, tmp_path, "b"), *jobs[2:]]
    before = {name: (tmp_path / "made" / name / "manifest.json").stat().st_mtime_ns for name in "ad"}
    assert len(running.run(out, mended, workers=1).done) == 4
    assert {name: (tmp_path / "made" / name / "manifest.json").stat().st_mtime_ns for name in "ad"} == before
    (tmp_path / "made/a/manifest.json").unlink()
    (tmp_path / "made/a").rename(tmp_path / "gone")
    assert "a" * 8 not in running.finished(out, mended)  # its output is gone


def test_a_script_for_slurm_has_every_job_once(world: Callable[..., str]) -> None:
    path = world()
    jobs = jobs_of(path)
    script = slurm_script(StudyConfig(path), jobs)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert all(script.count(job.key[:16]) == 1 for job in jobs)
    assert "--array=0-7" in script
    assert script.index("subset=") < script.index("train=") < script.index("evaluate=")


@pytest.mark.slow
def test_a_whole_study_its_table_and_its_rerun(world: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real trainings and evaluations in processes of their own; interrupted once on the way."""
    path = world(draws=1, sizes=[12], protocols=[{"protocol": "probe", "k": "2", "seeds": 2}])
    code = f"import sys; from shards.core.start import evaluate; sys.argv[1:] = ['study', {path!r}]; sys.exit(evaluate())"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "study/jobs").glob("*/done.json")) and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "jobs are done" in errors
    capsys.readouterr()
    assert main(["study", path, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["labels"]["source"] for row in rows] == ["one", "two"]
    assert all(len(row["predictions"]) == 2 for row in rows)
    assert len(list((tmp_path / "study/results.predictions").iterdir())) == 4
    table = (tmp_path / "study/results.jsonl").read_bytes()
    started = time.monotonic()
    assert main(["study", path]) == 0
    assert (tmp_path / "study/results.jsonl").read_bytes() == table
    assert "6 of 6 jobs are done already" in capsys.readouterr().err
    assert time.monotonic() - started < 20  # nothing was trained anew


def test_a_source_is_built_from_its_recipe_first(world: Callable[..., str], tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", encoded(picture(i)), f"a picture of number {i}") for i in range(14)]
    folder = captioned_folder(tmp_path / "photos", rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"sources": [{"name": "photos", "reader": "folder", "input": str(folder)}]}))
    stated = {"recipe": str(recipe), "build": {"samples": 12, "workers": 1}}
    jobs = jobs_of(world(sources={"one": stated, "again": stated}, sizes=[4], draws=3))
    made = [job for job in jobs if job.kind == "build"]
    subsets = [job for job in jobs if job.kind == "subset"]
    assert len(made) == 1
    assert jobs[0] == made[0]
    assert all(job.needs == (made[0].key,) for job in subsets)
    assert {job.key for job in jobs_of(world(sources={"one": {**stated, "build": {"samples": 13}}}, sizes=[4], draws=3))}.isdisjoint(
        job.key for job in (*made, *subsets)
    )
    out = str(tmp_path / "study")
    outcome = running.run(out, [*made, *subsets], workers=1)
    assert not outcome.failed
    assert read_manifest(made[0].output).samples == 12
    assert [read_manifest(job.output).samples for job in subsets] == [4, 4, 4]
    assert set(running.finished(out, [*made, *subsets])) == {job.key for job in (*made, *subsets)}
    recipe.unlink()
    running.check_builds(out, jobs)  # what is made needs its recipe no more
    with pytest.raises(UsageError, match=r"sources\.again: no file and no recipe"):
        running.check_builds(str(tmp_path / "elsewhere"), jobs)


def test_two_names_of_one_build_share_their_draws(world: Callable[..., str], make_shards: MakeShards) -> None:
    build = make_shards(24, "shared", classes=True, seed=5)
    sources = {"plain": {"manifest": build}, "slow": {"manifest": build, "flags": {"lr": 1e-4}}}
    jobs = jobs_of(world(sources=sources, sizes=[12]))
    subsets = {job.key: job.output for job in jobs if job.kind == "subset"}
    trainings = [job for job in jobs if job.kind == "train"]
    assert len(subsets) == 2
    assert len(trainings) == 4
    assert all(job.command[job.command.index("--manifest") + 1] == subsets[job.needs[0]] for job in trainings)


def test_shots_beyond_a_class_are_refused_before_anything_is_trained(
    world: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", world(protocols=[{"protocol": "probe", "k": "100"}])]) == 2
    assert "100 shots asked for" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_what_is_gone_or_torn_is_not_done(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(8), str(tmp_path / "study")
    jobs = [command(build, tmp_path, name) for name in "abc"]
    assert len(running.run(out, jobs, workers=2).done) == 3
    (tmp_path / "made/a/manifest.json").unlink()
    manifest = tmp_path / "made/b/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:50])
    Path(running.folder_of(out, jobs[2]), running.DONE).write_text("{")
    assert running.finished(out, jobs) == {}
    assert len(running.run(out, jobs, workers=2).done) == 3
    assert read_manifest(str(tmp_path / "made/b")).samples == 4
