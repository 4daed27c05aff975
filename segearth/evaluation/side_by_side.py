"""Scores several models on one split by several protocols and sets them side by side, with paired intervals.

Published numbers of two families are seldom of one protocol. Here each model answers the same questions under each
protocol, so that neither is read in the other's light.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig
from segearth.errors import ConfigError
from segearth.evaluation.compare import as_markdown, compare_records, read_records
from segearth.evaluation.protocols import get_protocol
from segearth.evaluation.report import rows_table
from segearth.evaluation.run import evaluate_experiment
from segearth.evaluation.scorers import get_scorer
from segearth.segmenter import Segmenter
from segearth.utils.files import write_text

FILE, REPORT_FILE = "side_by_side.md", "report.json"
PROTOCOLS = ("native", "segearth_r1")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is set beside others.

    Attributes:
        name: How it is called in the tables.
        opened: Opens it; called when its turn comes, so that one model at a time is in memory.
        training: What is known of its training, see :func:`segearth.zoo.opening.training_of`.
    """

    name: str
    opened: Callable[[], Segmenter]
    training: Mapping[str, Any] | None = None


def evaluate_side_by_side(
    experiment: ExperimentConfig,
    candidates: Sequence[Candidate],
    split: str,
    folder: Path,
    protocols: Sequence[str] = PROTOCOLS,
    rank: int = 0,
    world_size: int = 1,
) -> Path:
    """Scores each model by each protocol; every one gets a report of its own.

    Args:
        experiment: ``data`` and ``eval`` are read, except ``eval.protocol``.
        candidates: At least two, of different names; all others are compared with the first.
        split: Of the experiment's data.
        folder: For ``side_by_side.md`` and the reports, ``PROTOCOL/MODEL``.
        protocols: Names of :data:`segearth.evaluation.protocols.PROTOCOLS`.
        rank: This process.
        world_size: Processes.

    Returns:
        The page.

    Raises:
        ConfigError: There are fewer than two models, or two of one name.
        UnknownNameError: No such protocol.
    """
    names = [candidate.name for candidate in candidates]
    places = {name: re.sub(r"[^A-Za-z0-9._-]+", "--", name) for name in names}
    if len(names) < 2 or len(set(places.values())) < len(names):
        raise ConfigError(f"the models {', '.join(names)} cannot be set side by side; name at least two, none twice")
    for protocol in protocols:
        get_protocol(protocol)
    for candidate in candidates:
        segmenter = candidate.opened()
        for protocol in protocols:
            chosen = replace(experiment, eval=replace(experiment.eval, protocol=protocol))
            evaluate_experiment(
                chosen, segmenter, candidate.name, split, folder / protocol / places[candidate.name], rank, world_size,
                candidate.training,
            )  # fmt: skip
    page = folder / FILE
    if rank == 0:
        write_text(page, _page(folder, split, protocols, places))
    return page


def _page(folder: Path, split: str, protocols: Sequence[str], places: Mapping[str, str]) -> str:
    first, *others = places
    lines = [f"# {first} and {', '.join(others)}", ""]
    for protocol in protocols:
        reports = {name: folder / protocol / place for name, place in places.items()}
        lines += [f"## Protocol {protocol}", "", get_protocol(protocol).rule, "", *_table(reports), ""]
        records = {name: read_records(report) for name, report in reports.items()}
        for other in others:
            lines += [as_markdown(compare_records(records[first], records[other]), first, other), ""]
    links = ", ".join(f"[{name}]({protocols[0]}/{place}/report.md)" for name, place in places.items())
    return "\n".join([*lines, f"Split {split}. Reports: {links}."]) + "\n"


def _table(reports: Mapping[str, Path]) -> list[str]:
    """Sets models below each other, and below each the control that came nearest to it."""
    rows, scorer = {}, None
    for name, report in reports.items():
        facts = json.loads((report / REPORT_FILE).read_text(encoding="utf-8"))
        scorer = get_scorer(facts["scorer"])
        rows[name] = facts["metrics"]
        if best := facts["best_control"]:
            rows[f"{name}, best control (`{best}`)"] = facts["controls"][best]
    assert scorer is not None  # there are at least two models
    return rows_table(scorer, "model", rows)
