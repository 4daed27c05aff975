"""The curves of a run as one picture, ``curves.png``: losses above, validation scores below, over the steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from segearth.inference.visualize import Colour, save_picture
from segearth.losses.criterion import LOSS_NAMES

WIDTH, PANEL, MARGIN = 960, 380, (72, 64, 176, 56)  # pixels; left, top, right, bottom of a panel's frame
FINER = 3  # panels are drawn this many times larger and then shrunk, which makes lines smooth
PAPER, INK, FAINT, GRID = (255, 255, 255), (32, 36, 42), (112, 118, 128), (228, 231, 236)

# Colours that colour-blind readers tell apart, too (Okabe and Ito 2008).
BLUE, RED, GREEN, PURPLE = (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)
COLOURS: tuple[Colour, ...] = (BLUE, RED, GREEN, PURPLE, (86, 180, 233), (230, 159, 0), (240, 228, 66))
LABELS = {"bce": "cross-entropy", "dice": "Dice"}  # of other losses the name is the label

# Label and colour of each line; the main line of each panel comes first.
LOSSES: dict[str, tuple[str, Colour]] = {
    "total": ("total", INK),
    **{name: (LABELS.get(name, name), COLOURS[i % len(COLOURS)]) for i, name in enumerate(LOSS_NAMES)},
}
SCORES: dict[str, tuple[str, Colour]] = {
    "val_giou": ("gIoU", INK),
    "val_ciou": ("cIoU", BLUE),
    "val_t_acc": ("T-acc", GREEN),
    "val_n_acc": ("N-acc", RED),
}


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: In the legend.
        colour: RGB, each 0 to 255.
        points: (steps done, value), by step.
        width: In pixels.
        dots: Whether each point is marked.
        marked: The step of a point to draw a ring around, with the words to write beside it.
    """

    label: str
    colour: Colour
    points: Sequence[tuple[int, float]]
    width: int = 2
    dots: bool = False
    marked: tuple[int, str] | None = None


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draws what ``metrics.jsonl`` holds so far; an older picture stays whole until the new one is.

    Args:
        metrics: The file, one JSON object a line.
        picture: The PNG to write. Without two points there is nothing to draw, and none is written.
    """
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    losses = [line for line in _lines(rows, LOSSES) if any(value > 0 for _, value in line.points)]
    scores = _lines(rows, SCORES, scale=100.0, dots=True, marked=_best(rows))
    if max((len(line.points) for line in losses), default=0) < 2:
        return
    last = max(step for line in losses + scores for step, _ in line.points)
    panels = [draw_panel("Training loss", losses, last, logarithmic=True)]
    if scores:
        panels.append(draw_panel("Validation score, percent", scores, last, limits=(0.0, 100.0)))
    sheet = Image.new("RGB", (WIDTH, len(panels) * PANEL), PAPER)
    for number, panel in enumerate(panels):
        sheet.paste(panel, (0, number * PANEL))
    save_picture(picture, sheet)


def _lines(
    rows: Sequence[Mapping[str, Any]], table: Mapping[str, tuple[str, Colour]], scale: float = 1.0, dots: bool = False,
    marked: tuple[int, str] | None = None,
) -> list[Line]:  # fmt: skip
    lines = []
    for key, (label, colour) in table.items():
        points = [(int(row["step"]) + 1, scale * row[key]) for row in rows if row.get(key) is not None]
        main = key == next(iter(table))
        if points:
            lines.append(Line(label, colour, points, 3 if main else 2, dots, marked if main else None))
    return lines


def _best(rows: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """Returns step and label of the best validation: the last of those that were the best when they were made."""
    best = [row for row in rows if row.get("val_is_best")]
    return (int(best[-1]["step"]) + 1, f"best {100 * best[-1]['val_giou']:.1f}") if best else None


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten from ``low`` to ``high``; powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    marks = [factor * 10.0**power for power in powers for factor in factors]
    return [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]


class _Scale:
    """Maps values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.turn = math.log10 if logarithmic else float
        self.low, self.high, self.start, self.end = self.turn(low), self.turn(high), start, end

    def __call__(self, value: float) -> float:
        return self.start + (self.turn(value) - self.low) / (self.high - self.low) * (self.end - self.start)


