"""Backbones of timm: which weights they start from, and that those can be known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segearth.errors import CheckpointError
from segearth.models.build import build_model
from segearth.models.vision_encoder import relative_position_index
from segearth.utils.torchvision_mend import mend_torchvision
from segearth.zoo.lookup import model_config

mend_torchvision()
timm = pytest.importorskip("timm")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_timm_backbone_starts_from_its_weights_or_says_what_to_set(
    frozen: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {"name": "segearth_debug", "vision_encoder": {"kind": "timm", "timm_name": "resnet10t", "frozen": frozen}}
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"the weights of resnet10t: .*pretrained: false to start at random"):
        build_model(model_config(spec))
    assert build_model(model_config(spec), load_weights=False).vision_encoder.frozen == frozen
    asked: list[bool] = []
    create = timm.create_model

    def fetch(name: str, pretrained: bool, **options: object) -> torch.nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", fetch)
    model = build_model(model_config(spec))
    assert asked == [True] and model.vision_encoder.pretrained
    assert "vision_encoder" not in model.random_parts and "language_model" in model.random_parts


def test_a_timm_backbone_without_published_weights_is_random_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    without = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    spec = {"name": "segearth_debug", "vision_encoder": {"kind": "timm", "timm_name": without}}
    model = build_model(model_config(spec))
    assert "vision_encoder" in model.random_parts
    assert f"timm has no weights for {without}: it starts at random" in caplog.messages


def test_relative_positions() -> None:
    """A window of 2: the pair (cell, same cell) is the table's middle row; one step right of it is one before."""
    assert relative_position_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
