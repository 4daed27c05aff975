"""Tiny models do what the published ones do: they are saved, opened, and trained by GRPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segearth.prompting.tiny import CHAT_TEMPLATE, MARKS, TinyShape, tiny_vision_language_model

ANSWER = (
    "<think>the roofs</think><answer>```json\n"
    '[{"bbox_2d": [1, 20, 64, 5], "positive_points": [[11, 22], [33, 44]]}]\n```</answer>'
)


def asked(side: int, *questions: str) -> list[list[dict[str, Any]]]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for text in questions
    ]


def inputs_of(processor: Any, messages: list[list[dict[str, Any]]]) -> Any:
    texts = [processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) for turns in messages]
    images = [[turns[0]["content"][0]["image"]] for turns in messages]
    return processor(text=texts, images=images, padding=True, return_tensors="pt")


def test_an_image_is_cut_into_its_tokens_and_not_resized(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    inputs = inputs_of(processor, asked(64, "the roofs", "the ships in the left half"))
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]] * 2  # 64 px in patches of 8
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [16, 16]  # four to a token
    assert inputs["attention_mask"][0, 0] == 0 and inputs["attention_mask"][:, -1].all()  # padded on the left
    small = inputs_of(processor, asked(16, "the roofs"))
    assert small["image_grid_thw"].tolist() == [[1, 2, 2]]


def test_what_answers_repeat_is_one_token_each(tiny_vlm: tuple[Any, Any]) -> None:
    tokenizer = tiny_vlm[1].tokenizer
    pieces = tokenizer.tokenize(ANSWER)
    assert pieces[pieces.index('{"bbox_2d": [') + 1 :][:7] == ["1", ", ", "20", ", ", "64", ", ", "5"]
    assert len(pieces) <= 30 and tokenizer.decode(tokenizer(ANSWER)["input_ids"], skip_special_tokens=True) == ANSWER
    assert tokenizer.tokenize("65")[0] != "65"  # numbers that no coordinate reaches are spelt
    assert all(len(tokenizer(mark)["input_ids"]) == 1 for mark in MARKS)


def test_the_chat_is_qwens(tiny_vlm: tuple[Any, Any]) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *asked(64, "the roofs")[0]]
    text = tiny_vlm[1].apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>the roofs<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tiny_vlm[1].chat_template == CHAT_TEMPLATE


def test_the_image_reaches_the_answer(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    inputs = inputs_of(processor, asked(64, "the roofs"))
    with torch.no_grad():
        before = model(**inputs).logits[:, -1]
        inputs["pixel_values"] = -inputs["pixel_values"]
        assert not torch.allclose(model(**inputs).logits[:, -1], before)


def test_the_default_is_a_policy_of_a_million_parameters() -> None:
    model, _ = tiny_vision_language_model()
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 1.2e6


def test_a_saved_one_opens_like_any_other(tiny_vlm: tuple[Any, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    for part in tiny_vlm:
        part.save_pretrained(tmp_path)
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    written = []
    for model, processor in (tiny_vlm, opened):
        inputs = inputs_of(processor, asked(64, "the roofs", "the ships in the left half"))
        written.append(model.generate(**inputs, max_new_tokens=6, do_sample=False))
    assert torch.equal(*written)


@pytest.mark.parametrize("beta", [0.0, 1e-3])
def test_trl_trains_it(beta: float, tmp_path: Path) -> None:
    """One step of GRPO with images. With a divergence from the start (beta) trl opens the model once more by itself."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    shape = TinyShape(side=32, hidden=64, layers=1, vision_hidden=32, vision_layers=1, numbers=33)
    model, processor = tiny_vision_language_model(shape)
    if beta:
        model.save_pretrained(tmp_path / "start")
        model = AutoModelForImageTextToText.from_pretrained(tmp_path / "start")
    rows = [
        {"prompt": [{"role": "user", "content": "the roofs"}], "image": turns[0]["content"][0]["image"], "target": 3}
        for turns in asked(32, "a", "b")
    ]
    given: list[tuple[Any, ...]] = []

    def reward(completions: list[Any], target: list[int], image: list[Any], **_: Any) -> list[float]:
        given.append((completions, target, image))
        return [float(place) for place in range(len(completions))]

    arguments = GRPOConfig(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=2, num_generations=2, max_completion_length=4,
        max_steps=1, beta=beta, loss_type="grpo", learning_rate=1e-2, use_cpu=True, bf16=False, report_to=[],
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    data = Dataset.from_list(rows)
    GRPOTrainer(model, reward, args=arguments, train_dataset=data, processing_class=processor).train()
    ((completions, targets, images),) = given
    assert [turns[0]["role"] for turns in completions] == ["assistant"] * 2 and targets == [3, 3]
    assert images[0].size == (32, 32)
    moved = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert any("visual" in name for name in moved) and any("language_model" in name for name in moved)
