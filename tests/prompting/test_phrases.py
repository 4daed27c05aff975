"""A language model makes a noun phrase of a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from segearth.errors import CheckpointError
from segearth.prompting.phrases import PhraseWriter
from segearth.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def writer() -> PhraseWriter:
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    tokenizer = load_tokenizer("aerial")
    config = PhiConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return PhraseWriter(PhiForCausalLM(config), tokenizer, max_new_tokens=4)


@pytest.mark.parametrize(
    ("said", "phrase"),
    [
        (" **Roofs.**\nBecause the question", "Roofs"),
        ("\n \n ships\n", "ships"),
        ("...\nships", "ships"),
        ("", "where can I drive?"),
        (" .\n", "where can I drive?"),
    ],
)
def test_the_first_line_is_the_phrase(
    writer: PhraseWriter, monkeypatch: pytest.MonkeyPatch, said: str, phrase: str
) -> None:
    asked: list[str] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(writer.tokenizer.decode(input_ids[0]))
        return torch.cat([input_ids, torch.tensor([writer.tokenizer(said)["input_ids"]], dtype=torch.long)], 1)

    monkeypatch.setattr(writer.model, "generate", generate)
    writer._known.clear()
    assert writer("where can I drive?") == phrase == writer("where can I drive?")
    assert len(asked) == 1 and asked[0].endswith("Question: where can I drive?\nNoun phrase:")


def test_a_chat_template_is_used(writer: PhraseWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for turn in messages %}USER {{ turn['content'] }} END{% endfor %} GO"
    monkeypatch.setattr(writer.tokenizer, "chat_template", template)
    asked: list[str] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(writer.tokenizer.decode(input_ids[0]))
        return input_ids

    monkeypatch.setattr(writer.model, "generate", generate)
    assert writer("the unseen") == "the unseen"
    assert asked[0].startswith("USER Name what") and asked[0].endswith("Noun phrase: END GO")


def test_a_saved_one_writes_the_same(writer: PhraseWriter, tmp_path: Path) -> None:
    for part in (writer.model, writer.tokenizer):
        part.save_pretrained(tmp_path)
    opened = PhraseWriter.from_pretrained(tmp_path)
    opened.max_new_tokens = 4
    assert opened("which roofs could carry panels?") == writer("which roofs could carry panels?")
    with pytest.raises(CheckpointError, match="no language model at 'runs/nowhere'"):
        PhraseWriter.from_pretrained("runs/nowhere")


def test_what_is_kept_does_not_grow_without_end(writer: PhraseWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segearth.prompting.phrases.ANSWERS_KEPT", 2)
    monkeypatch.setattr(writer, "_write", lambda question: question.upper())
    writer._known.clear()
    assert [writer(question) for question in ("a", "b", "c", "a")] == ["A", "B", "C", "A"]
    assert len(writer._known) <= 2
