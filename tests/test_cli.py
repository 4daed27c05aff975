from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segearth.cli import app
from segearth.models.segearth import SegEarth

RUN = CliRunner()


@pytest.fixture(scope="module")
def model(debug_model: SegEarth, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    debug_model.save_pretrained(folder)
    return str(folder)


def test_doubt_needs_an_overlay_to_be_seen_in(model: str, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "p.png")
    asked = ["predict", str(tmp_path / "p.png"), "the roofs", "--model", model, "--out", str(tmp_path / "m.png")]
    result = RUN.invoke(app, [*asked, "--doubt"])
    assert result.exit_code == 1 and "--overlay" in result.output
    assert RUN.invoke(app, [*asked, "--doubt", "--overlay", str(tmp_path / "o.png")]).exit_code == 0
    assert RUN.invoke(app, [*asked, "--overlay", str(tmp_path / "plain.png")]).exit_code == 0
    assert (tmp_path / "o.png").read_bytes() != (tmp_path / "plain.png").read_bytes()


def test_predict_writes_a_mask_of_the_pictures_size(model: str, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "the road", "--model", model, "--out", str(tmp_path / "m.png")]
    result = RUN.invoke(app, [*arguments, "--overlay", str(tmp_path / "o.png"), "--answer"])
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(tmp_path / "m.png"))
    assert mask.shape == picture.shape[:2]
    assert set(np.unique(mask)) <= {0, 255}
    assert Image.open(tmp_path / "o.png").size == picture.shape[1::-1]
    said = f"{np.count_nonzero(mask):,} pixel" if mask.any() else "nothing of the kind"
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere.jpg", "roads"], "error: no image file nowhere.jpg"),
        (["train", "aerial_mni"], "did you mean 'aerial_mini.yaml'"),
        (["train", "aerial_mini", "train.max_stesp=3"], "did you mean 'max_steps'"),
        (["eval", "aerial_mini", "--model", "nobody/nothing"], "no folder here and no model on the hub"),
        (["data", "verify", "aerial_mani"], "did you mean 'aerial_mini'"),
        (["calibrate", "aerial_mini", "--model", "segearth_tiny"], "segearth_tiny is no run and no saved folder here"),
        (["export", "segearth_tiny", "roofs.onnx"], "add --question, or name a folder"),
    ],
)
def test_errors_are_one_message_without_a_traceback(arguments: list[str], message: str) -> None:
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_who_answers_is_told_where_nobody_was_named(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "the road", "--out", str(tmp_path / "m.png")]
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "asking " in result.stderr and "--model names another" in result.stderr
    assert "asking" not in RUN.invoke(app, [*arguments, "--model", "segearth_tiny"]).stderr


def test_help_names_the_extra() -> None:
    assert "segearth[quant]" in "".join(RUN.invoke(app, ["predict", "--help"]).output.split())


def test_two_test_splits_are_noted_before_training_and_one_is_asked_for_in_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(run=lambda: tmp_path)
    monkeypatch.setattr("segearth.training.trainer.Trainer", lambda *args: run)
    two = "data.test=[{name: aerial_mini, split: test}, {name: aerial_mini, split: val}]"
    options = [two, "model.name=segearth_debug", f"train.output_dir={tmp_path}"]
    trained = RUN.invoke(app, ["train", "aerial_mini", *options])
    assert trained.exit_code == 0 and "eval.sh scores one data set" in trained.stderr
    assert "eval.sh" not in RUN.invoke(app, ["train", "aerial_mini", *options[1:]]).stderr
    scored = RUN.invoke(app, ["eval", "aerial_mini", *options, "--model", "segearth_tiny", "--out", str(tmp_path)])
    assert scored.exit_code == 1 and "'data.test=[{name: …, root: …, split: test}]'" in scored.output


def test_listings(model: str) -> None:
    assert "segearth_tiny" in RUN.invoke(app, ["zoo", "list"]).output
    assert "aerial_mini" in RUN.invoke(app, ["data", "list"]).output
    assert "vision_encoder" in RUN.invoke(app, ["info", model]).output


def test_memory_in_training_is_computed_for_what_would_be_trained(model: str) -> None:
    """Of names without their weights, and of saved folders."""
    for source in ("segearth_debug", model):
        arguments = ["info", source, "train.freeze=[language_model]", "train.precision=fp32"]
        result = RUN.invoke(app, [*arguments, "--training", "--gpus", "2,16"])
        assert result.exit_code == 0, result.output
        assert "vision_encoder" in result.output and ", fp32, AdamW" in result.output
        assert result.output.count("\n| 3 | ") == 2 and "\n| 0 | 16 | " in result.output
        assert " 0.0 M are frozen" not in result.output
    result = RUN.invoke(app, ["info", "segearth_debug", "train.freeze=[language_model]"])
    assert result.exit_code == 1 and "train.freeze=[language_model] goes with --training" in result.output


