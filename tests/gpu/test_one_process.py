"""Joining processes, and training by DeepSpeed, on the device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu

GROUP = """
import sys
import torch
import torch.distributed as dist
from segearth.utils.processes import gather_objects, join_processes

process = join_processes(training=True)
ones = torch.ones(3, device=process.device)
dist.all_reduce(ones)
assert ones.tolist() == [1, 1, 1]
assert gather_objects({"rank": process.rank}, process.world_size) == [{"rank": 0}]
dist.barrier()
print(dist.get_backend(), process.device)
dist.destroy_process_group()
"""

TRAINING = """
import sys
from segearth.config import ExperimentConfig, from_dict
from segearth.training.trainer import Trainer

values = {
    "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
    "data": {"train": [{"name": "synthetic"}], "questions_per_image": 2, "num_workers": 0},
    "loss": {"num_points": 64},
    "train": {
        "output_dir": sys.argv[1], "max_steps": 3, "global_batch_size": 2, "micro_batch_size": 1, "log_every": 1,
        "ema_decay": 0.9, "deepspeed": sys.argv[2],
    },
}
if sys.argv[2] == "zero3":
    values["train"]["ema_decay"] = 0.0
Trainer(from_dict(ExperimentConfig, values)).run()
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_group_of_one_process(device: torch.device) -> None:
    backend, place = run(GROUP).split()[-2:]
    assert (backend, place) == (("nccl", "cuda:0") if device.type == "cuda" else ("gloo", "cpu"))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="training needs deepspeed")
@pytest.mark.parametrize("settings", ["zero2", "zero3"])
def test_training_by_deepspeed(device: torch.device, tmp_path: Path, settings: str) -> None:
    from segearth.models.segearth import SegEarth

    run(TRAINING, str(tmp_path / "run"), settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "total" in line]  # the others tell of validation
    assert [step["total"] > 0 for step in steps] == [True] * 3
    model = SegEarth.from_pretrained(tmp_path / "run")
    assert all(value.isfinite().all() for value in model.state_dict().values())