def draw_panel(
    title: str, lines: Sequence[Line], last: int, logarithmic: bool = False, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Draws curves over steps, with axes and a legend.

    Args:
        title: Above the frame.
        lines: The curves; the first is drawn on top.
        last: The step at which the frame ends.
        logarithmic: Whether the values' axis is; then only positive values are drawn.
        limits: Of the values; left out, what the values need.

    Returns:
        RGB, ``WIDTH`` x ``PANEL`` pixels.
    """
    image = Image.new("RGB", (FINER * WIDTH, FINER * PANEL), PAPER)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = (FINER * margin for margin in MARGIN)
    right, bottom = FINER * WIDTH - right, FINER * PANEL - bottom
    values = [value for line in lines for _, value in line.points if value > 0 or not logarithmic]
    low, high = limits or _around(min(values), max(values))
    across, up = _Scale(0, last, left, right), _Scale(low, high, bottom, top, logarithmic)
    font, bold = ImageFont.load_default(FINER * 14), ImageFont.load_default(FINER * 18)
    draw.text((left, top - FINER * 18), title, INK, bold, anchor="ls")
    for mark in log_ticks(low, high) if logarithmic else ticks(low, high):
        draw.line([(left, up(mark)), (right, up(mark))], GRID, FINER)
        draw.text((left - FINER * 10, up(mark)), f"{mark:g}", FAINT, font, anchor="rm")
    for mark in ticks(0, last, most=8):
        if mark == int(mark):
            draw.line([(across(mark), bottom), (across(mark), bottom + FINER * 5)], FAINT, FINER)
            draw.text((across(mark), bottom + FINER * 9), f"{mark:,.0f}", FAINT, font, anchor="ma")
    draw.text(((left + right) / 2, bottom + FINER * 48), "steps", FAINT, font, anchor="ms")
    draw.line([(left, top), (left, bottom), (right, bottom)], FAINT, FINER)
    for line in reversed(lines):  # the main one on top
        _draw_line(draw, line, across, up, font, logarithmic)
    for number, line in enumerate(lines):
        y = top + FINER * (8 + 26 * number)
        draw.line([(right + FINER * 20, y), (right + FINER * 48, y)], line.colour, FINER * line.width)
        draw.text((right + FINER * 58, y), line.label, INK, font, anchor="lm")
    return image.resize((WIDTH, PANEL), Image.Resampling.LANCZOS)


def _draw_line(
    draw: ImageDraw.ImageDraw, line: Line, across: _Scale, up: _Scale, font: Any, logarithmic: bool
) -> None:
    points = [(across(step), up(value)) for step, value in line.points if value > 0 or not logarithmic]
    draw.line(points, line.colour, FINER * line.width, joint="curve")
    radius = FINER * (line.width + 1)
    for x, y in points if line.dots or len(points) == 1 else []:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], line.colour)
    found = [value for step, value in line.points if line.marked and step == line.marked[0]]
    if line.marked and found:
        x, y, radius = across(line.marked[0]), up(found[-1]), FINER * 8
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=line.colour, width=FINER * 2)
        below = y + FINER * 32 < up.start  # the words, if there is room: the other curves are mostly above
        text_y, anchor = (y + FINER * 12, "ma") if below else (y - FINER * 12, "ms")
        draw.text((x, text_y), line.marked[1], line.colour, font, anchor, stroke_width=FINER * 3, stroke_fill=PAPER)


def _around(low: float, high: float) -> tuple[float, float]:
    """Limits of a logarithmic axis: a little beyond the values, and at least a factor of two."""
    spread = max(high / low, 2.0) ** 0.06
    return low / spread, max(high, 2 * low) * spread