def test_eval_writes_a_report(model: str, tmp_path: Path) -> None:
    arguments = ["eval", "aerial_mini", "eval.limit=3", "eval.controls=false", "--split", "val", "--model", model]
    result = RUN.invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts
    assert "gIoU" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "m.jpg"], "m.jpg: a JPEG blurs a mask's edges; name it m.png"),
        (["--out", "m"], "no format is known for ''"),
        (["--out", "file/m.png"], "file is no folder; name another place"),
        (["--out", "."], "no format is known"),
        (["--overlay", "o.gif"], "no format is known for '.gif'"),
        (["--overlay", "mask.png"], "mask.png is named twice"),
        (["--out", "a.png"], "a.png is named twice, so that one file would replace the other"),
    ],
)
def test_outputs_are_checked_before_the_model_is_opened(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("a.png")
    Path("file").write_text("in the way")
    result = RUN.invoke(app, ["predict", "a.png", "roads", "--model", "nowhere", *options])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]
    assert np.array_equal(np.asarray(Image.open("a.png")), picture)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "aerial_mini", "train.output_dir={out}"],
        ["eval", "aerial_mini", "--model", "nowhere", "--out", "{out}"],
        ["bench", "segearth_debug", "--out", "{out}"],
        ["export", "{model}", "{out}"],
        ["zoo", "convert", "{model}", "{out}"],
        ["zoo", "export", "{model}", "{out}"],
    ],
)
def test_a_folder_that_cannot_be_made_is_one_message(model: str, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    result = RUN.invoke(app, [part.format(out=tmp_path / "file" / "out", model=model) for part in arguments])
    assert result.exit_code == 1, result.output
    assert "file is no folder" in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)


def test_what_the_system_refuses_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    result = RUN.invoke(app, ["train", str(tmp_path / "folder.yaml")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.output


@pytest.mark.parametrize("device", ["blub", "cuda:99", "meta:x"])
def test_devices_that_are_not_there(model: str, picture: np.ndarray, tmp_path: Path, device: str) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    options = ["--model", model, "--device", device, "--out", str(tmp_path / "m.png")]
    result = RUN.invoke(app, ["predict", str(tmp_path / "a.png"), "roads", *options])
    assert result.exit_code == 1
    assert f"error: no device '{device}' here" in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)


def test_an_error_in_a_worker_is_one_message(tmp_path: Path) -> None:
    """A worker that loads data sends its traceback along, which is not for users."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    line = {"image": "a.png", "question": "roads", "mask": [[0, 0, 9, 0, float("nan"), 9]]}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    sets = [f"data.{split}=[{{name: jsonl, root: {tmp_path}, split: train}}]" for split in ("train", "val")]
    options = ["model.name=segearth_debug", f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1"]
    options += ["train.global_batch_size=1", "train.micro_batch_size=1", "data.num_workers=1"]
    result = RUN.invoke(app, ["train", "aerial_mini", *sets, *options])
    assert result.exit_code == 1
    assert "train.jsonl:1: a polygon needs three or more x, y pairs of finite numbers" in result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("numbers", ["a", "1,,x", "0", "-3"])
def test_lists_of_numbers(numbers: str) -> None:
    result = RUN.invoke(app, ["bench", "segearth_debug", f"--questions={numbers}"])
    assert result.exit_code == 2
    assert "is no list of whole numbers such as 1,8,32" in " ".join(result.output.replace("│", "").split())


def test_compare_says_which_run_is_better(tmp_path: Path) -> None:
    line = {"id": "q", "image_id": "i", "question": "roofs", "task": "referring", "kind": "", "source": ""}
    for name, found in (("new", 80), ("old", 30)):
        (tmp_path / name).mkdir()
        counts = {"intersection": found, "union": 100, "target_area": 100, "predicted_area": found}
        (tmp_path / name / "samples.jsonl").write_text(json.dumps({**line, **counts}) + "\n")
    result = RUN.invoke(app, ["compare", str(tmp_path / "new"), str(tmp_path / "old")])
    assert result.exit_code == 0, result.output
    assert "| all | 1 | 80.0 | 30.0 | +50.0 | +50.0 to +50.0 |" in result.output
    assert RUN.invoke(app, ["compare", str(tmp_path / "new"), str(tmp_path)]).exit_code == 1
    samples = tmp_path / "old" / "samples.jsonl"
    samples.write_text(samples.read_text().replace("roofs", "rooftops"))
    folders = [str(tmp_path / "new"), str(tmp_path / "old")]
    assert RUN.invoke(app, ["compare", *folders]).exit_code == 1
    assert RUN.invoke(app, ["compare", *folders, "--other-words"]).output == result.output
