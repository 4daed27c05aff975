"""Where a report goes when the user names no folder: to the model, never over another model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segearth.cli import app
from segearth.config import DatasetConfig, ExperimentConfig
from segearth.errors import ConfigError
from segearth.evaluation.run import report_folder
from segearth.models.pretrained import save_folder
from segearth.models.segearth import SegEarth


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    monkeypatch.chdir(tmp_path)
    made = ExperimentConfig()
    made.train.output_dir = "runs/mine"
    made.data.train = [DatasetConfig(name="aerial_mini", split="train")]
    made.data.test = [DatasetConfig(name="aerial_mini", split="test")]
    return made


def test_a_folder_keeps_its_own_report(experiment: ExperimentConfig) -> None:
    Path("converted").mkdir()
    assert report_folder(experiment, "converted", "val") == Path("converted/eval_val")
    assert report_folder(experiment, "./converted/", "test") == Path("converted/eval_test")
    assert report_folder(experiment, Path("runs/mine"), "test") == Path("runs/mine/eval_test")
    Path("runs/mine").mkdir(parents=True)
    assert report_folder(experiment, "runs/mine", "test") == Path("runs/mine/eval_test")


def test_the_model_within_a_run_is_the_run(experiment: ExperimentConfig) -> None:
    for folder in ("runs/other/model", "plain/model"):
        Path(folder).mkdir(parents=True)
    Path("runs/other/config.yaml").write_text("")
    assert report_folder(experiment, "runs/other/model", "test") == Path("runs/other/eval_test")
    assert report_folder(experiment, "plain/model", "test") == Path("plain/model/eval_test")


def test_the_last_model_does_not_replace_the_report_of_the_best(experiment: ExperimentConfig) -> None:
    run = Path("runs/other")
    for name in ("model", "model_best"):
        (run / name).mkdir(parents=True)
        (run / name / "config.json").write_text("{}")
    (run / "config.yaml").write_text("")
    for best in (run, run / "model_best"):
        assert report_folder(experiment, best, "test") == run / "eval_test"
    assert report_folder(experiment, run / "model", "test") == run / "eval_test_last"


def test_a_split_that_was_left_out_is_that_of_the_training_set(experiment: ExperimentConfig) -> None:
    experiment.data.test = None
    path = Path("converted/eval_test/report.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dataset": "aerial_mini"}))
    assert report_folder(experiment, "converted", "test") == path.parent


@pytest.mark.parametrize(
    ("source", "name"),
    [("segearth_debug", "segearth_debug"), ("owner/name", "owner--name"), ("hf:runs/name", "runs--name")],
)
def test_what_is_no_folder_gets_one_with_its_name(experiment: ExperimentConfig, source: str, name: str) -> None:
    assert report_folder(experiment, source, "test") == Path(f"runs/mine/eval_test_{name}")


def test_a_report_on_other_data_is_not_replaced(experiment: ExperimentConfig) -> None:
    path = Path("converted/eval_test/report.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dataset": "rrsisd"}))
    with pytest.raises(ConfigError, match="holds the report on rrsisd; name a folder for this one with --out"):
        report_folder(experiment, "converted", "test")
    experiment.data.test = None  # the training set's own test split stands in
    with pytest.raises(ConfigError, match="holds the report on rrsisd"):
        report_folder(experiment, "converted", "test")
    for replaced in (json.dumps({"dataset": "aerial_mini"}), "[]", "{"):
        path.write_text(replaced)
        assert report_folder(experiment, "converted", "test") == path.parent


def test_the_command_leaves_the_experiments_own_report_alone(
    experiment: ExperimentConfig, debug_model: SegEarth
) -> None:
    own = Path("runs/mine/eval_val/report.md")
    own.parent.mkdir(parents=True)
    own.write_text("what the trained model scored\n")
    save_folder(debug_model, Path("converted"))
    options = ["train.output_dir=runs/mine", "eval.limit=2", "eval.controls=false", "--split", "val"]
    for model, folder in (("converted", "converted/eval_val"), ("segearth_debug", "runs/mine/eval_val_segearth_debug")):
        result = CliRunner().invoke(app, ["eval", "aerial_mini", *options, "--model", model])
        assert result.exit_code == 0, result.output
        assert f"report: {folder}/report.md" in result.output
        assert json.loads((Path(folder) / "report.json").read_text())["model"] == model
    assert own.read_text() == "what the trained model scored\n"
