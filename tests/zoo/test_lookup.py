from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hub_fakes import FakeHub

from segearth.errors import CheckpointError, ConfigError
from segearth.models.build import build_on_meta
from segearth.models.segearth import SegEarth
from segearth.zoo import lookup, opening
from segearth.zoo.cards import CARDS
from segearth.zoo.lookup import shape_config


@pytest.mark.parametrize("name", sorted(name for name, card in CARDS.items() if card.config))
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


def test_a_key_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="pixel_decoder"):
        lookup.model_config({"name": "segearth_debug", "pixel_decodr": {}})


def test_training_starts_from_whatever_can_be_opened(hub: FakeHub, published_files: Path) -> None:
    """`pretrained` means what `segearth.load` takes: here a published model."""
    hub.push("somebody/segearth-r1", published_files)
    model = lookup.build_from_spec({"pretrained": "somebody/segearth-r1", "presence_threshold": 0.25})
    assert (model.config.text.template, model.config.presence_threshold) == ("segearth_r1", 0.25)
    opened = opening.open_model("somebody/segearth-r1").state_dict()
    assert all(torch.equal(opened[name], value) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match="segearth_debug has no trained weights"):
        lookup.build_from_spec({"pretrained": "segearth_debug"})


def test_parts_that_the_weights_have_not_start_at_random_and_the_others_where_they_were(
    debug_model: SegEarth, tmp_path: Path
) -> None:
    debug_model.save_pretrained(tmp_path)
    spec = {"name": "segearth_debug", "pretrained": str(tmp_path)}
    added = {"coordinates": True, "mask_decoder": {"box_gate": True}}
    torch.manual_seed(0)
    model = lookup.build_from_spec(spec | added)
    before, after = debug_model.state_dict(), model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    added_names = [name for name in after.keys() - before.keys() if ".mlp.0.weight" in name]
    new = {name.partition(".")[0]: after[name].std() for name in added_names}
    assert new.keys() == {"coordinates", "mask_decoder"} and all(spread > 0.05 for spread in new.values())
    assert after["bag_of_words.weight"].std() == pytest.approx(0.5, abs=0.05)
    assert model.random_parts >= {"coordinates", "bag_of_words"}
    model.save_pretrained(tmp_path / "with")
    again = lookup.build_from_spec(spec | added | {"pretrained": str(tmp_path / "with")}).state_dict()
    assert all(torch.equal(again[name], after[name]) for name in after)
    with pytest.raises(CheckpointError):  # parts that the file holds and the model should not have
        lookup.build_from_spec(spec | {"pretrained": str(tmp_path / "with"), "coordinates": False})
    (tmp_path / "with" / "config.json").write_text((tmp_path / "config.json").read_text())
    with pytest.raises(CheckpointError):  # a file that holds what its config does not tell of
        lookup.build_from_spec(spec | added | {"pretrained": str(tmp_path / "with")})
