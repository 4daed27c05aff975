"""The picture of a run: what is drawn where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segearth.training.curves import LOSSES, PANEL, SCORES, WIDTH, draw_curves, log_ticks, ticks


def losses(step: int, total: float = 4.0, text: float = 0.5) -> dict[str, Any]:
    parts = {"bce": 0.1, "dice": 0.6, "presence": 0.3, "text": text, "classes": 0.2, "boxes": 0.4, "choice": 0.8}
    return {"step": step, "total": total, **parts}


def score(step: int, giou: float, best: bool = False) -> dict[str, Any]:
    return {"step": step, "val_giou": giou, "val_ciou": 0.5, "val_n_acc": None, "val_t_acc": 0.7, "val_is_best": best}


def draw(folder: Path, *rows: dict[str, Any]) -> np.ndarray | None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    path = folder / "curves.png"
    return np.asarray(Image.open(path)) if path.is_file() else None


def rows_of(picture: np.ndarray, colour: tuple[int, int, int], columns: slice) -> np.ndarray:
    """Heights at which a colour is seen, in pixels from the top."""
    return np.flatnonzero((np.abs(picture[:, columns].astype(int) - colour).sum(-1) < 30).any(1))


def test_losses_and_scores_stand_in_panels_of_their_own(tmp_path: Path) -> None:
    picture = draw(tmp_path, *(losses(step) for step in range(9, 100, 10)), score(49, 0.2), score(99, 0.4, True))
    assert picture is not None and picture.shape == (2 * PANEL, WIDTH, 3)
    frame = slice(100, WIDTH - 190)
    for _, colour in LOSSES.values():
        assert (rows_of(picture[:PANEL], colour, frame)).size
    for name in ("val_giou", "val_ciou", "val_t_acc"):
        assert (rows_of(picture[PANEL:], SCORES[name][1], frame)).size
    legend = slice(WIDTH - 160, WIDTH - 125)
    assert not rows_of(picture[PANEL:], SCORES["val_n_acc"][1], legend).size  # nothing was absent: no such curve
    assert rows_of(picture[PANEL:], SCORES["val_t_acc"][1], legend).size


def test_higher_is_drawn_higher(tmp_path: Path) -> None:
    picture = draw(tmp_path, losses(0), losses(99), score(49, 0.1), score(99, 0.1))
    assert picture is not None
    frame = slice(400, WIDTH - 190)
    middle = {name: rows_of(picture[PANEL:], SCORES[name][1], frame).mean() for name in ("val_ciou", "val_t_acc")}
    top, bottom = 64, PANEL - 56
    for name, value in (("val_ciou", 0.5), ("val_t_acc", 0.7)):
        assert middle[name] == pytest.approx(bottom - value * (bottom - top), abs=2)


def test_without_validation_there_is_one_panel_and_a_loss_that_is_off_has_no_curve(tmp_path: Path) -> None:
    picture = draw(tmp_path, losses(9, text=0.0), losses(19, text=0.0))
    assert picture is not None and picture.shape == (PANEL, WIDTH, 3)
    assert not rows_of(picture, LOSSES["text"][1], slice(0, WIDTH)).size


def test_a_single_point_is_no_curve(tmp_path: Path) -> None:
    assert draw(tmp_path, losses(9), score(9, 0.1, True)) is None
    assert draw(tmp_path) is None


def test_the_same_run_gives_the_same_picture(tmp_path: Path) -> None:
    first = draw(tmp_path, losses(9), losses(19), score(19, 0.3, True))
    second = draw(tmp_path, losses(9), losses(19), score(19, 0.3, True))
    assert first is not None and np.array_equal(first, second)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0, 450, most=8) == [0, 100, 200, 300, 400]
    assert ticks(0, 3, most=8) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert log_ticks(0.04, 3.0) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(1e-6, 2.0) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])
