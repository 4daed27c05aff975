"""A report of an evaluation: numbers for machines, tables for readers, one line a sample, and pictures.

``report.json``     every number, with protocol, versions, seed and time.
``report.md``       the same as tables.
``samples.jsonl``   one line a sample.
``best_worst.jpg``  the best and the worst samples; missing if no sample has anything to show.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

import segearth
from segearth.data.base import SegmentationDataset
from segearth.evaluation.evaluator import EvaluationResult, ScoredExample, evaluate
from segearth.evaluation.listening import listening_facts
from segearth.evaluation.records import SampleRecord, breakdown
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
from segearth.utils.versions import installed_versions

logger = logging.getLogger(__name__)

BREAKDOWNS = ("kind", "task", "source", "target")  # attributes of a record
PACKAGES = ("numpy", "pillow", "opencv-python-headless", "torch", "transformers")


def run_evaluation(
    predictor: Segmenter,
    dataset: SegmentationDataset,
    output_dir: str | Path,
    *,
    model_name: str,
    notes: Mapping[str, str] | None = None,
    rank: int = 0,
    **options: Any,
) -> EvaluationResult:
    """Evaluates and, on rank 0, writes the report.

    Args:
        predictor: As for :func:`segearth.evaluation.evaluator.evaluate`.
        dataset: The split to score.
        output_dir: Folder for the report; made if missing.
        model_name: Named in the report.
        notes: Further facts for the report, such as the command or a warning that the split was trained on.
        rank: This process.
        **options: Every other keyword of ``evaluate``.

    Raises:
        DatasetError: No question of the split has a mask, or its ids or sizes are wrong.
    """
    result = evaluate(predictor, dataset, rank=rank, **options)
    if rank == 0:
        write_report(result, output_dir, model_name=model_name, notes=notes)
    return result


def write_report(
    result: EvaluationResult, output_dir: str | Path, *, model_name: str, notes: Mapping[str, str] | None = None
) -> Path:
    """Writes every file of the report; each appears whole or not at all.

    Args:
        result: A finished evaluation.
        output_dir: Folder for the files; made if missing, older files of the same names are replaced.
        model_name: Named in the report.
        notes: Further facts for the report.

    Returns:
        The path of ``report.md``.

    Raises:
        DatasetError: Nothing was scored.
    """
    folder = Path(output_dir)
    facts = report_facts(result, model_name, notes or {})
    write_text(folder / "samples.jsonl", "".join(_sample_line(record) for record in result.records))
    sheet_path = folder / "best_worst.jpg"
    sheet_path.unlink(missing_ok=True)  # an older one would show other samples
    if result.extremes.best:
        sheets = [
            _example_sheet("Best", result.extremes.best),
            _example_sheet("Worst", result.extremes.worst),
        ]
        save_picture(sheet_path, side_by_side(sheets))
    write_text(folder / "report.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "report.md", render_markdown(facts))
    logger.info("%s on %s: gIoU %s; report in %s", model_name, facts["dataset"], facts["metrics"]["giou"], folder)
    return folder / "report.md"


def report_facts(result: EvaluationResult, model_name: str, notes: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of ``report.json``; shares are in [0, 1].

    Args:
        result: A finished evaluation.
        model_name: Named in the report.
        notes: Further facts, kept as they are.
    """
    return {
        "model": model_name,
        "dataset": result.dataset,
        "split": result.split,
        "protocol": {"name": result.protocol.name, "rule": result.protocol.rule},
        "metrics": asdict(result.metrics),
        "giou_interval_95": result.giou_interval,
        "controls": {
            name: {"rule": result.control_rules[name], **asdict(metrics)}
            for name, metrics in result.control_metrics.items()
        },
        "best_control": result.best_control,
        "margin": result.margin,
        "margin_interval_95": result.margin_interval,
        "breakdown": {
            by: {name: asdict(metrics) for name, metrics in breakdown(result.records, by).items()} for by in BREAKDOWNS
        },
        **listening_facts(result.records, result.pairs, result.seed),
        "questions_without_mask": result.without_mask,
        "speed": {
            "seconds_in_predictor": result.seconds,
            "images_per_second": result.images_per_second,
            "questions_per_second": result.questions_per_second,
        },
        "seed": result.seed,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"segearth": segearth.__version__, "python": platform.python_version()}
        | installed_versions(PACKAGES),
        "notes": dict(notes),
    }


