"""Logging on rank 0, metrics as JSON lines, progress with an estimate of what is left."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def configure_logging(is_main: bool = True, verbose: bool = False) -> None:
    """Sends this library's messages to standard error.

    Args:
        is_main: Whether this is rank 0. Other ranks show errors only; else every message would appear once a process.
        verbose: Whether to show debug messages too.
    """
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("segearth").setLevel(level if is_main else logging.ERROR)


class MetricsLog:
    """Writes one JSON object per line, and flushes each at once so that a run that is killed loses none."""

    def __init__(self, path: Path, keep_below_step: int | None = None) -> None:
        """Opens the file.

        Args:
            path: ``metrics.jsonl``.
            keep_below_step: Lines of an existing file are kept up to this step, exclusive; a resumed run writes the
                later ones again. ``None`` starts an empty file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []
        if keep_below_step is not None and path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) < keep_below_step]
        self._file = path.open("w", encoding="utf-8")
        self._file.writelines(line + "\n" for line in lines)
        self._file.flush()

    def write(self, **values: Any) -> None:
        """Writes one line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Eta:
    """Estimates the time left from the steps of this run."""

    def __init__(self, total: int, done: int = 0) -> None:
        """Starts the clock.

        Args:
            total: Steps in all.
            done: Steps that an earlier run has done already.
        """
        self.total, self.first, self.start = total, done, time.monotonic()

    def left(self, done: int) -> str:
        """Time left after ``done`` steps, as ``h:mm:ss``."""
        pace = (time.monotonic() - self.start) / max(1, done - self.first)
        seconds = round(pace * (self.total - done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize  # a line that was cut off when the run was killed: no limit keeps it
