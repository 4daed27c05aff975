"""The table of what learned weights are worth for a source that they have not seen, from reports by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tool_files import load_tool, write_samples

from segearth.errors import ConfigError


def report(folder: Path, intersections: list[int]) -> None:
    """A report on one question of each of several images."""
    giou = write_samples(folder, intersections)
    (folder / "report.json").write_text(json.dumps({"metrics": {"giou": giou}}))


def test_a_source_is_the_difference_between_learned_weights_and_none(tmp_path: Path) -> None:
    for name, intersections in {"before": [1, 1], "learned": [6, 4], "nothing": [4, 2]}.items():
        report(tmp_path / "gsi_road" / name / "test", intersections)
    table = load_tool("transfer").as_table({"gsi_road": tmp_path / "gsi_road"}).splitlines()
    assert table[2] == "| gsi_road | 2 | 10.0 | 50.0 | 30.0 | +20.0 (+20.0 to +20.0) |"


def test_a_run_trains_on_the_others_and_is_scored_on_the_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = load_tool("transfer")
    commands: list[list[str]] = []
    monkeypatch.setattr(tool.subprocess, "run", lambda command, **_: commands.append([str(part) for part in command]))
    tool._run(tmp_path / "before", "gsi_road", ["gsi_solar", "sen2ships"], ["train.seed=1"])
    assert [Path(command[1]).name for command in commands] == ["train.py", "evaluate.py"]
    for command in commands:
        assert "data.train=[{name: aerial_mini, split: train, options: {sources: [gsi_solar, sen2ships]}}]" in command
        assert "data.test=[{name: aerial_mini, split: test, options: {sources: [gsi_road]}}]" in command
        assert {"train.max_steps=450", "train.seed=1"} <= set(command)
    report(tmp_path / "before/test", [1])
    tool._run(tmp_path / "before", "gsi_road", ["gsi_solar", "sen2ships"], ["train.seed=1"])
    assert len(commands) == 2  # what is scored is not trained again
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        tool._run(tmp_path / "before", "gsi_road", ["gsi_solar", "sen2ships"], ["train.seed=2"])
