"""What is told of the steps since the last log line: mean losses, speed, and the share of time waited for data."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from segearth.losses.criterion import LOSS_NAMES

logger = logging.getLogger(__name__)
SUMMED = ("total", *LOSS_NAMES)
MOST_WAIT = 5.0  # percent: where the device waits longer for data, the log advises more workers


class Window:
    """Losses since the last log line, kept on the device so that a step never waits for them.

    Attributes:
        steps: Steps since then.
        waited: Seconds since then in which the device waited for data.
        ids: The questions of the last batch, for messages.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ids: list[str] = []
        self.total = self.total_waited = 0.0  # seconds since the start
        self._clear()

    def _clear(self) -> None:
        self.sums = torch.zeros(len(SUMMED), device=self.device)
        self.steps, self.waited, self.start = 0, 0.0, time.perf_counter()

    def add(self, losses: Any, accumulation: int, ids: list[str]) -> None:
        """Adds the losses of one of the ``accumulation`` micro-batches of a step."""
        self.sums += torch.stack([getattr(losses, name).detach().float() for name in SUMMED]) / accumulation
        self.ids = ids

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time spent inside, such as for saving and validating, of speed and share of waiting."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.start += time.perf_counter() - began

    def flush(self, world_size: int) -> dict[str, float]:
        """Returns the means over steps and processes and begins anew; every process must call it."""
        if world_size > 1:
            dist.all_reduce(self.sums)
        means = (self.sums / world_size / self.steps).tolist()
        elapsed = time.perf_counter() - self.start
        self.total, self.total_waited = self.total + elapsed, self.total_waited + self.waited
        facts = {name: round(value, 5) for name, value in zip(SUMMED, means, strict=True)}
        facts |= {"steps_per_second": self.steps / elapsed, "data_wait": round(self.waited / elapsed, 4)}
        self._clear()
        return facts

    def log_wait(self) -> None:
        """Logs which share of the whole run was waited for data."""
        share = 100 * self.total_waited / max(self.total, 1e-9)
        hint = "; raise data.num_workers" if share > MOST_WAIT else ""
        logger.info("waited for data %.1f %% of %.0f s%s", share, self.total, hint)
