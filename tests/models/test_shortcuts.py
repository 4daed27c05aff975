"""Every shortcut against the long way: what is kept, shared or left out changes no answer."""

from __future__ import annotations

import pytest
import torch

from segearth.inference import predictor as predictor_module
from segearth.inference.predictor import Predictor
from segearth.models.build import build_model
from segearth.models.pixel_decoder import PixelDecoder
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.zoo.lookup import model_config

QUESTIONS = [Question(t) for t in ("ships", "the largest building in the upper left corner of the image", "roads")]
INDEX = torch.tensor([0, 0, 2])  # nobody asks about the second image
FAMILIES = {
    "phi": {},
    "qwen2": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "llama": {"num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "bloom": {"n_layer": 2, "n_head": 2},  # ALiBi: cannot share a row
}


def small(family: str, template: str = "segearth_r1") -> SegEarth:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = (sizes if family not in ("gpt2", "bloom") else {"hidden_size": 32}) | FAMILIES[family]
    spec = {"name": "segearth_debug", "language_model": {"model_type": family, "config": config}}
    torch.manual_seed(0)
    return build_model(model_config({**spec, "text": {"template": template}})).eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def answer(model: SegEarth, questions: list[Question] = QUESTIONS, index: torch.Tensor = INDEX) -> torch.Tensor:
    features = model.encode_image(images())
    text = model.prompt_encoder.encode(questions)
    return model.decode_masks(features, model.encode_text(features, text, index)).mask_logits.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_kept_shared_and_single(family: str, dtype: torch.dtype) -> None:
    """Kept keys and values, one pass with gradients, one row a question, and one question at a time."""
    model = small(family)
    assert model.language_model.packs == (family != "bloom")
    exact = answer(model)
    in_one_pass = answer(model.to(dtype)).float()
    with torch.no_grad():
        kept = answer(model)
        one_by_one = torch.cat([answer(model, [q], i[None]) for q, i in zip(QUESTIONS, INDEX, strict=True)])
        model.language_model.packs = False
        in_rows = answer(model)
    for found in (kept, one_by_one, in_rows):
        if dtype == torch.float32:
            assert (found - in_one_pass).abs().max() <= 1e-4 * exact.abs().max()
        else:  # no further from each other than bf16 is from fp32
            assert (found - in_one_pass).abs().mean() <= 1.5 * (in_one_pass - exact).abs().mean()


def test_kept_memory_serves_again() -> None:
    """A second reading finds the prompt as the first did."""
    model = small("phi")
    with torch.no_grad():
        features = model.encode_image(images())
        text = model.prompt_encoder.encode(QUESTIONS)
        first, second = (model.encode_text(features, text, INDEX).queries for _ in range(2))
    assert features.prompt.cache is not None
    assert torch.equal(first, second)


def test_shared_training_gives_the_gradients_of_single_questions() -> None:
    """Gradients flow through what an image's questions share."""
    model = small("phi")
    def gradients(groups: list[list[int]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for group in groups:
            features = model.encode_image(images(1))
            text = model.prompt_encoder.encode([QUESTIONS[i] for i in group])
            index = torch.zeros(len(group), dtype=torch.long)
            model.decode_masks(features, model.encode_text(features, text, index)).mask_logits.square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together, alone = gradients([[0, 1, 2]]), gradients([[0], [1], [2]])
    assert together.keys() == alone.keys()
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in together.items():  # a bias of keys has a gradient of nothing but rounding
        assert (gradient - alone[name]).abs().max() <= 1e-4 * alone[name].abs().max() + 1e-6 * largest, name


def test_the_prompt_up_to_the_image_is_read_once(debug_model: SegEarth) -> None:
    lengths: list[int] = []
    body = debug_model.language_model.causal_lm.base_model
    hook = body.register_forward_pre_hook(
        lambda m, args, options: lengths.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    predictor = Predictor(debug_model)
    predictor.set_image((images(1)[0].permute(1, 2, 0) * 20 + 128).clamp(0, 255).byte().numpy())
    prompt = lengths.pop()
    for question in ("ships", "ships", "roads"):
        predictor.predict(question)
    hook.remove()
    assert prompt == predictor._features.prompt.embeds.shape[1]
    assert lengths == debug_model.prompt_encoder.encode([Question(t) for t in ("ships", "ships", "roads")]).lengths


def test_chunks_change_nothing(debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(debug_model)
    predictor.set_image((images(1)[0].permute(1, 2, 0) * 20 + 128).clamp(0, 255).byte().numpy())
    asked = [f"the {n} houses" for n in range(7)]
    whole = predictor.predict(asked)
    monkeypatch.setattr(predictor_module, "QUESTIONS_AT_ONCE", 2)
    for a, b in zip(whole, predictor.predict(asked), strict=True):
        assert (a.mask == b.mask).all()
        assert a.presence == pytest.approx(b.presence, abs=1e-5)


def test_auxiliary_logits_only_where_they_are_learned_from(debug_model: SegEarth) -> None:
    features = debug_model.encode_image(images())
    queries = debug_model.encode_text(features, debug_model.prompt_encoder.encode(QUESTIONS), INDEX)
    assert len(debug_model.decode_masks(features, queries).auxiliary) == len(debug_model.mask_decoder.layers)
    with torch.no_grad():
        assert debug_model.decode_masks(features, queries).auxiliary == []


def test_what_the_pixel_decoder_computes_again_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    decoder = PixelDecoder([8, 16, 32, 64], dim=16, num_layers=2, num_heads=2, ffn_dim=32)
    maps = [torch.randn(2, 8 << i, 32 >> i, 32 >> i, requires_grad=True) for i in range(4)]
    inputs = [*maps, *decoder.parameters()]

    def gradients() -> tuple[torch.Tensor, ...]:
        mask_features, memory = decoder(maps)
        loss = mask_features.square().mean() + sum(level.square().mean() for level in memory)
        return torch.autograd.grad(loss, inputs)

    again = gradients()
    monkeypatch.setattr("segearth.models.pixel_decoder.checkpoint", lambda work, *given, **_: work(*given))
    for ours, kept in zip(again, gradients(), strict=True):
        assert torch.equal(ours, kept)


def test_the_fused_gelu_of_phi() -> None:
    causal_lm = small("phi").language_model.causal_lm
    kinds = {type(module).__name__ for module in causal_lm.modules()}
    assert "GELU" in kinds
    assert "NewGELUActivation" not in kinds
