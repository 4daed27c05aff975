"""Opening a saved model: every weight and every buffer to the bit, none drawn at random, none held twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from segearth.errors import CheckpointError
from segearth.models import pretrained
from segearth.models.build import build_model
from segearth.models.pretrained import FORMAT, WithoutRandomStart, load_weights
from segearth.models.segearth import SegEarth
from segearth.text.known_words import KnownWords
from segearth.zoo.lookup import build_from_spec, model_config

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2}
SPECS: dict[str, dict[str, Any]] = {
    "phi": {"language_model": {"model_type": "phi", "config": SMALL}},
    "qwen2": {"language_model": {"model_type": "qwen2", "config": {**SMALL, "tie_word_embeddings": True}}},
    "llama": {"language_model": {"model_type": "llama", "config": SMALL}},
    "gpt2": {"language_model": {"model_type": "gpt2", "config": GPT2}},
    "timm": {"vision_encoder": {"kind": "timm", "timm_name": "resnet10t", "pretrained": False}},
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_tensor_comes_back_to_the_bit(tmp_path: Path, spec: dict[str, Any]) -> None:
    model = build_model(model_config({"name": "segearth_debug", **spec}))
    for parameter in model.parameters():  # no value is one that building gives, zeros least of all
        torch.nn.init.normal_(parameter, mean=1.0)
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    again = SegEarth.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    for named in ("named_parameters", "named_buffers"):  # buffers that no file holds, such as rotary frequencies, too
        expected, found = dict(getattr(model, named)()), dict(getattr(again, named)())
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert again.language_model.causal_lm.config.to_dict() == model.language_model.causal_lm.config.to_dict()


def test_nothing_is_drawn() -> None:
    linear = torch.nn.Linear(3, 4)
    with WithoutRandomStart():
        linear.reset_parameters()
        drawn = [torch.nn.init.trunc_normal_(torch.empty(5)), torch.empty(5).normal_(), torch.empty(5).uniform_(1, 2)]
        constant = torch.nn.LayerNorm(3).weight
    assert not any(tensor.any() for tensor in (linear.weight, linear.bias, *drawn))
    assert linear.weight.requires_grad
    assert constant.tolist() == [1, 1, 1]


class TestEarlierAndLaterVersions:
    """A folder is written with today's names, then turned into what another version would have written."""

    @pytest.fixture(scope="class")
    def model(self) -> SegEarth:
        boxed = {"mask_decoder": {"box_gate": True}}
        return build_model(model_config({"name": "segearth_debug", **boxed})).eval()

    @pytest.fixture
    def earlier(self, model: SegEarth, tmp_path: Path) -> Path:
        """As the version before formats were numbered saved a model with boxes and no comparison for presence."""
        model.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        facts = json.loads(path.read_text())
        del facts["format"], facts["model"]["mask_decoder"]["presence_match"]
        path.write_text(json.dumps(facts))
        state = load_file(tmp_path / "model.safetensors")
        old = {name.replace("bag_of_words.", "place_words."): tensor for name, tensor in state.items()}
        assert old.keys() != state.keys()
        save_file(old, tmp_path / "model.safetensors", {"random_parts": "place_words"})
        return tmp_path

    def test_an_earlier_folder_opens_with_every_weight(self, model: SegEarth, earlier: Path) -> None:
        again = SegEarth.from_pretrained(earlier)
        assert again.mask_decoder.presence_match is None
        expected, found = model.state_dict(), again.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert again.random_parts == {"bag_of_words"}

    def test_training_starts_from_an_earlier_folder(self, model: SegEarth, earlier: Path) -> None:
        again = build_from_spec({"pretrained": str(earlier), "mask_decoder": {"presence_match": True}})
        assert model.bag_of_words is not None and again.bag_of_words is not None
        assert torch.equal(again.bag_of_words.weight, model.bag_of_words.weight)
        assert again.random_parts == {"bag_of_words", "mask_decoder"}

    def test_what_is_saved_now_says_its_format(self, model: SegEarth, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["format"] == FORMAT

    def test_the_words_it_has_met_come_back(self, model: SegEarth, tmp_path: Path) -> None:
        model.known_words = KnownWords(["road", "the"])
        model.save_pretrained(tmp_path)
        assert SegEarth.from_pretrained(tmp_path).known_words == {"road", "the"}
        assert build_from_spec({"pretrained": str(tmp_path)}).known_words == {"road", "the"}
        (tmp_path / "known_words.txt").write_text("road\n")
        with pytest.raises(CheckpointError, match=r"saved with 2 known words, and its known_words\.txt holds 1; fetch"):
            SegEarth.from_pretrained(tmp_path)
        model.known_words = None
        model.save_pretrained(tmp_path)  # over the other
        assert SegEarth.from_pretrained(tmp_path).known_words is None
        (tmp_path / "known_words.txt").write_text("road\n")
        with pytest.raises(CheckpointError, match="saved with no known words"):
            SegEarth.from_pretrained(tmp_path)

    @pytest.mark.parametrize("later", [FORMAT + 1, "new"])
    def test_a_later_folder_says_what_to_do(self, model: SegEarth, tmp_path: Path, later: int | str) -> None:
        model.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": later, "version": "9.1"}))
        message = rf"saved in format {later} by segearth 9\.1, .* up to {FORMAT}; install a newer one: `pip install"
        with pytest.raises(CheckpointError, match=message):
            SegEarth.from_pretrained(tmp_path)

    @pytest.mark.parametrize("described", [{}, {"model": None}, {"model": "segearth_debug"}])
    def test_a_description_without_a_model_says_what_to_do(
        self, model: SegEarth, tmp_path: Path, described: dict[str, Any]
    ) -> None:
        model.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        facts = {key: value for key, value in json.loads(path.read_text()).items() if key != "model"}
        path.write_text(json.dumps({**facts, **described}))
        with pytest.raises(CheckpointError, match=r"config\.json describes no model.*; fetch or save the folder again"):
            SegEarth.from_pretrained(tmp_path)

    def test_names_of_today_are_not_renamed(self, model: SegEarth, earlier: Path) -> None:
        """A file of the present format with an old name is damaged, not old."""
        path = earlier / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT}))
        with pytest.raises(CheckpointError, match=r"missing bag_of_words\.weight, unknown place_words\.weight"):
            SegEarth.from_pretrained(earlier)

    def test_a_part_may_be_renamed_twice(self, monkeypatch: pytest.MonkeyPatch, earlier: Path) -> None:
        monkeypatch.setattr(pretrained, "FORMAT", 4)
        monkeypatch.setattr(pretrained, "RENAMED_PARTS", {1: {"a": "b"}, 3: {"b": "c", "x": "y"}})
        assert pretrained._new_names(earlier) == {"a": "c", "b": "c", "x": "y"}


