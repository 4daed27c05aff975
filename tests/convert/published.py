"""Checkpoints in the published form, and the recorded whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from segearth.structures import Question, Task

PIECE, WHOLE, GRADIENT = 1e-5, 1e-4, 1e-4  # bounds on relative errors in float32
Golden = Callable[[str], Path]
Parity = Callable[[str, str, float, float], None]
NUM_HEADS = 4
PAD, SEG = "[PAD]", "[SEG]"


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12)).item()


def published_tokenizer(file: Path, folder: Path):
    """Writes a tokenizer as published checkpoints carry it, with two tokens of their own."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([SEG], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def published_folder(weights: Path, tokenizer: Path, folder: Path) -> Path:
    """Writes recorded weights as the published checkpoint is laid out."""
    folder.mkdir()
    shutil.copyfile(weights, folder / "model.safetensors")
    facts = {"model_type": "llava_phi", "num_attention_heads": NUM_HEADS, "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    published_tokenizer(tokenizer, folder)
    return folder


def recorded_questions(tokenizer, tensors: dict[str, Tensor], task: Task) -> list[Question]:
    """Turns recorded ids of a batch of two back into questions; the last id of each is ``[SEG]``."""

    def words(name: str) -> str:
        return tokenizer.decode(tensors[name][:-1]).strip()

    return [
        Question(
            words(f"in.token_refer_id.{i}"),
            task=task,
            answer=words(f"in.token_answer_id.{i}") if task == "reasoning" else None,
        )
        for i in range(2)
    ]
