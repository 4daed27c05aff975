"""What a run writes down for people: lines in the log, ``metrics.jsonl``, ``curves.png`` and TensorBoard's events."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from segearth.config import LossConfig, TrainConfig
from segearth.errors import MissingExtraError
from segearth.losses.criterion import LOSS_NAMES
from segearth.training.curves import draw_curves
from segearth.training.validation import Score
from segearth.utils.logging import Eta, MetricsLog
from segearth.utils.processes import Process

logger = logging.getLogger(__name__)
METRICS, CURVES, BOARD = "metrics.jsonl", "curves.png", "tensorboard"


class Journal:
    """The main process writes; on the others every call does nothing."""

    def __init__(self, folder: Path, train: TrainConfig, first: int, process: Process) -> None:
        """Opens the files.

        Args:
            folder: The run's folder.
            train: ``max_steps`` and ``tensorboard`` are read.
            first: The step that comes next. What a run that was cut off wrote of this step and later ones is dropped.
            process: This process.

        Raises:
            MissingExtraError: tensorboard is asked for and not installed.
        """
        self.folder, self.train, self.eta = folder, train, Eta(train.max_steps, first)
        self.writes = process.is_main
        self.board = _open_board(folder / BOARD, first) if self.writes and train.tensorboard else None
        self.metrics = MetricsLog(folder / METRICS, keep_below_step=first) if self.writes else None

    def note_losses(self, step: int, facts: dict[str, Any]) -> None:
        """Writes what :meth:`Window.flush` returned after step ``step``, counted from 0."""
        if self.metrics is None:
            return
        self.metrics.write(step=step, **facts)
        self._show("train", step, facts)
        # Losses that are off unless an experiment asks for them are named only where they are on.
        shown = [name for name in LOSS_NAMES if facts[name] or getattr(LossConfig, name)]
        parts = [f"{name} {facts[name]:.3f}" for name in shown]
        logger.info(
            "step %d/%d  loss %.3f (%s)  %.1f images/s  data wait %.1f %%  left %s",
            step + 1, self.train.max_steps, facts["total"], " ".join(parts), facts["images_per_second"],
            100 * facts["data_wait"], self.eta.left(step + 1),
        )  # fmt: skip

    def note_score(self, step: int, score: Score, is_best: bool, best: Score, seconds: float) -> None:
        """Writes a validation after step ``step``, counted from 0, and draws the curves anew."""
        if self.metrics is None:
            return
        facts = score.facts() | {"val_seconds": round(seconds, 2), "val_is_best": is_best}
        self.metrics.write(step=step, **facts, best_step=best.step - 1, best_giou=round(best.giou, 6))
        self._show("validation", step, {name.removeprefix("val_"): value for name, value in facts.items()})
        self.draw()

    def draw(self) -> None:
        """Draws the curves so far."""
        if self.writes:
            draw_curves(self.folder / METRICS, self.folder / CURVES)

    def close(self) -> None:
        """Draws the curves for the last time and closes the files."""
        self.draw()
        if self.metrics is not None:
            self.metrics.close()
        if self.board is not None:
            self.board.close()

    def _show(self, group: str, step: int, facts: dict[str, Any]) -> None:
        if self.board is None:
            return
        for name, value in facts.items():
            if value is not None and not isinstance(value, bool):
                self.board.add_scalar(f"{group}/{name}", value, step)


def _open_board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train", error) from error
    return SummaryWriter(str(folder), purge_step=first)  # otherwise steps that are done again would be shown twice
