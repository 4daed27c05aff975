"""How processes find each other and their devices; GPUs are played by a fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from typer.testing import CliRunner

import segearth
from segearth.cli import app
from segearth.errors import ConfigError
from segearth.models.segearth import SegEarth
from segearth.utils.processes import gather_objects, join_processes, own_device

REPO = Path(__file__).parents[2]
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Two GPUs, and what was done with them and with the group, in order; this is rank 3 of 4, the second here."""
    done: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("device", str(device))))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: done.append(("group", backend)))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    return done


@pytest.mark.parametrize(("training", "backend"), [(True, "nccl"), (False, "gloo")])
def test_a_process_takes_its_own_gpu_before_it_meets_the_others(
    calls: list[tuple[str, Any]], training: bool, backend: str
) -> None:
    process = join_processes(training)
    assert calls == [("device", "cuda:1"), ("group", backend)]
    assert (process.rank, process.world_size, str(process.device)) == (3, 4, "cuda:1")
    assert not process.is_main


def test_apples_gpu_comes_before_the_cpu_but_never_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    assert own_device().type == join_processes().device.type == "mps"
    assert own_device(apple=False).type == join_processes(training=True).device.type == "cpu"
    assert own_device("cpu").type == "cpu"


def test_a_group_that_is_there_is_taken(calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    assert join_processes(training=True).rank == 3
    assert calls == [("device", "cuda:1")]


def test_more_processes_than_gpus_is_an_error_with_a_remedy(
    calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU, since it has 2; start with NGPU=2"):
        join_processes()
    assert calls == []


def test_alone_there_is_no_group_but_for_training(
    calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    process = join_processes()
    assert (process.rank, process.world_size, str(process.device)) == (0, 1, "cuda:0")
    assert process.is_main and calls == [("device", "cuda:0")] and "RANK" not in os.environ
    join_processes(training=True)
    assert calls[1:] == [("device", "cuda:0"), ("group", "nccl")]
    assert [os.environ[name] for name in LAUNCHER[:4]] == ["0", "0", "1", "127.0.0.1"]
    assert int(os.environ["MASTER_PORT"]) > 0
    for name in LAUNCHER:
        os.environ.pop(name)  # were set by the call, not by the fixture


def test_without_a_gpu_it_is_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert own_device() == torch.device("cpu")


def test_alone_one_gathers_oneself() -> None:
    assert gather_objects("mine", 1) == ["mine"]
    assert gather_objects("mine", 7) == ["mine"]  # no group of seven here


def test_groups_are_made_in_one_place() -> None:
    package = Path(segearth.__file__).parent
    makers = [p.name for p in package.rglob("*.py") if "init_process_group(" in p.read_text(encoding="utf-8")]
    assert makers == ["processes.py"]


@pytest.mark.slow
def test_two_processes_score_what_one_scores_and_need_no_deepspeed(debug_model: SegEarth, tmp_path: Path) -> None:
    debug_model.save_pretrained(tmp_path / "model")
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "deepspeed.py").write_text("raise ImportError('not installed')\n")
    (tmp_path / "experiment.yaml").write_text(
        "data:\n  train: [{name: synthetic, options: {length: 5, size: 64}}]\n"
        "  test: [{name: synthetic, split: test, options: {length: 5, size: 64}}]\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    paths = [str(tmp_path / "missing"), str(REPO), os.environ.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    # One image at a time: which images share a batch depends on the process, and with it the last digit.
    options = ["eval.batch_size=1", "--model", str(tmp_path / "model"), "--out"]
    arguments = [str(tmp_path / "experiment.yaml"), *options]
    alone = CliRunner().invoke(app, ["eval", *arguments, str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.output
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(REPO / "tools/evaluate.py"), *arguments, str(tmp_path / "two")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("report:") == 1  # the main process speaks
    one, two = ((tmp_path / name / "samples.jsonl").read_text() for name in ("one", "two"))
    assert one == two and len(one.splitlines()) >= 5
    scores = [json.loads((tmp_path / name / "report.json").read_text())["controls"] for name in ("one", "two")]
    assert scores[0] == scores[1]
