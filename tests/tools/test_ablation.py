"""The table of an ablation, from reports by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tool_files import load_tool, write_samples

from segearth.errors import ConfigError

ROOT = Path(__file__).parents[2]
KINDS = ("position", "size", "neighbour")


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    return load_tool("ablation")


def report(folder: Path, intersections: list[int]) -> Path:
    """A run's reports on one question of each of several images."""
    giou, _ = (write_samples(folder / name, intersections) for name in ("fixed", "dense"))
    facts: dict[str, Any] = {
        "metrics": {"giou": giou, "present_giou": giou, "n_acc": 0.9, "t_found": 0.8},
        "breakdown": {"kind": {name: {"giou": share} for name, share in zip(KINDS, (0.3, 0.2, 0.1), strict=True)}},
        "needs_words": {"margin": 0.15},
        "pairs": {"all": {"pairs": 3, "won": 2 / 3}},
    }
    for name in ("fixed", "dense"):
        (folder / name / "report.json").write_text(json.dumps(facts))
    return folder


def test_a_row_is_paired_with_the_first_by_question_and_seed(ablation: ModuleType, tmp_path: Path) -> None:
    runs = {
        "the recipe": [report(tmp_path / f"recipe-{seed}", [6 + seed, 4]) for seed in range(2)],
        "without": [report(tmp_path / f"without-{seed}", [5 + seed, 3]) for seed in range(2)],
        "half done": [report(tmp_path / "half-0", [6, 4]), tmp_path / "half-1"],
        "not begun": [tmp_path / "none-0", tmp_path / "none-1"],
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ablation.as_table(runs).splitlines()]
    assert rows[2] == ["the recipe", "2", "52.5", "", "52.5", "90.0", "80.0", "30.0", "20.0", "10.0", "15.0", "66.7"]
    assert rows[3][:4] == ["without", "2", "42.5", "-10.0 (-10.0 to -10.0)"]
    assert rows[4][:4] == ["half done", "1", "50.0", "+0.0 (+0.0 to +0.0)"]  # against seed 0 of the recipe alone
    assert len(rows) == 5


def test_every_row_of_the_packaged_file_is_a_change_of_the_experiment() -> None:
    from omegaconf import OmegaConf

    from segearth.config import load_experiment, to_dict
    from segearth.zoo.lookup import model_config

    path = ROOT / "configs/ablation/aerial_mini.yaml"
    plan: Any = OmegaConf.to_container(OmegaConf.load(path))
    seen = []
    for changes in plan["rows"].values():
        experiment = load_experiment(path.parent / plan["experiment"], changes)
        seen.append((to_dict(experiment) | {"model": {}}, to_dict(model_config(experiment.model))))
    assert len(seen) == len(plan["rows"]) > 10
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_a_run_with_other_overrides_is_not_taken_for_this_one(ablation: ModuleType, tmp_path: Path) -> None:
    ablation._check_same(tmp_path / "run", ["train.max_steps=200"])
    ablation._check_same(tmp_path / "run", ["train.max_steps=200"])
    with pytest.raises(ConfigError, match="other overrides"):
        ablation._check_same(tmp_path / "run", [])
