"""The experiments of the repository, trained for two steps: everything as the file says, but a smaller model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segearth.inference.predictor import Predictor
from segearth.models.pretrained import save_folder

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from dataset_fakes import earthreason, phrases, rrsisd, write_mask
from experiments import metrics

from segearth.config import ExperimentConfig, load_experiment, to_dict
from segearth.evaluation.run import evaluate_experiment
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.training.trainer import Trainer
from segearth.utils.files import configs_dir
from segearth.zoo.cards import CARDS
from segearth.zoo.lookup import model_config

SPLITS = {"train": "1", "val": "2", "test": "3"}  # beginnings of their images' ids
SMALL = ("description_projector", "pixel_decoder", "mask_decoder")
SIZES_OF_SWIN = ("embed_dim", "depths", "num_heads", "window_size")


def write_earthreason(root: Path) -> None:
    for split, start in SPLITS.items():
        earthreason(root / "rs_reason_seg/RSReasonSeg", {f"{start}0": 2, f"{start}1": 3}, split)
        write_mask(root / f"rs_reason_seg/RSReasonSeg/{split}/labels/{start}1.png", 0)  # nothing of the kind is there


def write_rrsis_d(root: Path) -> None:
    rrsisd(root, size=(9, 10), with_val=True)  # a pixel higher than its masks, as some of the published images are


def write_refsegrs(root: Path) -> None:
    for split, start in SPLITS.items():
        phrases(root, {f"{start}0": 2, f"{start}1": 3}, split=split)


def write_risbench(root: Path) -> None:
    for split, start in SPLITS.items():
        phrases(root, {f"{start}0": 2, f"{start}1": 3}, ("img_rgb", "mask"), split)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "earthreason": write_earthreason,
    "rrsis_d": write_rrsis_d,
    "refsegrs": write_refsegrs,
    "risbench": write_risbench,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published shape in small, as `segearth zoo convert` leaves it: with encoder and language model trained."""
    debug = to_dict(CARDS["segearth_debug"].config)
    spec: dict[str, Any] = {
        "name": "segearth_swinb_phi1_5",
        "vision_encoder": {name: debug["vision_encoder"][name] for name in SIZES_OF_SWIN},
        "token_compressor": {"input_size": 2},
        "language_model": {"pretrained": None, "config": debug["language_model"]["config"]},
        "image_transform": {"size": 64},
        "text": {"tokenizer": "aerial"},
        **{name: debug[name] for name in SMALL},
    }
    model = build_model(model_config(spec))
    model.random_parts -= {"vision_encoder", "language_model"}
    folder = tmp_path_factory.mktemp("start")
    save_folder(model, folder)
    return folder


def dry_run(name: str, folder: Path, *overrides: str) -> ExperimentConfig:
    path = configs_dir() / "experiment" / f"{name}.yaml"
    # Sixteen small images fit into one pass: only how often a step goes through the model is not as the file says.
    short = ["train.max_steps=2", "train.log_every=1", "train.micro_batch_size=${train.global_batch_size}"]
    config = load_experiment(path, [*short, "data.num_workers=0", f"train.output_dir={folder}", *overrides])
    Trainer(config).run()
    return config


# One of each data set is enough to run always, each recipe twice; asked is how many of the test split's questions.
@pytest.mark.parametrize(
    ("name", "published", "asked"),
    [
        pytest.param("earthreason", False, 5, marks=pytest.mark.slow),
        ("earthreason", True, 2),
        ("rrsis_d", False, 1),
        pytest.param("rrsis_d", True, 1, marks=pytest.mark.slow),
        ("refsegrs", False, 4),
        pytest.param("refsegrs", True, 2, marks=pytest.mark.slow),
        pytest.param("risbench", False, 4, marks=pytest.mark.slow),
        ("risbench", True, 2),
    ],
)
def test_public_data_sets(
    name: str, published: bool, asked: int, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[name](tmp_path / "data")
    monkeypatch.setenv(f"{name.upper()}_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("SEGEARTH_START", str(start))
    config = dry_run(name + "_published" * published, tmp_path / "run")
    assert config.train.global_batch_size == 16
    lines = [line for line in metrics(tmp_path / "run") if "total" in line]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(math.isfinite(line["total"]) and line["total"] > 0 for line in lines)
    model = SegEarth.from_pretrained(tmp_path / "run")
    before, after = SegEarth.from_pretrained(start).state_dict(), model.state_dict()
    moved = {key.split(".")[0] for key in before if not before[key].equal(after[key])}
    assert moved == {"token_compressor", "language_model", *SMALL}  # the published encoder is frozen
    head = "mask_decoder.presence_head.0.weight"
    assert after[head].equal(before[head]) == published  # which knows no absence
    evaluate_experiment(config, Predictor(model), str(tmp_path / "run"), "test", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["protocol"]["name"] == ("segearth_r1" if published else "native")
    assert report["metrics"]["samples"] == asked


def test_the_published_recipe_on_the_embedded_images(tmp_path: Path) -> None:
    config = dry_run("published_recipe", tmp_path, "model.name=segearth_debug", "data.train_size=64", "data.val=[]")
    assert config.train.global_batch_size == 8
    assert [math.isfinite(line["total"]) for line in metrics(tmp_path)] == [True, True]
