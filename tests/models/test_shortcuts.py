"""Every shortcut against the long way: what is kept, shared or left out changes no answer."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from segearth.inference import predictor as predictor_module
from segearth.inference.predictor import Predictor
from segearth.model_types import EncodedText
from segearth.models.build import build_model
from segearth.models.pixel_decoder import PixelDecoder
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.zoo.lookup import model_config

QUESTIONS = [
    Question("ships"),
    Question("the largest building in the upper left corner of the image"),
    Question("where could a helicopter land?", task="reasoning"),
    Question("which roads stay dry?", task="reasoning"),
    Question("roads"),
]
INDEX = torch.tensor([0, 0, 0, 2, 2])  # nobody asks about the second image
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


def answer(
    model: SegEarth, questions: list[Question] = QUESTIONS, index: torch.Tensor = INDEX, cache_prefix: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and mask logits."""
    features = model.encode_image(images(), cache_prefix)
    queries = model.encode_text(features, model.prompt_encoder.encode(questions), index)
    return queries.queries.detach().float(), model.decode_masks(features, queries).mask_logits.detach()


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within what rounding alone does in float32."""
    return bool((found - expected).abs().max() <= 3e-6 * expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_kept_shared_and_single(family: str, dtype: torch.dtype) -> None:
    """Kept keys and values, one pass as in training, one row a question, and one question at a time.

    A row a question that repeats its whole prompt is the long way. The others may differ from it by rounding alone:
    positions that are off by a few tokens differ a hundred times as much.
    """
    model = small(family)
    assert model.language_model.packs == (family != "bloom")
    exact, _ = answer(model)
    in_one_pass = answer(model.to(dtype), cache_prefix=False)
    with torch.no_grad():
        kept = answer(model)
        alone = [answer(model, [q], i[None]) for q, i in zip(QUESTIONS, INDEX, strict=True)]
        one_by_one = [torch.cat(parts) for parts in zip(*alone, strict=True)]
        model.language_model.packs = False
        in_rows = answer(model)
    for found in (kept, one_by_one, in_one_pass):
        if dtype == torch.float32:
            for ours, expected in zip(found, in_rows, strict=True):
                assert near(ours, expected)
        else:  # no further from each other than bf16 is from fp32 (a mask jumps where rounding hides a cell)
            assert (found[0] - in_rows[0]).abs().mean() <= 1.5 * (in_rows[0] - exact).abs().mean()


def rows_read(model: SegEarth) -> list[int]:
    """Tokens of each row that the language model reads from now on."""
    lengths: list[int] = []
    model.language_model.causal_lm.base_model.register_forward_pre_hook(
        lambda m, args, options: lengths.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    return lengths


@pytest.mark.parametrize("template", ["plain", "segearth_r1"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [2, 0, 1, 4, 3], [4, 3, 0, 2, 1]])
def test_what_a_task_opens_with_is_remembered_from_its_first_question_on(order: list[int], template: str) -> None:
    """Asked one after the other, in whichever order: the same hidden states at every token, and nothing read twice."""
    model = small("phi", template)
    encoder = model.prompt_encoder
    with torch.no_grad():
        features = model.encode_image(images())
        text = encoder.encode(QUESTIONS)
        together = model.encode_text(model.encode_image(images()), text, INDEX)
        lengths, expected, tasks = rows_read(model), [], set()
        for i in order:
            own = encoder.encode([QUESTIONS[i]])
            found = model.encode_text(features, own, INDEX[i : i + 1])
            assert near(found.queries[0], together.queries[i])
            assert near(found.hidden_states[0], together.hidden_states[i, : own.lengths[0]])
            task = QUESTIONS[i].task
            expected.append(own.lengths[0] - (own.openings[0][1] if task in tasks else 0))
            tasks.add(task)
        again = model.encode_text(features, text, INDEX)
    assert lengths[:-1] == expected
    assert lengths[-1] == max(sum(n - opening for n, (_, opening) in part) for part in by_image(text))
    assert near(again.hidden_states, together.hidden_states)


def by_image(text: EncodedText) -> list[list[tuple[int, tuple[str, int]]]]:
    asked = list(zip(text.lengths, text.openings, strict=True))
    return [[one for one, image in zip(asked, INDEX.tolist(), strict=True) if image == i] for i in range(3)]


def test_the_cache_serves_again() -> None:
    """A second reading finds the prompt as the first did, and the cache holds nothing of the questions."""
    model = small("phi")
    with torch.no_grad():
        features = model.encode_image(images())
        text = model.prompt_encoder.encode(QUESTIONS)
        first, second, third = (model.encode_text(features, text, INDEX).queries for _ in range(3))
    assert torch.equal(second, third)  # the first read the words that the tasks open with as well
    assert near(second, first)
    cache = features.prefix.kv_cache
    assert cache is not None
    assert cache.openings == dict(text.openings)
    kept = features.prefix.embeds.shape[1] + sum(cache.openings.values())
    for part in (part for layer in cache.keys_values for part in layer):
        assert part.shape[2] == kept
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def test_shared_training_gives_the_gradients_of_single_questions() -> None:
    """Gradients flow through what an image's questions share."""
    model = small("phi")

    def gradients(groups: list[list[int]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for group in groups:
            features = model.encode_image(images(1), cache_prefix=False)
            text = model.prompt_encoder.encode([QUESTIONS[i] for i in group])
            index = torch.zeros(len(group), dtype=torch.long)
            model.decode_masks(features, model.encode_text(features, text, index)).mask_logits.square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together, alone = gradients([[0, 1, 2, 3, 4]]), gradients([[0], [1], [2], [3], [4]])
    assert together.keys() == alone.keys()
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in together.items():  # a bias of keys has a gradient of nothing but rounding
        assert (gradient - alone[name]).abs().max() <= 1e-4 * alone[name].abs().max() + 1e-6 * largest, name


def test_training_reads_once_what_the_questions_of_an_image_share() -> None:
    model = small("phi")
    lengths = rows_read(model)
    features = model.encode_image(images(), cache_prefix=False)
    text = model.prompt_encoder.encode(QUESTIONS)
    model.encode_text(features, text, INDEX)
    shared = features.prefix.embeds.shape[1] + sum(dict(text.openings).values())
    own = max(sum(n - opening for n, (_, opening) in part) for part in by_image(text))
    assert lengths == [shared + own]


def test_all_words_of_a_training_step_are_looked_up_at_once() -> None:
    """Each look-up more costs a gradient of the whole table's size."""
    model = small("phi")
    gradients: list[str] = []
    features = model.encode_image(images(), cache_prefix=False)
    queries = model.encode_text(features, model.prompt_encoder.encode(QUESTIONS), INDEX)
    todo, seen = [queries.queries.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            gradients += [node.name()] if "Embedding" in node.name() else []
            todo += [following for following, _ in node.next_functions]
    assert gradients == ["EmbeddingBackward0"]


def test_the_prompt_up_to_the_image_is_read_once() -> None:
    model = small("phi")
    lengths = rows_read(model)
    predictor = Predictor(model)
    predictor.set_image((images(1)[0].permute(1, 2, 0) * 20 + 128).clamp(0, 255).byte().numpy())
    prompt = lengths.pop()
    for question in ("ships", "ships", "roads"):
        predictor.predict(question)
    assert prompt == predictor._features.prefix.embeds.shape[1]
    text = model.prompt_encoder.encode([Question(t) for t in ("ships", "ships", "roads")])
    opening = text.openings[0][1]
    assert opening > 0
    assert lengths == [text.lengths[0], *(length - opening for length in text.lengths[1:])]


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
    auxiliary = debug_model.decode_masks(features, queries, auxiliary=True).auxiliary
    assert len(auxiliary) == len(debug_model.mask_decoder.layers)
    assert debug_model.decode_masks(features, queries).auxiliary == []


def test_recorded_gradients_change_nothing(debug_model: SegEarth) -> None:
    """What a training step does otherwise is asked for by arguments; that gradients are recorded decides nothing."""
    model = deepcopy(debug_model)  # others use it too, and would meet the hook
    lengths = rows_read(model)
    text = model.prompt_encoder.encode(QUESTIONS)
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            features = model.encode_image(images())
            output = model.decode_masks(features, model.encode_text(features, text, INDEX))
        assert features.prefix.kv_cache is not None
        assert output.auxiliary == []
    assert lengths[:2] == lengths[2:]


def test_what_the_pixel_decoder_computes_again_changes_no_gradient() -> None:
    torch.manual_seed(0)
    decoder = PixelDecoder([8, 16, 32, 64], dim=16, num_layers=2, num_heads=2, ffn_dim=32)
    maps = [torch.randn(2, 8 << i, 32 >> i, 32 >> i, requires_grad=True) for i in range(4)]
    inputs = [*maps, *decoder.parameters()]

    convolved: list[int] = []
    decoder.lateral[0].register_forward_hook(lambda *_: convolved.append(1))

    def gradients() -> tuple[torch.Tensor, ...]:
        convolved.clear()
        mask_features, levels = decoder(maps)
        loss = mask_features.square().mean() + sum(level.square().mean() for level in levels)
        return torch.autograd.grad(loss, inputs)

    again = gradients()
    assert len(convolved) == 2
    decoder.recomputes = False
    kept = gradients()
    assert len(convolved) == 1
    decoder.recomputes = True
    decoder.eval()
    used = gradients()
    assert len(convolved) == 1
    for ours, theirs, others in zip(again, kept, used, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(ours, others)


def test_the_fused_gelu_of_phi() -> None:
    causal_lm = small("phi").language_model.causal_lm
    kinds = {type(module).__name__ for module in causal_lm.modules()}
    assert "GELU" in kinds
    assert "NewGELUActivation" not in kinds
