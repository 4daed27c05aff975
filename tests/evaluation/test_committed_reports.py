"""Reports in docs/, some from before there were scorers, scored again from their samples: every number is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segearth.evaluation.compare import read_records
from segearth.evaluation.examples import Extremes
from segearth.evaluation.protocols import PROTOCOLS
from segearth.evaluation.report import report_facts
from segearth.evaluation.results import EvaluationResult, ScorerResult
from segearth.evaluation.scorers import SCORERS

REPORTS = Path(__file__).parents[2] / "docs" / "reports" / "segearth_tiny"


@pytest.mark.parametrize("name", ["fixed", "dense", "seen", "unseen"])
def test_a_committed_report_comes_out_again(name):
    published = json.loads((REPORTS / name / "report.json").read_text(encoding="utf-8"))
    records = read_records(REPORTS / name)
    found = ScorerResult(SCORERS["segmentation"], records, {}, {}, seed=published["seed"])
    result = EvaluationResult(
        published["dataset"], published["split"], PROTOCOLS["native"], published["seed"],
        {"segmentation": found}, Extremes(0), 1.0, 0,
    )  # fmt: skip
    facts = json.loads(json.dumps(report_facts(result, published["model"], {})))
    for key in ("metrics", "giou_interval_95", "breakdown"):
        assert facts[key] == published[key]
    for key in ("needs_words", "calibration"):  # of rounded numbers, where the samples were written so
        assert flat(facts[key]) == pytest.approx(flat(published[key]), abs=1e-6)


def flat(facts):
    return [value for part in facts.values() for value in (part if isinstance(part, list) else [part])]
