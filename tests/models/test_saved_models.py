"""Opening a saved model: every weight and every buffer to the bit, none drawn at random, none held twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from segearth.errors import CheckpointError
from segearth.models.build import build_model
from segearth.models.pretrained import WithoutRandomStart, load_weights
from segearth.models.segearth import SegEarth
from segearth.zoo.lookup import model_config

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