class TestStrictness:
    @pytest.fixture
    def layers(self) -> torch.nn.Module:
        layers = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
        layers[1].weight = layers[0].weight
        return layers

    def test_tied_weights_come_under_either_name(self, layers: torch.nn.Module, tmp_path: Path) -> None:
        for value, name in enumerate(("0.weight", "1.weight")):
            save_file({name: torch.full((2, 2), float(value))}, tmp_path / "weights")
            load_weights(layers, tmp_path / "weights")
            assert layers[0].weight.tolist() == layers[1].weight.tolist() == [[value, value]] * 2

    def test_tied_weights_come_once(self, layers: torch.nn.Module, tmp_path: Path) -> None:
        save_file({"0.weight": torch.zeros(2, 2), "1.weight": torch.ones(2, 2)}, tmp_path / "weights")
        with pytest.raises(CheckpointError, match=r"unknown 1\.weight"):
            load_weights(layers, tmp_path / "weights")

    def test_one_message_names_all_that_is_wrong(self, tmp_path: Path) -> None:
        layers = torch.nn.Linear(2, 3)
        before = layers.weight.clone()
        save_file({"weight": torch.zeros(4, 2), "scale": torch.ones(1)}, tmp_path / "weights")
        message = r"missing bias, unknown scale, weight is \(4, 2\) where the model has \(3, 2\)"
        with pytest.raises(CheckpointError, match=message):
            load_weights(layers, tmp_path / "weights")
        assert torch.equal(layers.weight, before)

    def test_other_precisions_are_converted(self, tmp_path: Path) -> None:
        layer = torch.nn.Linear(2, 1, bias=False)
        save_file({"weight": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)}, tmp_path / "weights")
        load_weights(layer, tmp_path / "weights")
        assert layer.weight.dtype == torch.float32 and layer.weight.tolist() == [[1.5, -2.0]]
        assert load_file(tmp_path / "weights")["weight"].dtype == torch.bfloat16
