from __future__ import annotations

import dataclasses

import pytest

import segearth
from segearth.errors import CheckpointError, UnknownNameError
from segearth.evaluation.protocols import get_protocol
from segearth.zoo.cards import CARDS, FAMILIES, check_card, get_card, is_named, list_models


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_card_says_what_is_needed(name: str) -> None:
    card = check_card(name)
    assert card.family in FAMILIES and card.summary
    assert get_protocol(card.protocol).name == card.config.protocol


def test_a_card_without_what_is_needed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CARDS["segearth_r1_rrsisd"]
    for changes, missing in (({"licence": None}, "licence"), ({"trained_on": ()}, "trained_on")):
        monkeypatch.setitem(CARDS, "other", dataclasses.replace(whole, **changes))
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
