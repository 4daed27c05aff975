"""Speed and shares of time, on a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from segearth.training import window as room
from segearth.training.window import LOSS_NAMES, Window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(room.time, "perf_counter", lambda: clock.now)
    return clock


def losses(value: float) -> SimpleNamespace:
    return SimpleNamespace(**{name: torch.tensor(value) for name in LOSS_NAMES})


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
