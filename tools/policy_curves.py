"""Puts runs of the decoupled family side by side: ``python tools/policy_curves.py OUT NAME=RUN [NAME=RUN …]``.

Writes ``OUT.csv``, what the rewarded stage logged as means of ten steps, and ``OUT.png``, its curves; and prints a
table of what each run sees of held-out images, as ``sight.json`` tells.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import fmean

from PIL import Image

from segearth.inference.visualize import Colour, save_picture
from segearth.training.curves import PANEL, PAPER, WIDTH, Line, draw_panel
from segearth.utils.files import atomic_path

STEPS = 10  # logged steps to a mean
COLUMNS = ("reward", "mask_iou", "positional", "json_form", "entropy", "reward_seconds", "step_seconds", "encodings")
COLOURS: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))


def means(name: str, run: Path) -> list[dict[str, str | float]]:
    """Reads the log of a run's rewarded stage.

    Where answers of several steps are written at once, rewards are logged with the first of these steps alone, so that
    means are taken of what is there.
    """
    with (run / "grpo/grpo.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: list[dict[str, str | float]] = []
    for start in range(0, len(rows), STEPS):
        part = rows[start : start + STEPS]
        line: dict[str, str | float] = {"run": name, "step": int(part[-1]["step"])}
        for key in COLUMNS:
            if known := [float(row[key]) for row in part if row.get(key)]:
                line[key] = round(fmean(known), 5)
        found.append(line | {"cpu_seconds": float(part[-1]["cpu_seconds"])})
    return found


def main(out: str, *named: str) -> None:
    """Writes both files and prints the table; see the module."""
    runs = {name: Path(place) for name, _, place in (each.partition("=") for each in named)}
    rows = {name: means(name, run) for name, run in runs.items()}
    columns = list(dict.fromkeys(key for each in rows.values() for row in each for key in row))
    with atomic_path(f"{out}.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row for each in rows.values() for row in each)
    panels = []
    for title, key in (("IoU of sampled answers, in training", "mask_iou"), ("Entropy of a token, nats", "entropy")):
        lines = [
            Line(name, COLOURS[number % len(COLOURS)], [(int(row["step"]), float(row[key])) for row in each], 3)
            for number, (name, each) in enumerate(rows.items())
        ]
        last, most = (max(point[axis] for line in lines for point in line.points) for axis in (0, 1))
        panels.append(draw_panel(title, lines, int(last), limits=(0.0, 1.1 * most)))
    sheet = Image.new("RGB", (WIDTH, len(panels) * PANEL), PAPER)
    for number, each in enumerate(panels):
        sheet.paste(each, (0, number * PANEL))
    save_picture(Path(f"{out}.png"), sheet)
    print("| run | blind box | SFT start | its boxes stretched | after GRPO | gain | on shuffled images |")
    print("|---" * 7 + "|")
    for name, run in runs.items():
        sight = json.loads((run / "sight.json").read_text(encoding="utf-8"))
        before, after = sight["sft"], sight["grpo"]
        gain = after["policy"] - before["policy"]
        figures = after["blind"], before["policy"], before["stretched"], after["policy"], gain, after["shuffled"]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in figures) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
