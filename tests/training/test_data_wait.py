"""How long training and evaluation wait for data: measured, told, and little."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segearth.config import ExperimentConfig, from_dict
from segearth.utils.threads import one_ahead

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from segearth.training import trainer
from segearth.training.trainer import Trainer


class Slow:
    """Batches that come late."""

    def __init__(self, batches: Any, seconds: float) -> None:
        self.batches, self.seconds = batches, seconds

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            time.sleep(self.seconds)
            yield batch


def test_the_wait_is_in_the_log_and_in_the_closing_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = trainer.build_loader
    monkeypatch.setattr(trainer, "build_loader", lambda *args: Slow(build(*args), 0.5))
    values = {
        "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
        "data": {"train": [{"name": "synthetic"}], "val": [], "questions_per_image": 1, "num_workers": 0},
        "loss": {"num_points": 64},
        "train": {
            "output_dir": str(tmp_path), "max_steps": 2, "global_batch_size": 1, "micro_batch_size": 1, "log_every": 1,
        },
    }  # fmt: skip
    caplog.set_level(logging.INFO, "segearth")
    start = time.perf_counter()
    Trainer(from_dict(ExperimentConfig, values)).run()
    elapsed = time.perf_counter() - start
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    for line in lines:
        step = 1 / line["images_per_second"]  # one image a step
        assert line["data_wait"] * step * 1.01 >= 0.5 and line["data_wait"] <= 1 and step < elapsed
    assert "waited for data" in caplog.messages[-1] and caplog.messages[-1].endswith("raise data.num_workers")


def test_samples_are_read_while_the_one_before_is_used() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for index in (3, 1, 2):
            read.append(index)
            yield 10 * index

    samples = one_ahead(items())
    assert next(samples) == 30
    deadline = time.monotonic() + 5
    while read != [3, 1] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read == [3, 1]  # one ahead, not all
    assert list(samples) == [10, 20]
    assert list(one_ahead([])) == []


def test_an_error_of_reading_comes_through() -> None:
    samples = one_ahead(([1][index],) for index in (0, 5))
    assert next(samples) == (1,)
    with pytest.raises(IndexError):
        next(samples)
