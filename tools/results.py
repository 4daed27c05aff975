"""Scores a model on every set of aerial_mini's test questions and writes `docs/results.md` with a gallery.

    python tools/results.py segearth_tiny                                 # the weights of the package
    python tools/results.py runs/mine --beside runs/other --out runs/docs # any model, held against another

Reports are kept in `OUT/reports/NAME` and not made again; delete one to score it anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segearth.config import load_experiment
from segearth.data.registry import build_dataset
from segearth.evaluation.compare import as_markdown, compare_records, read_records
from segearth.evaluation.records import SampleRecord
from segearth.evaluation.run import evaluate_experiment
from segearth.inference.visualize import (
    PREDICTION_COLOUR,
    TARGET_COLOUR,
    SheetRow,
    overlay,
    picture_sheet,
    save_picture,
    side_by_side,
)
from segearth.segmenter import Segmenter
from segearth.utils.files import write_text
from segearth.zoo.opening import load, training_of

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "fixed": "up to eight of an image, by kind",
    "dense": "all about place, size and number",
    "seen": "in words of training",
    "unseen": "the same in words never met",
}
KINDS = ("class", "reasoning", "position", "size", "neighbour", "attribute", "count")
PLACES = {"best": 0.95, "typical": 0.5, "worst": 0.05}  # of a source's answers, by their IoU


def main() -> None:
    """Scores, then writes the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, run or folder")
    parser.add_argument("--beside", help="another model, for a paired comparison on the fixed questions")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    reports = options.out / "reports" / _name_of(options.model)
    facts = {name: _scored(options.model, name, reports / name) for name in SETS}
    lines = page(options.model, facts, training_of(options.model))
    if options.beside:
        other = options.out / "reports" / _name_of(options.beside)
        _scored(options.beside, "fixed", other / "fixed")
        rows = compare_records(read_records(reports / "fixed"), read_records(other / "fixed"))
        lines += ["", "## Beside another model", "", as_markdown(rows, options.model, options.beside)]
    segmenter = load(options.model, "cpu")
    save_picture(options.out / "images" / "gallery.jpg", gallery(segmenter, read_records(reports / "fixed")))
    write_text(options.out / "results.md", "\n".join(lines) + "\n")


def page(model: str, facts: Mapping[str, Mapping[str, Any]], training: Mapping[str, Any]) -> list[str]:
    """Returns the page's lines.

    Args:
        model: Named in the headings.
        facts: The ``report.json`` of each set of questions.
        training: What is known of the weights.
    """
    fixed, dense = facts["fixed"], facts["dense"]
    low, high = fixed["giou_interval_95"]
    lines = [
        f"# Results of {model}",
        "",
        f"Made by `python tools/results.py {model}` on {platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}. Points of gIoU unless said; intervals draw images.",
        "",
        f"Trained on: {', '.join(training.get('trained_on', ())) or 'not stated'}. Scored on the test split.",
        "",
        f"**{_percent(fixed['metrics']['giou'])}** ({_percent(low)} to {_percent(high)}) on the fixed questions; best "
        f"control {fixed['best_control']}: {_percent(fixed['controls'][fixed['best_control']]['giou'])}.",
        "",
        "| questions | number | gIoU | present | Pr@0.7 of present | N-acc | T@0.1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, what in SETS.items():
        metrics = facts[name]["metrics"]
        present = facts[name]["breakdown"]["target"].get("present", metrics)
        cells = [metrics["giou"], metrics["present_giou"], present["precision"]["0.7"]]
        cells += [metrics["n_acc"], metrics["t_found"]]
        lines.append(f"| {name}: {what} | {metrics['samples']} | {' | '.join(map(_percent, cells))} |")
    lines += ["", "| kind | fixed | dense |", "|---|---:|---:|"]
    lines += [f"| {kind} | {_of(fixed, 'kind', kind)} | {_of(dense, 'kind', kind)} |" for kind in KINDS]
    lines += ["", "| source | gIoU | present | N-acc |", "|---|---:|---:|---:|"]
    for source, row in fixed["breakdown"]["source"].items():
        lines.append(f"| {source} | {' | '.join(_percent(row[key]) for key in ('giou', 'present_giou', 'n_acc'))} |")
    for name in ("fixed", "dense"):
        hard = facts[name]["needs_words"]
        low, high = hard["margin_interval_95"]
        lines += [
            "",
            f"Of the {name} questions {hard['samples']} need words: gIoU {_percent(hard['giou'])}, with the answer to "
            f"another question of the image {_percent(hard['swapped_giou'])}; reading is worth "
            f"**{100 * hard['margin']:+.1f}** ({100 * low:+.1f} to {100 * high:+.1f}).",
        ]
    won = dense["pairs"]["all"]
    errors = fixed["calibration"]
    return [
        *lines,
        "",
        f"Of {won['pairs']} pairs that differ in one word the right map wins {_percent(won['won'])} % (50 is chance).",
        f"Calibration error: presence {_percent(errors['presence'])}, score {_percent(errors['score'])}.",
        "",
        "## Pictures",
        "",
        "Of each source an answer among the best, a typical one and one among the worst: image, target, prediction.",
        "",
        "![questions and masks](images/gallery.jpg)",
    ]


def gallery(segmenter: Segmenter, records: Sequence[SampleRecord]) -> Any:
    """Asks again and draws for each source an answer among the best, one in the middle and one among the worst."""
    dataset = build_dataset("aerial_mini", None, "test")
    index = {str(record["id"]): i for i, record in enumerate(dataset.records)}  # type: ignore[attr-defined]
    sheets = {place: [] for place in PLACES}  # type: dict[str, list[SheetRow]]
    for source in sorted({record.source for record in records}):
        ranked = sorted((r for r in records if r.source == source and not r.target_empty), key=lambda r: r.iou)
        for place, share in PLACES.items():
            record = ranked[round(share * (len(ranked) - 1))]
            sample = dataset[index[record.image_id]]
            asked = next(question for question in sample.questions if question.id == record.id)
            assert asked.mask is not None
            segmenter.set_image(sample.image)
            mask = segmenter.predict([asked.text], task=asked.task)[0].mask
            drawn = [overlay(sample.image, asked.mask, TARGET_COLOUR), overlay(sample.image, mask, PREDICTION_COLOUR)]
            sheets[place].append(SheetRow([sample.image, *drawn], asked.text, f"IoU {record.iou:.2f} · {source}"))
    return side_by_side([picture_sheet(rows, heading=place.capitalize(), tile=160) for place, rows in sheets.items()])


def _scored(model: str, questions: str, folder: Path) -> dict[str, Any]:
    if not (folder / "report.json").is_file():
        override = f"data.test=[{{name: aerial_mini, split: test, options: {{questions: {questions}}}}}]"
        controls = f"eval.controls={str(questions == 'fixed').lower()}"  # minutes, and told once
        experiment = load_experiment(ROOT / "configs/experiment/aerial_mini.yaml", [override, controls])
        evaluate_experiment(experiment, load(model, "cpu"), model, "test", folder, training=training_of(model))
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def _of(facts: Mapping[str, Any], by: str, name: str) -> str:
    row = facts["breakdown"][by].get(name)
    return f"{_percent(row['giou'])} ({row['samples']})" if row else "–"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _name_of(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "--", model.strip("./"))


if __name__ == "__main__":
    main()
