"""Speed and shares of time, on a clock that the test turns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segearth.config import TrainConfig
from segearth.training import window as room
from segearth.training.journal import Journal
from segearth.training.window import SUMMED, Window
from segearth.utils.processes import Process


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(room.time, "perf_counter", lambda: clock.now)
    return clock


def losses(value: float) -> SimpleNamespace:
    return SimpleNamespace(**{name: torch.tensor(value) for name in SUMMED})


def test_saving_counts_into_neither_speed_nor_share(clock: SimpleNamespace) -> None:
    window = Window(torch.device("cpu"))
    for _ in range(4):
        clock.now += 2.0
        window.waited += 0.5
        window.add(losses(1.0), 1, ["a"])
        window.steps += 1
        with window.paused():
            clock.now += 50.0
    facts = window.flush(world_size=1)
    assert facts["steps_per_second"] == pytest.approx(4 / 8)
    assert facts["data_wait"] == pytest.approx(0.25)
    assert (window.total, window.total_waited) == (8.0, 2.0)


def test_a_save_that_fails_ends_the_pause(clock: SimpleNamespace) -> None:
    window = Window(torch.device("cpu"))
    with pytest.raises(OSError), window.paused():
        clock.now += 50.0
        raise OSError
    clock.now += 1.0
    window.steps = 1
    assert window.flush(world_size=1)["steps_per_second"] == pytest.approx(1.0)


def test_losses_are_means_over_steps_whatever_is_accumulated(clock: SimpleNamespace) -> None:
    window = Window(torch.device("cpu"))
    for values in ((1.0, 3.0), (5.0, 7.0)):
        for value in values:
            window.add(losses(value), 2, [])
        window.steps += 1
    clock.now += 1.0
    assert window.flush(world_size=1)["total"] == pytest.approx(4.0)


def test_a_loss_that_is_off_by_default_is_named_where_it_is_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the others a zero is news, such as a text loss of zero where no question has an answer."""
    journal = Journal(tmp_path, TrainConfig(), 0, Process(0, 1, torch.device("cpu")))
    rest = {"images_per_second": 1.0, "data_wait": 0.0}
    with caplog.at_level("INFO"):
        journal.note_losses(0, {**dict.fromkeys(SUMMED, 0.0), **rest})
        journal.note_losses(1, {**dict.fromkeys(SUMMED, 0.5), **rest})
    off, on = caplog.messages
    assert "(bce 0.000 dice 0.000 presence 0.000 text 0.000)" in off
    assert "(bce 0.500 dice 0.500 presence 0.500 text 0.500 classes 0.500 boxes 0.500 choice 0.500)" in on
