"""What is frozen: one meaning, whichever way it was said, and nothing random among it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from segearth.errors import ConfigError
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.training.freezing import check_frozen, freeze_parts
from segearth.zoo.lookup import model_config

DROPS = {
    "vision_encoder": {"drop_path_rate": 0.5, "depths": [2, 2, 2, 2]},
    "language_model": {"config": {"resid_pdrop": 0.5, "num_hidden_layers": 11}},
}


def build(**frozen: bool) -> SegEarth:
    torch.manual_seed(0)
    spec: dict[str, Any] = {name: {**fields, "frozen": frozen.get(name, False)} for name, fields in DROPS.items()}
    return build_model(model_config({"name": "segearth_debug", **spec})).train()


def state(model: SegEarth) -> tuple[dict[str, bool], dict[str, bool]]:
    """Which parameters learn, and which modules are in training mode."""
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    return learns, {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("part", DROPS)
def test_frozen_in_the_config_and_by_name_are_the_same(part: str) -> None:
    by_config, by_name = build(**{part: True}), build()
    freeze_parts(by_name, [part])
    for model in (by_config, by_name):
        model.eval()
        model.train()
    assert state(by_config) == state(by_name)
    learns, training = state(by_name)
    assert not any(training[name] for name in training if name.startswith(part))
    assert not any(learns[name] for name in learns if name.startswith(part))
    assert training["pixel_decoder.layers.0"] and learns["pixel_decoder.level_embed.weight"] and by_name.training
    assert getattr(by_name, part).frozen and getattr(by_config, part).frozen


def test_layer_one_is_not_layer_ten() -> None:
    model = build()
    freeze_parts(model, ["language_model.causal_lm.model.layers.1"])
    layers = model.train().language_model.causal_lm.model.layers
    assert [layer.training for layer in layers] == [True, False] + 9 * [True]
    assert [all(p.requires_grad for p in layer.parameters()) for layer in layers] == [True, False] + 9 * [True]
    assert not layers[1].resid_dropout.training and layers[10].resid_dropout.training
    assert not model.language_model.frozen


def test_a_single_parameter_stops_alone() -> None:
    model = build()
    freeze_parts(model, ["pixel_decoder.mask_features.weight"])
    model.train()
    assert not model.pixel_decoder.mask_features.weight.requires_grad
    assert model.pixel_decoder.mask_features.bias.requires_grad
    assert model.pixel_decoder.mask_features.training


def test_parts_that_make_up_a_whole_freeze_the_whole() -> None:
    model = build()
    freeze_parts(model, [f"vision_encoder.{name}" for name, _ in model.vision_encoder.named_children()])
    assert model.vision_encoder.frozen


@pytest.mark.parametrize("name", ["vision_enc", "vision_encodr", "vision_encoder.stage", ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.freeze: no module or parameter is called"):
        freeze_parts(build(), [name])


@pytest.mark.parametrize("part", DROPS)
def test_a_frozen_random_part_is_refused_whichever_way_it_was_frozen(part: str) -> None:
    by_name = build()
    freeze_parts(by_name, [part])
    for model in (build(**{part: True}), by_name):
        with pytest.raises(ConfigError, match=rf"{part} is frozen with random weights.*model\.{part}\.frozen=false"):
            check_frozen(model, lora=False)
        model.random_parts.discard(part)  # as after loading weights
        check_frozen(model, lora=False)


def test_a_random_part_of_which_some_is_frozen_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = build()
    freeze_parts(model, ["vision_encoder.patch_embed"])
    caplog.set_level(logging.WARNING, "segearth")
    check_frozen(model, lora=False)
    assert any("vision_encoder has random weights, and 2 of its" in message for message in caplog.messages)


def test_what_is_trained_is_random_no_more() -> None:
    model = build()
    check_frozen(model, lora=False)
    assert model.random_parts == set()


@pytest.mark.parametrize("by_name", [False, True])
def test_adapters_on_a_frozen_language_model_are_refused(by_name: bool) -> None:
    model = build(language_model=not by_name)
    model.random_parts.clear()
    if by_name:
        freeze_parts(model, ["language_model"])
    with pytest.raises(ConfigError, match=r"train\.lora adapts a frozen language model"):
        check_frozen(model, lora=True)
    check_frozen(model, lora=False)
