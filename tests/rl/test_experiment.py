"""Whole experiments of the decoupled family, with a tiny model in place of the published ones and two steps a stage."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataset_fakes import earthreason, rrsisd
from typer.testing import CliRunner

pytest.importorskip("trl", reason="training by rewards needs trl")

import segearth
from segearth.cli import app
from segearth.config import ExperimentConfig
from segearth.errors import ConfigError, UnknownNameError
from segearth.evaluation.run import evaluate_experiment
from segearth.prompting.tiny import tiny_sam2
from segearth.rl import experiment as module
from segearth.rl.blind import Sight
from segearth.rl.experiment import open_segmenter, train_decoupled
from segearth.zoo.opening import training_of

PUBLISHED = ["think2seg_rs", "rsground_r1", "geovlm_r1"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_nothing_to_a_report(tiny_experiment: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = tiny_experiment(folder, "eval.limit=6")
    assert train_decoupled(config) == folder
    assert [row["step"] for row in rows(folder / "sft/sft.csv")] == ["1", "2"]
    assert {"reward", "mask_iou", "reward_seconds"} <= set(rows(folder / "grpo/grpo.csv")[0])
    sight = json.loads((folder / "sight.json").read_text())
    assert set(sight) == {"sft", "grpo"} and sight["grpo"]["questions"] > 2
    assert 0 < sight["grpo"]["blind"] < 0.5 and sight["grpo"]["policy"] <= 1
    assert not list(folder.glob("*_weights"))
    opened = segearth.load(folder)
    assert opened.prompter.side == 32 and opened.prompter.template.id == "brief@1"
    assert training_of(folder) == {"trained_on": ["roofs train"]}
    config.eval.limit = 2
    line = evaluate_experiment(config, opened, str(folder), "test", tmp_path / "report", training=training_of(folder))
    assert "best control" in line
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert "shuffled_questions" in json.dumps(report["controls"])
    when = (folder / "vlm/model.safetensors").stat().st_mtime_ns
    train_decoupled(config)  # nothing is left to do
    assert (folder / "vlm/model.safetensors").stat().st_mtime_ns == when


def test_what_a_policy_sees_is_measured_on_the_first_images(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole public split would be held in memory, and asked of a large model twice a stage."""
    measured: list[tuple[int, int]] = []

    def measure(prompter: Any, held_out: Any, fitted_on: Any) -> Sight:
        measured.append((len(held_out), len(fitted_on)))
        return Sight(0.5, 0.0, 0.1, 0.5, 1.0, 1.0, 7)

    monkeypatch.setattr(module, "SIGHT_IMAGES", 5)
    monkeypatch.setattr(module, "measure_sight", measure)
    models: dict[str, str | Path] = {"sft": policy_start, "grpo": policy_start}
    config = tiny_experiment(tmp_path, "eval.limit=null")
    found = module._sight(config, models)
    assert measured == [(5, 5)] * 2 and found["sft"] == found["grpo"] and found["sft"] is not None
    assert found["sft"]["questions"] == 7
    config.eval.limit = 9
    module._sight(config, models)
    assert measured[2:] == [(9, 9)] * 2
    config.data.test = []
    assert module._sight(config, models) == {"sft": None, "grpo": None}


def test_traces_may_be_of_other_scenes_than_rewards(
    tiny_experiment: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_experiment(tmp_path, "sft.data=[{name: aerial_mini}]", "eval.limit=1")
    assert module._rows(config, module._traced(config)).datasets[0].name == "aerial_mini"
    monkeypatch.setattr(module, "_sight", lambda experiment, models: {})
    module._finish(config, tmp_path, {})
    assert training_of(tmp_path) == {"trained_on": ["roofs train", "aerial_mini train"]}
    config.sft.max_steps = 0  # then no trace is read
    module._finish(config, tmp_path, {})
    assert training_of(tmp_path) == {"trained_on": ["roofs train"]}
    config.sft.data = None
    assert module._traced(config) == config.data.train


def test_adapters_are_merged_into_what_is_saved(tiny_experiment: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny_experiment(tmp_path / "run", "train.lora.enabled=true", "train.max_steps=1", "sft.max_steps=1")
    folder = train_decoupled(config)
    assert not (folder / "vlm/adapter_config.json").exists()
    assert segearth.load(folder).prompter.model.num_parameters() > 0


def test_the_command_line_trains_this_family_and_refuses_unknown_ones(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("family: decouple\n")
    result = CliRunner().invoke(app, ["train", str(path), f"train.output_dir={tmp_path / 'run'}"])
    assert result.exit_code == 1 and "decoupled" in result.output
    with pytest.raises(ConfigError, match="end_to_end"):
        train_decoupled(ExperimentConfig())


def write_earthreason(root: Path) -> None:
    for split in ("train", "val", "test"):
        earthreason(root / "rs_reason_seg/RSReasonSeg", {f"{len(split)}0": 2, f"{len(split)}1": 3}, split)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_systems(
    name: str, tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_earthreason(tmp_path / "earthreason")
    rrsisd(tmp_path / "rrsis_d", size=(8, 10), with_val=True)
    tiny_sam2().save_pretrained(tmp_path / "sam")
    monkeypatch.setenv("EARTHREASON_ROOT", str(tmp_path / "earthreason"))
    monkeypatch.setenv("RRSIS_D_ROOT", str(tmp_path / "rrsis_d"))
    monkeypatch.setenv("SEGEARTH_START", str(policy_start))
    monkeypatch.setenv("SEGEARTH_SAM", str(tmp_path / "sam"))
    config = tiny_experiment(tmp_path / "run", "train.activation_checkpointing=false", name=name)
    if name == "think2seg_rs":
        config.sft.max_steps = 0  # as published
        assert open_segmenter(config).encodings == 0
    folder = train_decoupled(config)
    steps = rows(folder / "grpo/grpo.csv")
    assert [row["step"] for row in steps] == ["1", "2"] and all(math.isfinite(float(row["loss"])) for row in steps)
    assert (folder / "sft_model").exists() == (name != "think2seg_rs")
    assert ("trust" in steps[0]) == (name == "rsground_r1")


def test_published_numbers() -> None:
    from segearth.config import load_experiment
    from segearth.utils.files import configs_dir

    folder = configs_dir() / "experiment"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARTHREASON_ROOT", "x")
        patch.setenv("RRSIS_D_ROOT", "x")
        names = ("think2seg_rs", "rsground_r1", "geovlm_r1")
        think, ground, geo = (load_experiment(folder / f"{name}.yaml") for name in names)
    grpo, train = think.grpo, think.train
    assert (grpo.group, grpo.beta, grpo.epsilon, grpo.temperature, train.learning_rate) == (16, 1e-3, 0.2, 1.0, 1e-6)
    assert (think.policy.max_new_tokens, think.policy.freeze_vision, train.deepspeed) == (1024, False, "zero3")
    assert think.sft.max_steps == 0 < min(ground.sft.max_steps, geo.sft.max_steps)
    assert ground.grpo.constants["positional_sigma"] == 0.25


def test_misspelt_fields_are_told(tiny_experiment: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"policy\.tiny"):
        train_decoupled(tiny_experiment(tmp_path / "run", "policy.tiny={sied: 32}"))
