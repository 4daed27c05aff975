from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import segearth
from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.models.build import build_on_meta
from segearth.models.pretrained import save_folder
from segearth.models.segearth import SegEarth
from segearth.utils.files import sha256_of
from segearth.zoo import lookup
from segearth.zoo.cards import CARDS, PACKAGED
from segearth.zoo.lookup import shape_config


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_card_builds_with_the_parameters_it_names(name: str) -> None:
    spec: dict[str, Any] = {"name": name}
    if CARDS[name].convert_from:  # its own tokens alone have rows
        spec["language_model"] = {"config": {"vocab_size": 50297}}
    model = build_on_meta(shape_config(spec))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(CARDS[name].parameters, abs=0.05)


def test_a_shape_keeps_what_is_packaged_and_asks_no_hub_for_the_rest() -> None:
    assert shape_config("segearth_tiny") == CARDS["segearth_tiny"].config
    shape = shape_config({"name": "segearth_swinb_phi1_5", "vision_encoder": {"frozen": False}})
    assert (shape.language_model.pretrained, shape.text.tokenizer) == (None, "aerial")
    assert shape.language_model.config["vocab_size"] == 51200 and not shape.vision_encoder.frozen
    assert CARDS["segearth_swinb_phi1_5"].config.language_model.pretrained  # the card itself is as it was


def test_weights_in_another_form_name_the_command() -> None:
    with pytest.raises(CheckpointError, match="segearth zoo convert earth-insights/SegEarth-R1-EarthReason"):
        segearth.load_model("segearth_r1_earthreason")


def test_names() -> None:
    assert segearth.list_models() == sorted(CARDS)
    with pytest.raises(UnknownNameError, match="did you mean 'segearth_tiny'"):
        segearth.load_model("segearth_tin")
    with pytest.raises(ConfigError, match="pixel_decoder"):
        lookup.model_config({"name": "segearth_debug", "pixel_decodr": {}})


def test_random_weights_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="segearth"):
        segearth.load_model("segearth_debug", weights=None)
        assert caplog.text == ""
        segearth.load_model("segearth_debug")
    assert "these are random" in caplog.text


def test_weights_must_be_those_the_card_promises(
    debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debug_model.save_pretrained(tmp_path)
    digest = sha256_of(tmp_path / "model.safetensors")
    card = dataclasses.replace(CARDS["segearth_debug"], weights=str(tmp_path), sha256=digest, trained_on=("a train",))
    monkeypatch.setitem(lookup.CARDS, "segearth_debug", card)
    segearth.load_model("segearth_debug")
    monkeypatch.setitem(lookup.CARDS, "segearth_debug", dataclasses.replace(card, sha256="0" * 64))
    with pytest.raises(CheckpointError, match="is not the card's 000"):
        segearth.load_model("segearth_debug")
    monkeypatch.setitem(lookup.CARDS, "segearth_debug", dataclasses.replace(card, trained_on=()))
    with pytest.raises(CheckpointError, match="does not say which splits"):
        segearth.load_model("segearth_debug")


def test_packaged_weights_are_opened_by_name(
    debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision, checked, as a model and as what a training starts from."""
    state = {name: value.half() for name, value in debug_model.state_dict().items()}
    save_folder(debug_model, tmp_path / "segearth_debug", state)
    path = tmp_path / "segearth_debug" / "model.safetensors"
    card = dataclasses.replace(
        CARDS["segearth_debug"], weights=PACKAGED, sha256=sha256_of(path), trained_on=("aerial_mini train",)
    )
    monkeypatch.setitem(lookup.CARDS, "segearth_debug", card)
    monkeypatch.setattr(lookup, "PACKAGED_WEIGHTS", tmp_path)
    for model in (segearth.load_model("segearth_debug"), lookup.build_described({"pretrained": "segearth_debug"})):
        opened = model.state_dict()
        assert all(torch.equal(opened[name], value.float()) for name, value in state.items())
    assert lookup.facts_of("segearth_debug") == {"trained_on": ["aerial_mini train"]}
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for opens in (segearth.load_model, lookup.pretrained_folder):
        with pytest.raises(CheckpointError, match="is not the card's"):
            opens("segearth_debug")
    path.unlink()
    with pytest.raises(CheckpointError, match="install segearth again"):
        segearth.load_model("segearth_debug")
    with pytest.raises(CheckpointError, match="segearth_swinb_phi1_5 has no trained weights"):
        lookup.weights_folder("segearth_swinb_phi1_5")


def test_parts_that_the_weights_have_not_start_at_random_and_the_others_where_they_were(
    debug_model: SegEarth, tmp_path: Path
) -> None:
    debug_model.save_pretrained(tmp_path)
    spec = {"name": "segearth_debug", "pretrained": str(tmp_path)}
    added = {"coordinates": True, "mask_decoder": {"box_gate": True}}
    torch.manual_seed(0)
    model = lookup.build_described(spec | added)
    before, after = debug_model.state_dict(), model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    added_names = [name for name in after.keys() - before.keys() if ".mlp.0.weight" in name]
    new = {name.partition(".")[0]: after[name].std() for name in added_names}
    assert new.keys() == {"coordinates", "mask_decoder"} and all(spread > 0.05 for spread in new.values())
    assert after["bag_of_words.weight"].std() == pytest.approx(0.5, abs=0.05)
    assert model.random_parts >= {"coordinates", "bag_of_words"}
    model.save_pretrained(tmp_path / "with")
    again = lookup.build_described(spec | added | {"pretrained": str(tmp_path / "with")}).state_dict()
    assert all(torch.equal(again[name], after[name]) for name in after)
    with pytest.raises(CheckpointError):  # parts that the file holds and the model should not have
        lookup.build_described(spec | {"pretrained": str(tmp_path / "with"), "coordinates": False})
    (tmp_path / "with" / "config.json").write_text((tmp_path / "config.json").read_text())
    with pytest.raises(CheckpointError):  # a file that holds what its config does not tell of
        lookup.build_described(spec | added | {"pretrained": str(tmp_path / "with")})
