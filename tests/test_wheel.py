"""The wheel, built and installed elsewhere: every command runs without the checkout beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.models.segearth import SegEarth

ROOT = Path(__file__).parent.parent
SMALL = ["model.name=segearth_debug", "train.max_steps=1", "train.global_batch_size=2", "train.micro_batch_size=2",
         "data.train_size=64", "data.num_workers=0",
         "train.val_images=2"]  # fmt: skip
# All in one process: most of a command's time is the import of torch.
SCRIPT = """
import json, sys
import segearth
from segearth.cli import app

results = {"package": segearth.__file__}
for name, arguments in json.loads(sys.argv[1]).items():
    try:
        results[name] = app(arguments, standalone_mode=False) or 0
    except BaseException as error:
        results[name] = repr(error)
print("RESULTS" + json.dumps(results))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: what an earlier build left in the checkout must not get in."""
    pytest.importorskip("setuptools", minversion="70.1")  # of the extra dev
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("segearth", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", copy / "out", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = (copy / "out").glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "segearth").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"segearth/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.*") if p.suffix != ".pyc"}
    assert sorted(expected - held) == []
    assert sorted(name for name in held - expected if ".dist-info/" not in name) == []
    assert any(name.endswith("LICENSE") for name in held)


def run_elsewhere(wheel: Path, folder: Path, commands: dict[str, list[str]]) -> Path:
    """Runs commands of the installed wheel in a folder of its own, which it returns; each must end well."""
    site, elsewhere = folder / "site", folder / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)  # all that installing does with a pure wheel, but for the script
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], cwd=elsewhere, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "RESULTS" in done.stdout, done.stderr
    results = json.loads(done.stdout.split("RESULTS")[1])
    assert Path(results.pop("package")).is_relative_to(site)
    assert results == dict.fromkeys(commands, 0), done.stderr
    return elsewhere


def test_an_experiment_from_its_name_to_a_mask(wheel: Path, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "picture.png")
    folder = run_elsewhere(wheel, tmp_path, {
        "train": ["train", "aerial_mini", *SMALL],
        "eval": ["eval", "aerial_mini", "eval.limit=2", "eval.controls=false", "--split", "val"],
        "predict": ["predict", "../picture.png", "the road"],
        "info": ["info", "runs/aerial_mini"],
        "data list": ["data", "list"],
        "data verify": ["data", "verify", "aerial_mini", "--split", "val"],
        "zoo list": ["zoo", "list"],
    })  # fmt: skip
    for made in ("runs/aerial_mini/model/config.json", "runs/aerial_mini/eval_val/report.md", "mask.png"):
        assert (folder / made).is_file()


@pytest.mark.slow
def test_the_commands_that_take_longer(wheel: Path, debug_model: SegEarth, tmp_path: Path) -> None:
    language = tmp_path / "language"
    tokenizer = debug_model.prompt_encoder.tokenizer
    debug_model.language_model.causal_lm.save_pretrained(language)
    tokenizer.save_pretrained(language)
    folder = run_elsewhere(wheel, tmp_path, {
        "bench": ["bench", "segearth_debug", "--size", "64", "--questions", "1", "--repeats", "1", "--no-training"],
        "convert": ["zoo", "convert", "../language", "start", "--model", "segearth_debug"],
        "export": ["export", "start", "graphs", "--height", "64", "--width", "64"],
    })  # fmt: skip
    assert (folder / "start/model.safetensors").is_file()
    assert list((folder / "graphs").glob("*.onnx"))
