"""Weights on their way into the package."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tool_files import load_tool

from segearth.errors import CheckpointError
from segearth.models.pretrained import save_folder
from segearth.models.segearth import SegEarth


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("package_weights")


@pytest.fixture
def run(debug_model: SegEarth, tmp_path: Path) -> Path:
    debug_model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "training.json").write_text(json.dumps({"step": 3, "trained_on": ["aerial_mini train"]}))
    return tmp_path / "run"


def test_weights_are_halved_and_replace_the_older_ones(
    tool: ModuleType, run: Path, tmp_path: Path, debug_model: SegEarth
) -> None:
    folder = tmp_path / "weights" / "segearth_debug"
    folder.mkdir(parents=True)
    (folder / "older").touch()
    path = tool.package(run, folder)
    assert path == folder / "model.safetensors" and not (folder / "older").exists()
    assert path.stat().st_size < 0.55 * (run / "model.safetensors").stat().st_size
    opened = SegEarth.from_pretrained(folder).state_dict()
    assert all(torch.equal(opened[name], value.half().float()) for name, value in debug_model.state_dict().items())
    assert json.loads((folder / "training.json").read_text())["trained_on"] == ["aerial_mini train"]
    assert [p.name for p in folder.parent.iterdir()] == ["segearth_debug"]


@pytest.mark.parametrize("seen", [[], ["unknown", "aerial_mini train"]])
def test_weights_that_do_not_tell_what_they_saw_are_refused(
    tool: ModuleType, run: Path, tmp_path: Path, seen: list[str]
) -> None:
    (run / "training.json").write_text(json.dumps({"step": 3, "trained_on": seen}))
    with pytest.raises(CheckpointError, match="which splits it was trained on"):
        tool.package(run, tmp_path / "weights")


def test_what_half_precision_or_a_package_cannot_hold_is_refused(
    tool: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "older").touch()
    monkeypatch.setattr(tool, "MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match="the weights take 1"):
        tool.package(run, tmp_path / "weights")
    model = SegEarth.from_pretrained(run)
    with torch.no_grad():
        model.mask_decoder.norm.weight.fill_(1e6)
    save_folder(model, run)
    with pytest.raises(CheckpointError, match=r"mask_decoder\.norm\.weight does not fit into fp16"):
        tool.package(run, tmp_path / "weights")
    assert (tmp_path / "weights" / "older").exists()
