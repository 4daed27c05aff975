"""The published prompts, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published import Golden, published_tokenizer

from segearth.structures import Question, Task
from segearth.text.encoding import IGNORE, PromptEncoder
from segearth.text.templates import get_template

IMAGE, SEG, DESCRIPTION, ANSWER = -200, -201, -204, -205  # what stands for what in the recorded ids
WORDS = "the large airport runway in the middle of the image"


@pytest.fixture
def encoder(golden: Golden, tmp_path: Path) -> PromptEncoder:
    tokenizer = published_tokenizer(golden("tokenizer/tokenizer.json"), tmp_path)
    return PromptEncoder(tokenizer, get_template("segearth_r1"))


@pytest.mark.parametrize(("recorded", "task"), [("refer_train", "referring"), ("reason", "reasoning")])
def test_prompt_and_labels(golden: Golden, encoder: PromptEncoder, recorded: str, task: Task) -> None:
    """The public code puts image tokens, description and answer in place of its marks, and nothing in place of the
    reply's ``<seg>``."""
    prompts = json.loads(golden("prompts.json").read_text(encoding="utf-8"))
    text = encoder.encode([Question(WORDS, task=task, answer="Here.")], whole=True)
    ids = [*encoder.before_image, IMAGE, *text.input_ids[0].tolist()]
    seg = prompts["constants"]["SEG_id"]
    description = next(d["ids"] for d in prompts["referring_instruction"] if d["text"].strip() == WORDS)
    answer = [*encoder._ids("Here."), seg]
    put = {DESCRIPTION: description, SEG: [], ANSWER: answer}
    expected, labels = [], []
    for id, label in zip(prompts[recorded]["input_ids"], prompts[recorded]["labels"], strict=True):
        inserted = put.get(id, [id])
        expected += inserted
        labels += inserted if label != IGNORE else [IGNORE] * len(inserted)
    assert ids == expected
    assert text.labels[0].tolist() == labels[expected.index(IMAGE) + 1 :]
    assert set(labels[: expected.index(IMAGE) + 1]) == {IGNORE}
    assert text.input_ids[text.description_mask].tolist() == description


def test_the_evaluation_prompt_differs_only_after_the_description(golden: Golden) -> None:
    """So one template serves both: what follows the description cannot change the mask."""
    prompts = json.loads(golden("prompts.json").read_text(encoding="utf-8"))
    train, evaluation = (prompts[name]["input_ids"] for name in ("refer_train", "refer_eval_rrsisd"))
    end = train.index(DESCRIPTION)
    assert train[: end + 1] == evaluation[: end + 1]


def test_a_later_turn_is_learned_too(golden: Golden, encoder: PromptEncoder) -> None:
    """The public code ignores every label of a conversation of two turns. Here each question is a prompt of its own,
    and each answer is learned."""
    prompts = json.loads(golden("prompts.json").read_text(encoding="utf-8"))
    assert set(prompts["two_turn"]["labels"]) == {IGNORE}
    questions = [Question("How many cars?", answer="Two."), Question("And roads?", answer="One.")]
    labels = encoder.encode(questions, with_answers=True).labels
    assert (labels != IGNORE).any(1).all()


def test_generation_starts_where_the_answer_does(encoder: PromptEncoder) -> None:
    question = Question("where could one land?", task="reasoning", answer="On the runway.")
    whole = encoder.encode([question], whole=True).input_ids[0].tolist()
    prompt = encoder.encode_for_generation([question]).input_ids[0].tolist()
    assert whole[: len(prompt)] == prompt
    assert encoder.decode(whole[len(prompt) :]).startswith("On the runway.")
    answer = [*encoder._ids("On the runway."), encoder.stop_ids[-1]]
    assert whole[len(prompt) : len(prompt) + len(answer)] == answer  # [SEG] ends it
