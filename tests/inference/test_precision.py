"""Precisions: what changes, what stays, and how far masks may move."""

from __future__ import annotations

import sys

import pytest
import torch

from segearth.errors import ConfigError, MissingExtraError, UnknownNameError
from segearth.inference.precision import is_quantised, set_precision
from segearth.inference.predictor import Predictor
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.zoo.lookup import model_config


def make_model(**language: object) -> SegEarth:
    torch.manual_seed(0)
    spec = {"name": "segearth_debug", **({"language_model": language} if language else {})}
    return build_model(model_config(spec)).eval()


@torch.no_grad()
def answers(model: SegEarth) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of two questions, and their mask logits."""
    generator = torch.Generator().manual_seed(0)
    features = model.encode_image(torch.randn(1, 3, 64, 64, generator=generator))
    text = model.prompt_encoder.encode([Question("the ships"), Question("a long road beside the river")])
    queries = model.encode_text(features, text, torch.zeros(2, dtype=torch.long))
    return queries.hidden_states.float(), model.decode_masks(features, queries).mask_logits.float()


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_bf16_and_back_keeps_rotary_frequencies() -> None:
    model = make_model()
    expected, _ = answers(model)
    frequencies = {n: b.clone() for n, b in model.language_model.named_buffers() if "inv_freq" in n}
    assert frequencies and set_precision(model, "bf16") is model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert 0 < distance(answers(model)[0], expected) < 0.05
    set_precision(model, "fp32")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, buffer in model.language_model.named_buffers():
        if "inv_freq" in name:
            assert torch.equal(buffer, frequencies[name])


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.03), ("int4", 0.3)])
def test_only_the_language_models_linear_layers_are_quantised(precision: str, bound: float) -> None:
    pytest.importorskip("torchao")
    model = make_model()
    expected = answers(model)
    before = {name: p.data for name, p in model.named_parameters()}
    body = {id(m.weight) for m in model.language_model.causal_lm.base_model.modules() if type(m) is torch.nn.Linear}
    wanted = {name for name, p in model.named_parameters() if id(p) in body}
    set_precision(model, precision)
    assert is_quantised(model)
    changed = {name for name, p in model.named_parameters() if p.data is not before[name] and is_integer(p)}
    assert changed == wanted
    for found, right in zip(answers(model), expected, strict=True):
        assert 0 < distance(found, right) < bound
    with pytest.raises(ConfigError, match="open it again"):
        set_precision(model, "fp32")


def is_integer(parameter: torch.Tensor) -> bool:
    return type(parameter.data).__module__.startswith("torchao.")


def test_a_tied_head_stays_whole() -> None:
    pytest.importorskip("torchao")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tied = {"num_key_value_heads": 1, "tie_word_embeddings": True}
    model = make_model(model_type="qwen2", config={**small, **tied})
    set_precision(model, "int8")
    lm = model.language_model.causal_lm
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    predictor = Predictor(model)
    predictor.set_image(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())
    assert predictor.predict("ships", answer=True).mask.shape == (64, 64)


def test_layers_that_cannot_be_quantised() -> None:
    pytest.importorskip("torchao")
    model = make_model(model_type="gpt2", config={"n_embd": 32, "n_layer": 1, "n_head": 2})
    with pytest.raises(ConfigError, match="no linear layer that can be quantised"):
        set_precision(model, "int8")  # its layers are transformers' Conv1D
    small = {"hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ConfigError, match="int4"):
        set_precision(make_model(model_type="llama", config=small), "int4")


def test_four_bits_are_refused_on_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is changed, and whether or not torchao is there."""
    model = make_model()
    monkeypatch.setattr(SegEarth, "device", torch.device("mps"))
    with pytest.raises(ConfigError, match="int4 has no kernels for Apple's GPU; take int8 or bf16"):
        set_precision(model, "int4")
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not is_quantised(model)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    with pytest.raises(UnknownNameError, match="did you mean 'int8'"):
        set_precision(model, "int08")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingExtraError, match=r"does not fit; run: pip install 'segearth\[quant\]'"):
        set_precision(model, "int8")
    assert not is_quantised(model)