def render_markdown(facts: Mapping[str, Any]) -> str:
    """Returns ``report.md``: the facts of :func:`report_facts` as readable tables, shares in percent."""
    metrics = facts["metrics"]
    low, high = facts["giou_interval_95"]
    lines = [
        f"# {facts['model']} on {facts['dataset']}, split {facts['split']}",
        "",
        f"**gIoU {_percent(metrics['giou'])}** (95 % interval {_percent(low)} to {_percent(high)}), "
        f"cIoU {_percent(metrics['ciou'])}, {metrics['samples']} samples "
        f"({metrics['empty_targets']} with an empty target) on {metrics['images']} images. "
        f"Targets that are there alone: gIoU {_percent(metrics['present_giou'])}.",
        "",
    ]
    if facts["best_control"]:
        low, high = facts["margin_interval_95"]
        lines += [
            f"Margin over the best control (`{facts['best_control']}`): **{_signed(facts['margin'])} points of gIoU** "
            f"(95 % interval {_signed(low)} to {_signed(high)}).",
            "",
        ]
    lines += [f"Protocol `{facts['protocol']['name']}`: {facts['protocol']['rule']}", "", "## Model and controls", ""]
    lines += _table("", {"**model**": metrics, **{f"`{name}`": row for name, row in facts["controls"].items()}})
    lines += ["", *[f"- `{name}`: {row['rule']}" for name, row in facts["controls"].items()]]
    if not facts["controls"]:
        lines.append("No controls were run; without them a gIoU says little.")
    lines += _listening(facts)
    for heading, groups in facts["breakdown"].items():
        if len(groups) > 1:
            lines += ["", f"## By {heading}", "", *_table(heading, groups)]
    return "\n".join([*lines, *_circumstances(facts)]) + "\n"


def _listening(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if hard := facts["needs_words"]:
        low, high = hard["margin_interval_95"]
        lines.append(
            f"- {hard['samples']} questions need words (their target is not the image's commonest): gIoU "
            f"{_percent(hard['giou'])}. The answer to another question of the same image scores "
            f"{_percent(hard['swapped_giou'])} there: reading the words is worth **{_signed(hard['margin'])}** "
            f"(95 % interval {_signed(low)} to {_signed(high)})."
        )
    for what, row in facts["pairs"].items():
        low, high = row["interval_95"]
        lines.append(
            f"- {row['pairs']} pairs that differ in one word ({what}): the right map wins in "
            f"**{_percent(row['won'])} %** (95 % interval {_percent(low)} to {_percent(high)}; 50 is chance)."
        )
    if confidence := facts["calibration"]:
        lines.append(
            f"- Calibration error: presence {_percent(confidence['presence'])}, score (against the IoU reached) "
            f"{_percent(confidence['score'])}; 0 is perfect."
        )
    return ["", "## Does it listen, and does it know", "", *lines] if lines else []


def _circumstances(facts: Mapping[str, Any]) -> list[str]:
    speed = facts["speed"]
    rows = {
        "time": facts["time"],
        "seed": facts["seed"],
        "speed": f"{speed['images_per_second']:.2f} images/s, {speed['questions_per_second']:.2f} questions/s "
        "inside the predictor",
        "questions without a mask": facts["questions_without_mask"],
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        **facts["notes"],
    }
    return [
        "",
        "## Circumstances",
        "",
        *[f"- {name}: {value}" for name, value in rows.items()],
        "",
        "Shares are in percent. gIoU is the mean IoU of the samples (mIoU in the referring papers, not the generalised "
        "IoU of boxes); cIoU is the sum of intersections over the sum of unions (oIoU there). N-acc: share of empty "
        "targets answered with an empty mask; T-acc: share of non-empty targets answered with a non-empty one, T@0.1: "
        "with an IoU above 0.1; present: gIoU of the non-empty targets alone. "
        "Intervals draw images, not questions.",
    ]


def _table(first_column: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    thresholds = list(next(iter(rows.values()))["precision"])
    columns = ["samples", "gIoU", "present", "cIoU", *[f"Pr@{t}" for t in thresholds], "N-acc", "T-acc", "T@0.1"]
    lines = [f"| {first_column} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        cuts = [row["precision"][t] for t in thresholds]
        shares = [row["giou"], row["present_giou"], row["ciou"], *cuts, row["n_acc"], row["t_acc"], row["t_found"]]
        lines.append(f"| {name} | {row['samples']} | {' | '.join(map(_percent, shares))} |")
    return lines


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"


def _sample_line(record: SampleRecord) -> str:
    line = {**asdict(record), "iou": round(record.iou, 6), "target_empty": record.target_empty}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _example_sheet(heading: str, examples: Sequence[ScoredExample]) -> Image.Image:
    rows = []
    for example in examples:
        record = example.record
        facts = [f"IoU {record.iou:.3f}", record.kind, record.source]
        if record.presence is not None:
            facts.append(f"presence {record.presence:.2f}")
        if record.target_empty:
            facts.append("nothing to find")
        pictures = [
            example.image,
            overlay(example.image, example.target, TARGET_COLOUR),
            overlay(example.image, example.prediction, PREDICTION_COLOUR),
        ]
        rows.append(SheetRow(pictures, record.question, " · ".join(filter(None, facts))))
    return picture_sheet(rows, titles=("image", "target", "prediction"), heading=heading)
