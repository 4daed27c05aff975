from __future__ import annotations

import json
from pathlib import Path

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


def test_predict_writes_a_mask_of_the_pictures_size(model: str, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "the road", "--model", model, "--out", str(tmp_path / "m.png")]
    result = RUN.invoke(app, [*arguments, "--overlay", str(tmp_path / "o.png"), "--answer"])
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(tmp_path / "m.png"))
    assert mask.shape == picture.shape[:2]
    assert set(np.unique(mask)) <= {0, 255}
    assert Image.open(tmp_path / "o.png").size == picture.shape[1::-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere.jpg", "roads"], "error: no image file nowhere.jpg"),
        (["train", "aerial_mni"], "did you mean 'aerial_mini.yaml'"),
        (["train", "aerial_mini", "train.max_stesp=3"], "did you mean 'max_steps'"),
        (["eval", "aerial_mini", "--model", "nobody/nothing"], "no folder here and no model on the hub"),
        (["data", "verify", "aerial_mani"], "did you mean 'aerial_mini'"),
    ],
)
def test_errors_are_one_message_without_a_traceback(arguments: list[str], message: str) -> None:
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_listings(model: str) -> None:
    assert "segearth_tiny" in RUN.invoke(app, ["zoo", "list"]).output
    assert "aerial_mini" in RUN.invoke(app, ["data", "list"]).output
    assert "vision_encoder" in RUN.invoke(app, ["info", model]).output


def test_eval_writes_a_report(model: str, tmp_path: Path) -> None:
    arguments = ["eval", "aerial_mini", "eval.limit=3", "eval.controls=false", "--split", "val", "--model", model]
    result = RUN.invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts
    assert "gIoU" in (tmp_path / "report.md").read_text()
