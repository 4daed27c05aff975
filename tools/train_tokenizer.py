"""Trains the packaged tokenizer on questions built from aerial_mini's training split: no arguments."""

from __future__ import annotations

from collections.abc import Iterator

from segearth.data.questions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.registry import build_dataset
from segearth.text.tokenizer import PACKAGED, train_tokenizer
from segearth.utils.seeds import rng_for

VOCAB_SIZE, ROUNDS = 1536, 20


def sentences() -> Iterator[str]:
    """Yields each image's questions and answers, built again and again with other words."""
    dataset = build_dataset("aerial_mini", None, "train")
    builder = ExpressionBuilder(settings=BuilderSettings(max_questions=16))
    for round_index in range(ROUNDS):
        for index in range(len(dataset)):
            for question in builder.build(dataset.annotated(index), rng_for(0, round_index, index)):
                yield f" {question.text}"
                yield question.answer or ""


if __name__ == "__main__":
    train_tokenizer(sentences(), PACKAGED["aerial"], VOCAB_SIZE)
