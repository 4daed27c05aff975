from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from segearth.prompting.answers import Instance, ParsedAnswer


@pytest.fixture
def pointing() -> Callable[..., ParsedAnswer]:
    """Makes an answer that points at boxes; ``None`` for a list that could not be read."""

    def make(boxes: Sequence[Sequence[float]] | None, tags: bool = True, json: bool = True) -> ParsedAnswer:
        instances = None if boxes is None else tuple(Instance(box=tuple(map(float, box))) for box in boxes)
        return ParsedAnswer("", "thought", "", instances, tags, json)

    return make


@pytest.fixture
def saying() -> Callable[..., ParsedAnswer]:
    """Makes an answer in words."""

    def make(words: str, tags: bool = True) -> ParsedAnswer:
        return ParsedAnswer(words, "thought", words, None, tags, True)

    return make


@pytest.fixture(scope="session")
def tiny_experiment() -> Callable[..., Any]:
    """Makes an experiment of the decoupled family that is over in seconds."""
    from segearth.config import ExperimentConfig, load_experiment
    from segearth.utils.files import configs_dir

    def make(folder: Path, *overrides: str, name: str = "think2seg_tiny") -> ExperimentConfig:
        shape = (
            "{kind: qwen3_vl, side: 32, patch: 4, hidden: 32, heads: 2, layers: 1, vision_hidden: 32, vision_layers: 1}"
        )
        short = [
            "policy.max_new_tokens=6", "train.micro_batch_size=8", "train.global_batch_size=8",
            "sft.micro_batch_size=4", "sft.batch_size=4", "grpo.group=4", "sft.max_steps=2", "train.max_steps=2",
            "eval.limit=2", "data.num_workers=0", "train.log_every=1", "train.save_every=1", "train.deepspeed=none",
            "train.precision=fp32", f"train.output_dir={folder}",
        ]  # fmt: skip
        if name == "think2seg_tiny":
            short += [f"policy.tiny={shape}", "data.train=[{name: roofs, options: {length: 16}}]"]
        return load_experiment(configs_dir() / "experiment" / f"{name}.yaml", [*short, *overrides])

    return make


@pytest.fixture(scope="session")
def policy_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model with random weights, saved."""
    import torch

    from segearth.prompting.tiny import TinyShape, tiny_vision_language_model

    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    shape = TinyShape("qwen3_vl", 32, 4, 32, 1, 2, 32, 1, numbers=33)
    for part in tiny_vision_language_model(shape):
        part.save_pretrained(folder)
    return folder
