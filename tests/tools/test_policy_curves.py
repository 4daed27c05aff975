from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from tool_files import load_tool


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, gain in (("one", 0.2), ("two", 0.0)):
        folder = tmp_path / name / "grpo"
        folder.mkdir(parents=True)
        lines = [f"{step},{step / 10},{3 + step},{0.1 * step},0.5" for step in range(1, 21)]
        text = "\n".join(["step,cpu_seconds,reward,mask_iou,entropy", *lines])
        (folder / "grpo.csv").write_text(text)
        seen = {"policy": 0.3, "shuffled": 0.05, "blind": 0.1, "stretched": 0.35}
        (tmp_path / name / "sight.json").write_text(json.dumps({"sft": seen, "grpo": seen | {"policy": 0.3 + gain}}))
    load_tool("policy_curves").main(str(tmp_path / "out"), f"first={tmp_path / 'one'}", f"second={tmp_path / 'two'}")
    assert "| first | 0.100 | 0.300 | 0.350 | 0.500 | 0.200 | 0.050 |" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["step"]) for row in rows] == [(n, s) for n in ("first", "second") for s in ("10", "20")]
    assert float(rows[1]["reward"]) == 18.5 and float(rows[0]["mask_iou"]) == pytest.approx(0.55)
    assert Image.open(tmp_path / "out.png").width == 960


def test_steps_without_rewards_of_their_own_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "grpo").mkdir()
    lines = [f"{step},{step},{'' if step % 2 else 0.25},0.5" for step in range(1, 11)]
    (tmp_path / "grpo/grpo.csv").write_text("\n".join(["step,cpu_seconds,mask_iou,step_seconds", *lines]))
    [line] = load_tool("policy_curves").means("one", tmp_path)
    assert line == {"run": "one", "step": 10, "mask_iou": 0.25, "step_seconds": 0.5, "cpu_seconds": 10.0}
