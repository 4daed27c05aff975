from __future__ import annotations

import dataclasses

import pytest

import segearth
from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.evaluation.protocols import get_protocol
from segearth.prompting.saved import PromptedCard, card_of
from segearth.prompting.templates import answer_template
from segearth.utils.hub import is_hub_id
from segearth.zoo.cards import CARDS, FAMILIES, check_card, config_of, get_card, is_named, list_models
from segearth.zoo.lookup import model_config
from segearth.zoo.opening import open_model


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_card_says_what_is_needed(name: str) -> None:
    card = check_card(name)
    assert card.family in FAMILIES and card.summary
    assert (card.config is not None) == (card.family == "segearth") == (not card.parts)  # it can be built, or has parts
    assert get_protocol(card.protocol).name == (card.config.protocol if card.config else "native")


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.parts])
def test_parts_are_those_of_a_card(name: str) -> None:
    card = CARDS[name]
    read = card_of(card.family, card.parts, name)
    if isinstance(read, PromptedCard):
        assert answer_template(read.template).id == read.template
        assert is_hub_id(read.vision_language_model) and is_hub_id(read.promptable_segmenter)
    else:
        assert is_hub_id(read.model) and (read.phrases_by is None or is_hub_id(read.phrases_by))


def test_what_is_made_of_other_models_is_not_built() -> None:
    for call in (lambda: config_of("sam3"), lambda: model_config("sam3"), lambda: open_model("sam3"),
                 lambda: model_config({"pretrained": "sam3"})):  # fmt: skip
        with pytest.raises(ConfigError, match=r"sam3 is a concept segmenter, .* not be built or trained as a SegEarth"):
            call()
    first = config_of("segearth_tiny")
    first.text.template = "other"
    assert config_of("segearth_tiny").text.template != "other"  # a copy, each time


def test_a_card_without_what_is_needed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CARDS["segearth_r1_rrsisd"]
    for card in (whole, CARDS["sam3"]):
        for changes, missing in (({"licence": None}, "licence"), ({"trained_on": ()}, "trained_on")):
            monkeypatch.setitem(CARDS, "other", dataclasses.replace(card, **changes))
            with pytest.raises(CheckpointError, match=f"the card of other does not say .*; add {missing}"):
                check_card("other")
    monkeypatch.setitem(CARDS, "other", dataclasses.replace(whole, family="segerth"))
    with pytest.raises(UnknownNameError, match="unknown family 'segerth'; did you mean 'segearth'"):
        check_card("other")
    no_weights = dataclasses.replace(whole, convert_from=None, licence=None, trained_on=())
    monkeypatch.setitem(CARDS, "other", no_weights)
    assert check_card("other") == no_weights  # nothing to tell of weights that are not there


def test_names(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert segearth.list_models() == list_models() == sorted(CARDS)
    with pytest.raises(UnknownNameError, match="did you mean 'segearth_tiny'"):
        get_card("segearth_tin")
    monkeypatch.chdir(tmp_path)
    assert is_named("segearth_tiny") and not is_named(tmp_path / "segearth_tiny")
    (tmp_path / "segearth_tiny").mkdir()
    assert not is_named("segearth_tiny")  # a folder goes first
