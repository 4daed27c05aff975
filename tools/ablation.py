"""Trains one experiment in several variants and tells what each change is worth, on data that is not the test split.

    python tools/ablation.py configs/ablation/aerial_mini.yaml                      # every row, three seeds; resumes
    python tools/ablation.py FILE --rows 1,3 --seeds 0 --set train.max_steps=200    # some rows, shorter
    python tools/ablation.py FILE --table                                           # only the table of what is there

The file names an experiment and rows of overrides; the first row is what the others are held against. Each run is
trained on the split `fit` and scored on `dev`, both cut out of the training images by group.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from segearth.errors import ConfigError
from segearth.evaluation.compare import compare_records, read_records
from segearth.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ("data.train=[{name: aerial_mini, split: fit}]", "data.val=[]")
# The fixed questions, and the many about place, size and number, with the pairs that differ in one word.
SCORED = {
    "fixed": "data.test=[{name: aerial_mini, split: dev}]",
    "dense": "data.test=[{name: aerial_mini, split: dev, options: {questions: dense}}]",
}
KINDS = ("position", "size", "neighbour")  # of the dense questions


def main() -> None:
    """Trains, scores and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", default="", help="numbers of rows, from 0; all if left out")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every row")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/ablation")
    parser.add_argument("--threads", type=int, default=0, help="threads of a run; 0: as many as torch takes")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    plan: Any = OmegaConf.to_container(OmegaConf.load(options.file))
    experiment = (options.file.parent / plan["experiment"]).resolve()
    rows = list(plan["rows"].items())
    chosen = [int(n) for n in options.rows.split(",") if n] or list(range(len(rows)))
    seeds = [int(n) for n in options.seeds.split(",")]
    runs = {name: [options.out / f"{_slug(name)}-{seed}" for seed in seeds] for name, _ in rows}
    if len({folders[0] for folders in runs.values()}) < len(runs):
        parser.error("two rows have names that make one folder; change one")
    if not options.table:
        # All rows with the first seed come first, so that the rows can be compared before everything has run.
        for place, seed in enumerate(seeds):
            for name, changes in (rows[n] for n in chosen):
                _run(experiment, runs[name][place], [*changes, *options.set, f"train.seed={seed}"], options.threads)
    table = as_table(runs)
    write_text(options.out / "table.md", table)
    print(table)


def as_table(runs: dict[str, list[Path]]) -> str:
    """Returns one row a variant, shares in percent; the difference to the first is paired by question and seed."""
    lines = [
        f"| variant | seeds | gIoU | to the first (95 %) | present | N-acc | T@0.1 | {' | '.join(KINDS)} "
        "| words needed | pairs won |",
        "|---|---:|---:|---|" + "---:|" * (5 + len(KINDS)),
    ]
    first: list[Path] = next(iter(runs.values()))
    for name, folders in runs.items():
        done = [place for place, folder in enumerate(folders) if _is_done(folder)]
        if not done:
            continue
        both = [place for place in done if folders is not first and _is_done(first[place])]
        against = _difference([folders[place] for place in both], [first[place] for place in both])
        giou, *shown = (_mean(values) for values in zip(*(_figures(folders[place]) for place in done), strict=True))
        lines.append(f"| {name} | {len(done)} | {giou} | {against} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _figures(folder: Path) -> list[float]:
    fixed, dense = (json.loads((folder / name / "report.json").read_text()) for name in SCORED)
    metrics, kinds = fixed["metrics"], dense["breakdown"]["kind"]
    return [
        *(metrics[name] for name in ("giou", "present_giou", "n_acc", "t_found")),
        *(kinds[kind]["giou"] for kind in KINDS),
        dense["needs_words"]["margin"],
        dense["pairs"]["all"]["won"],
    ]


def _mean(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f}"


def _is_done(folder: Path) -> bool:
    return all((folder / name / "report.json").is_file() for name in SCORED)


def _difference(runs: Sequence[Path], others: Sequence[Path]) -> str:
    if not runs:
        return ""
    own, other = ([r for folder in folders for r in _records(folder)] for folders in (runs, others))
    row = compare_records(own, other)[0]
    return f"{100 * row.gain:+.1f} ({100 * row.interval[0]:+.1f} to {100 * row.interval[1]:+.1f})"


def _records(folder: Path) -> list[Any]:
    seed = folder.name.rpartition("-")[2]  # a question counts once per seed; the bootstrap draws images, for all seeds
    return [replace(record, id=f"{seed} {record.id}") for record in read_records(folder / "fixed")]


def _run(experiment: Path, folder: Path, changes: Sequence[str], threads: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    _check_same(folder, changes)
    settings = [str(experiment), *TRAINED, f"train.output_dir={folder}", *changes]
    steps = [] if _is_done(folder) else [["train.py", *settings]]  # a run that was cut off goes on
    for name, questions in SCORED.items():
        if not (folder / name / "report.json").is_file():
            steps.append(["evaluate.py", *settings, questions, "eval.controls=false", "--out", str(folder / name)])
    for tool, *arguments in steps:
        subprocess.run([sys.executable, ROOT / "tools" / tool, *arguments], check=True, env=environment, cwd=ROOT)


def _check_same(folder: Path, changes: Sequence[str]) -> None:
    """Refuses a folder whose run had other overrides, such as fewer steps; its numbers would not be comparable."""
    path = folder / "changes.json"
    if not path.is_file():
        write_text(path, json.dumps(list(changes)) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != list(changes):
        raise ConfigError(f"{folder} holds a run with other overrides ({path}); give --out another folder")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


if __name__ == "__main__":
    main()
