"""What a text means, and that it means the same through every door."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_fakes import FakeHub
from typer.testing import CliRunner

import segearth
from segearth.cli import app
from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.models.pretrained import save_folder
from segearth.models.segearth import SegEarth
from segearth.utils.files import sha256_of
from segearth.zoo import lookup, opening
from segearth.zoo.cards import CARDS, PACKAGED

PUBLISHED = "earth-insights/SegEarth-R1-EarthReason"


def same_weights(model: SegEarth, other: SegEarth) -> bool:
    state = model.state_dict()
    return all(torch.equal(state[name], value) for name, value in other.state_dict().items())


@pytest.fixture
def run(debug_model: SegEarth, tmp_path: Path) -> Path:
    """A training run's folder, with its last model."""
    debug_model.save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_folders_runs_and_hub_ids_are_opened_ready_to_be_asked(
    run: Path, hub: FakeHub, debug_model: SegEarth, picture: np.ndarray
) -> None:
    hub.push("somebody/roofs", run / "model")
    for source in (run, str(run), str(run / "model"), "somebody/roofs", "hf:somebody/roofs"):
        predictor = segearth.load(source, "cpu")
        assert isinstance(predictor, segearth.Predictor) and same_weights(predictor.model, debug_model)
        assert same_weights(opening.open_model(source), debug_model)
    predictor.set_image(picture)
    assert predictor.predict("the roofs").mask.shape == picture.shape[:2]


@pytest.mark.parametrize("hub_id", ["me/segearth_tiny", "s/segearth_tinyy"])
def test_a_hub_id_may_end_like_a_name_of_the_zoo(run: Path, hub: FakeHub, debug_model: SegEarth, hub_id: str) -> None:
    hub.push(hub_id, run / "model")
    for source in (hub_id, f"hf:{hub_id}"):
        assert same_weights(opening.open_model(source), debug_model)


def test_after_the_prefix_no_name_of_the_zoo_is_meant(run: Path, hub: FakeHub, debug_model: SegEarth) -> None:
    hub.push("segearth_tiny", run / "model")
    assert same_weights(opening.open_model("hf:segearth_tiny"), debug_model)


