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
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.examples import ScoredExample
from segearth.evaluation.records import Record, breakdown
from segearth.evaluation.results import EvaluationResult, ScorerResult
from segearth.evaluation.scorer import Scorer, signed
from segearth.evaluation.scorers import get_scorer
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

PACKAGES = ("numpy", "pillow", "opencv-python-headless", "torch", "transformers")


def run_evaluation(
    segmenter: Segmenter,
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
        segmenter: As for :func:`segearth.evaluation.evaluator.evaluate`.
        dataset: The split to score.
        output_dir: Folder for the report; made if missing.
        model_name: Named in the report.
        notes: Further facts for the report, such as the command or a warning that the split was trained on.
        rank: This process.
        **options: Every other keyword of ``evaluate``.

    Raises:
        DatasetError: No question of the split has a target, or its ids or sizes are wrong.
    """
    result = evaluate(segmenter, dataset, rank=rank, **options)
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
    lines = [_sample_line(found.scorer, record) for found in result.by_scorer.values() for record in found.records]
    write_text(folder / "samples.jsonl", "".join(lines))
    sheet_path = folder / "best_worst.jpg"
    sheet_path.unlink(missing_ok=True)  # an old one would show samples of another report
    if result.extremes.best:
        sheets = [
            _example_sheet("Best", result.extremes.best),
            _example_sheet("Worst", result.extremes.worst),
        ]
        save_picture(sheet_path, side_by_side(sheets))
    write_text(folder / "report.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "report.md", render_markdown(facts))
    for found in result.by_scorer.values():
        logger.info("%s on %s: %s", model_name, result.dataset, found.scorer.in_one_line(found.metrics))
    logger.info("report in %s", folder)
    return folder / "report.md"


def report_facts(result: EvaluationResult, model_name: str, notes: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of ``report.json``; shares are in [0, 1].

    The numbers of the first scorer stand at the top; those of others, where the split has questions for them, under
    ``other_tasks``.

    Args:
        result: A finished evaluation.
        model_name: Named in the report.
        notes: Further facts, kept as they are.

    Raises:
        DatasetError: Nothing was scored.
    """
    main = result.main
    others = [found for found in result.by_scorer.values() if found is not main]
    return {
        "model": model_name,
        "dataset": result.dataset,
        "split": result.split,
        "protocol": {"name": result.protocol.name, "rule": result.protocol.rule},
        **_scorer_facts(main),
        **({"other_tasks": {found.scorer.name: _scorer_facts(found) for found in others}} if others else {}),
        "questions_without_target": result.without_target,
        "unreadable_images": list(result.unreadable_images),
        "unreadable_answers": result.counts._asdict(),
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


def _scorer_facts(found: ScorerResult) -> dict[str, Any]:
    scorer = found.scorer
    return {
        "scorer": scorer.name,
        "metrics": asdict(found.metrics),
        f"{scorer.headline}_interval_95": found.interval,
        "controls": {
            name: {"rule": found.control_rules[name], **asdict(metrics)}
            for name, metrics in found.control_metrics.items()
        },
        "best_control": found.best_control,
        "margin": found.margin,
        "margin_interval_95": found.margin_interval,
        "breakdown": {
            by: {name: asdict(numbers) for name, numbers in breakdown(found.records, by, scorer.summary).items()}
            for by in scorer.breakdowns
        },
        **scorer.further_facts(found.records, found.further, found.seed),
    }


def render_markdown(facts: Mapping[str, Any]) -> str:
    """Returns ``report.md``: the facts of :func:`report_facts` as readable tables, shares in percent."""
    lines = [f"# {facts['model']} on {facts['dataset']}, split {facts['split']}", ""]
    lines += _scorer_headline(facts)
    lines += [f"Protocol `{facts['protocol']['name']}`: {facts['protocol']['rule']}", ""]
    lines += _scorer_tables(facts)
    explanations = [_scorer_of(facts).explanation]
    for name, own in facts.get("other_tasks", {}).items():
        lines += ["", f"# {name.replace('_', ' ').capitalize()}", "", *_scorer_headline(own), *_scorer_tables(own)]
        explanations.append(_scorer_of(own).explanation)
    return "\n".join([*lines, *_circumstances(facts, explanations)]) + "\n"


def _scorer_of(facts: Mapping[str, Any]) -> Scorer[Any]:
    return get_scorer(facts.get("scorer", "segmentation"))  # early reports name none: there was only this one


def _scorer_headline(facts: Mapping[str, Any]) -> list[str]:
    scorer = _scorer_of(facts)
    lines = [scorer.first_sentence(facts["metrics"], facts[f"{scorer.headline}_interval_95"]), ""]
    if facts["best_control"]:
        low, high = facts["margin_interval_95"]
        lines += [
            f"Margin over the best control (`{facts['best_control']}`): **{signed(facts['margin'])} points of "
            f"{scorer.headline_name}** (95 % interval {signed(low)} to {signed(high)}).",
            "",
        ]
    return lines


def _scorer_tables(facts: Mapping[str, Any]) -> list[str]:
    scorer = _scorer_of(facts)
    controls = {f"`{name}`": row for name, row in facts["controls"].items()}
    lines = ["## Model and controls", "", *rows_table(scorer, "", {"**model**": facts["metrics"], **controls})]
    lines += ["", *[f"- `{name}`: {row['rule']}" for name, row in facts["controls"].items()]]
    if not facts["controls"]:
        lines.append(f"No controls were run; without them a {scorer.headline_name} says little.")
    lines += scorer.further_lines(facts)
    for heading, groups in facts["breakdown"].items():
        if len(groups) > 1:
            lines += ["", f"## By {heading}", "", *rows_table(scorer, heading, groups)]
    return lines


def _circumstances(facts: Mapping[str, Any], explanations: Sequence[str]) -> list[str]:
    speed = facts["speed"]
    rows = {
        "time": facts["time"],
        "seed": facts["seed"],
        "speed": f"{speed['images_per_second']:.2f} images/s, {speed['questions_per_second']:.2f} questions/s "
        "inside the predictor",
        "questions without a target": facts["questions_without_target"],
        **_unreadable(facts),
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        **facts["notes"],
    }
    return [
        "",
        "## Circumstances",
        "",
        *[f"- {name}: {value}" for name, value in rows.items()],
        "",
        " ".join(["Shares are in percent.", *dict.fromkeys(explanations), "Intervals draw images, not questions."]),
    ]


def _unreadable(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns what could not be read, by name; nothing where all could, and of reports that do not say it."""
    rows = {}
    if images := facts.get("unreadable_images"):
        rows["images that could not be read"] = f"{len(images)}, left out, such as {images[0]}"
    counts = facts.get("unreadable_answers", {})
    if counts.get("answered"):  # segmenters that write nothing have no such answers
        rows["answers that could not be read"] = f"{counts['unreadable']} of {counts['answered']}"
    return rows


def rows_table(scorer: Scorer[Any], first_column: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table of numbers of :meth:`Scorer.summary`, a row for each name; there is at least one."""
    cells = {name: scorer.cells(numbers) for name, numbers in rows.items()}
    columns = list(next(iter(cells.values())))
    lines = [f"| {first_column} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return lines + [f"| {name} | {' | '.join(row.values())} |" for name, row in cells.items()]


def _sample_line(scorer: Scorer[Any], record: Record) -> str:
    line = {**asdict(record), **scorer.line_of(record), "scorer": scorer.name}
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
