"""The weights that come with the package: what they are said to be, and that they answer as they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segearth.cli import app
from segearth.config import load_experiment
from segearth.data.registry import build_dataset
from segearth.evaluation.run import evaluate_experiment
from segearth.models.parts import added_parts
from segearth.zoo.cards import CARDS, PACKAGED
from segearth.zoo.opening import default_source, find_folder, load, open_model, training_of

NAMES = [name for name, card in CARDS.items() if card.weights == PACKAGED]
pytestmark = pytest.mark.skipif(not NAMES, reason="no model of the zoo has packaged weights yet")
IMAGES = 12
EXPECTED = {"segearth_tiny": (0.527, 0.904)}  # gIoU and T@0.1 on the first images of the test split


def count(part: torch.nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_weights_are(name: str) -> None:
    card, folder = CARDS[name], find_folder(name)
    assert card.sha256 and card.trained_on and card.licence and card.command
    assert (folder / "model.safetensors").stat().st_size < 25_000_000
    facts = json.loads((folder / "training.json").read_text())
    assert tuple(facts["trained_on"]) == card.trained_on
    assert not any("test" in split for split in card.trained_on)
    model = open_model(name)
    added = [model.get_submodule(part) for part in added_parts(card.config, model.config)]
    numbers = count(model) - sum(count(part) for part in added)
    assert numbers / 1e6 == pytest.approx(card.parameters, abs=0.05)  # the card's shape, and the parts that were added


@pytest.mark.parametrize("name", NAMES)
def test_words_that_they_never_met_are_told(name: str) -> None:
    segmenter = load(name, "cpu")
    segmenter.set_image(build_dataset("aerial_mini", None, "test")[0].image)
    (answer,) = segmenter.predict(["Which pixels belong to the largest building in the left half?"])
    assert answer.unknown_words == ("pixels", "belong")


@pytest.mark.parametrize("name", NAMES)
def test_they_score_what_they_did(name: str, tmp_path: Path) -> None:
    experiment = load_experiment("configs/experiment/aerial_mini.yaml", [f"eval.limit={IMAGES}", "eval.controls=false"])
    evaluate_experiment(experiment, load(name), name, "test", tmp_path, training=training_of(name))
    report = json.loads((tmp_path / "report.json").read_text())
    found = report["metrics"]["giou"], report["metrics"]["t_found"]
    assert found == pytest.approx(EXPECTED[name], abs=0.02)
    assert "warning" not in report["notes"]


def test_a_picture_is_answered_right_after_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was trained, the packaged weights answer."""
    from typer.testing import CliRunner

    dataset = build_dataset("aerial_mini", None, "test")
    picture = dataset._image_path(0)
    monkeypatch.chdir(tmp_path)
    assert default_source() == "segearth_tiny"
    result = CliRunner().invoke(app, ["predict", str(picture), "the buildings", "--overlay", "o.png", "--doubt"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "mask.png").is_file() and (tmp_path / "o.png").is_file()