def test_precision_and_device_are_checked_before_the_model_is_looked_for(run: Path) -> None:
    assert segearth.load(run, "cpu", "bf16").model.dtype == torch.bfloat16
    with pytest.raises(UnknownNameError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        segearth.load("nowhere", precision="bf61")
    with pytest.raises(ConfigError, match="no device 'blub' here"):
        segearth.load("nowhere", "blub")


@pytest.mark.parametrize("source", [PUBLISHED, "segearth_r1_earthreason"])
def test_a_published_model_comes_with_its_protocol_and_preprocessing(
    hub: FakeHub, published_files: Path, picture: np.ndarray, source: str
) -> None:
    hub.push(PUBLISHED, published_files)
    predictor = segearth.load(source)
    config = predictor.model.config
    assert (config.protocol, config.text.template) == ("segearth_r1", "segearth_r1")
    assert config.image_transform.fit == "letterbox"
    predictor.set_image(picture)
    assert predictor.predict("the roofs").presence == pytest.approx(0.5)
    assert opening.training_of(source) == {"trained_on": ["earthreason train"]}
    assert opening.find_folder(source).is_relative_to(Path(str(hub.root)) / "cache")


def test_a_revision_goes_with_a_hub_id(hub: FakeHub, run: Path, debug_model: SegEarth, published_files: Path) -> None:
    first = hub.push("somebody/roofs", run / "model")
    hub.push("somebody/roofs", published_files)
    assert same_weights(opening.open_model("somebody/roofs", revision=first), debug_model)
    assert opening.open_model("somebody/roofs").config.protocol == "segearth_r1"
    for source in (str(run), "segearth_tiny"):
        with pytest.raises(ConfigError, match="revision 'main' goes with a hub id"):
            segearth.load(source, revision="main")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("segearth_tin", UnknownNameError, "unknown model 'segearth_tin'; did you mean 'segearth_tiny'"),
        ("runs/mine", CheckpointError, "no model at 'runs/mine': there is no such folder here"),
        (Path("runs/mine"), CheckpointError, "nothing is trained at runs/mine yet; run `segearth train`"),
        (Path("segearth_tiny"), CheckpointError, "nothing is trained at segearth_tiny yet"),
        ("somebody/nothing", CheckpointError, "no folder here and no model on the hub"),
    ],
)
def test_what_is_not_there_is_one_line(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | Path, error: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    doors: list[Callable[[], Any]] = [lambda: segearth.load(source), lambda: opening.find_folder(source)]
    if isinstance(source, str):
        doors.append(lambda: lookup.model_config({"pretrained": source}))
    for door in doors:
        with pytest.raises(error, match=message) as said:
            door()
        assert "\n" not in str(said.value)
    assert opening.training_of(source) == {} or source == Path("segearth_tiny")


def test_a_folder_in_another_form_names_the_command(published_files: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`segearth zoo convert .* NEW` makes a folder that opens"):
        segearth.load(published_files)


def test_random_weights_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="segearth"):
        lookup.build_from_spec({"name": "segearth_debug"})
        assert caplog.text == ""
        segearth.load("segearth_debug")
    assert "these are random" in caplog.text


def test_weights_must_be_those_the_card_promises(
    debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debug_model.save_pretrained(tmp_path)
    digest = sha256_of(tmp_path / "model.safetensors")
    card = dataclasses.replace(
        CARDS["segearth_debug"], weights=str(tmp_path), sha256=digest, trained_on=("a train",), licence="CC0-1.0"
    )
    monkeypatch.setitem(CARDS, "segearth_debug", card)
    opening.open_model("segearth_debug")
    monkeypatch.setitem(CARDS, "segearth_debug", dataclasses.replace(card, sha256="0" * 64))
    with pytest.raises(CheckpointError, match="is not the card's 000"):
        opening.open_model("segearth_debug")
    monkeypatch.setitem(CARDS, "segearth_debug", dataclasses.replace(card, trained_on=()))
    for opens in (opening.open_model, opening.find_folder):
        with pytest.raises(CheckpointError, match="does not say which splits"):
            opens("segearth_debug")


def test_packaged_weights_are_opened_by_name(
    debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision, checked, as a model and as what a training starts from."""
    state = {name: value.half() for name, value in debug_model.state_dict().items()}
    save_folder(debug_model, tmp_path / "segearth_debug", state)
    path = tmp_path / "segearth_debug" / "model.safetensors"
    card = dataclasses.replace(
        CARDS["segearth_debug"], weights=PACKAGED, sha256=sha256_of(path), trained_on=("aerial_mini train",),
        licence="CC0-1.0",
    )  # fmt: skip
    monkeypatch.setitem(CARDS, "segearth_debug", card)
    monkeypatch.setattr(opening, "PACKAGED_WEIGHTS", tmp_path)
    for model in (opening.open_model("segearth_debug"), lookup.build_from_spec({"pretrained": "segearth_debug"})):
        opened = model.state_dict()
        assert all(torch.equal(opened[name], value.float()) for name, value in state.items())
    assert opening.training_of("segearth_debug") == {"trained_on": ["aerial_mini train"]}
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for opens in (opening.open_model, opening.find_folder):
        with pytest.raises(CheckpointError, match="is not the card's"):
            opens("segearth_debug")
    path.unlink()
    with pytest.raises(CheckpointError, match="install segearth again"):
        opening.open_model("segearth_debug")
    with pytest.raises(CheckpointError, match="segearth_swinb_phi1_5 has no trained weights"):
        opening.find_folder("segearth_swinb_phi1_5")


def test_what_is_opened_where_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card = dataclasses.replace(CARDS["segearth_tiny"], weights=None)
    monkeypatch.setitem(CARDS, "segearth_tiny", card)
    assert opening.default_source() == Path("runs/aerial_mini")
    with pytest.raises(CheckpointError, match="nothing is trained at runs/aerial_mini yet"):  # which says what to do
        segearth.load()
    monkeypatch.setitem(CARDS, "segearth_tiny", dataclasses.replace(card, weights="packaged"))
    assert opening.default_source() == "segearth_tiny"
    (tmp_path / "runs/aerial_mini/checkpoints").mkdir(parents=True)  # a training that has saved no model yet
    assert opening.default_source() == "segearth_tiny"
    (tmp_path / "runs/aerial_mini/model").mkdir()
    (tmp_path / "runs/aerial_mini/model/config.json").touch()
    assert opening.default_source() == Path("runs/aerial_mini")


def test_the_list_says_what_it_takes_to_use_a_model(hub: FakeHub, published_files: Path, debug_model: SegEarth) -> None:
    def listed() -> dict[str, str]:
        lines = CliRunner().invoke(app, ["zoo", "list"]).output.splitlines()
        return {line.split()[0]: line for line in lines}

    before = listed()
    assert before.keys() == CARDS.keys() and hub.asked == []
    assert "ready: packaged" in before["segearth_tiny"]
    assert "fetched when first opened, 6.3 GB" in before["segearth_r1_earthreason"]
    assert "to be trained" in before["segearth_swinb_phi1_5"]
    hub.push(PUBLISHED, published_files)
    segearth.load("segearth_r1_earthreason")
    after = listed()
    changed = [name for name in after if after[name] != before[name]]
    assert changed == ["segearth_r1_earthreason"] and "ready: in the cache" in after["segearth_r1_earthreason"]


def test_weights_on_a_hub_are_ready_once_the_client_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    card = dataclasses.replace(CARDS["segearth_tiny"], weights="somebody/roofs")
    monkeypatch.setitem(CARDS, "segearth_tiny", card)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda hub_id, file: None)
    assert opening.availability("segearth_tiny") == "fetched when first opened, 0.0 GB"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda hub_id, file: f"/{hub_id}/{file}")
    assert opening.availability("segearth_tiny") == "ready: in the cache"
