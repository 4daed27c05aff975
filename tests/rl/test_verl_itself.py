"""What verl makes of the exported rows and of the scoring function; for its own environment, see docs/decoupled.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from segearth.prompting.templates import answer_template
from segearth.prompting.tiny import tiny_vision_language_model
from segearth.rl import verl as adapter
from segearth.rl.verl import examples_of, export_parquet
from segearth.structures import Boxes, Question, Sample
from segearth.utils.torchvision_mend import mend_torchvision

mend_torchvision()
pytest.importorskip("verl", reason="verl is not installed: docs/decoupled.md says how")
protocol = pytest.importorskip("verl.protocol", reason="a package that verl needs is not installed")
naive = pytest.importorskip("verl.experimental.reward_loop.reward_manager.naive")
rl_dataset = pytest.importorskip("verl.utils.dataset.rl_dataset")

RIGHT, NOTHING = [{"bbox_2d": [7, 14, 35, 42]}], []  # in the frame, 56 x 84 px


def written(boxes: list[Any]) -> str:
    return f"<think>so</think><answer>```json\n{json.dumps(boxes)}\n```</answer>"


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """verl's data set over two exported questions: one about a roof, one about a shed that is not there."""
    image = np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8)
    asked = [
        Question("the roof", target=Boxes(((5.0, 10.0, 25.0, 30.0),)), task="grounding"),
        Question("the shed", target=Boxes(()), task="grounding"),
    ]
    samples = [Sample("7", image, asked)]
    export_parquet(examples_of(samples, answer_template("rsground@1"), "rsground_r1", "mine"), tmp_path / "a.parquet")
    settings = {"max_prompt_length": 4096, "cache_dir": str(tmp_path), "filter_overlong_prompts_workers": None}
    _, processor = tiny_vision_language_model()
    return rl_dataset.RLHFDataset(
        str(tmp_path / "a.parquet"), processor.tokenizer, OmegaConf.create(settings), processor
    )


def scored(score: Callable[..., Any], rows: Any, answers: list[str]) -> list[dict[str, Any]]:
    """Lets verl's reward manager score an answer for each row."""
    columns = {key: value for key, value in rl_dataset.collate_fn(list(rows)).items() if isinstance(value, np.ndarray)}
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: answers[int(ids[0])])

    async def each() -> list[dict[str, Any]]:
        manager = naive.NaiveRewardManager(OmegaConf.create({}), tokenizer, score)
        found = []
        for number in range(len(answers)):
            item = protocol.DataProto.from_dict(
                tensors={"responses": torch.tensor([[number]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)},
                non_tensors={key: value[number : number + 1] for key, value in columns.items()},
            )
            found.append(await manager.run_single(item))
        return found

    return asyncio.run(each())


def test_its_data_set_reads_what_is_exported(rows: Any) -> None:
    assert len(rows) == 2  # none was left out as one that cannot be read
    picture, text = rows[0]["raw_prompt"][0]["content"]
    assert picture["image"].size == (56, 84) and "the roof" in text["text"]
    assert rows[1]["extra_info"]["frame_height"] == 84 and rows[1]["index"] == 1


@pytest.mark.parametrize("path", ["pkg://segearth.rl.verl", adapter.__file__])
def test_its_reward_manager_asks_the_scoring_function(rows: Any, path: str) -> None:
    reward = pytest.importorskip("verl.trainer.ppo.reward")
    named = {"custom_reward_function": {"path": path, "name": "compute_score", "reward_kwargs": {}}}
    score = reward.get_custom_reward_fn(OmegaConf.create({"reward": named}))
    right = scored(score, rows, [written(RIGHT), written(NOTHING)])
    wrong = scored(score, rows, [written(NOTHING), written(RIGHT)])
    assert [one["reward_score"] > other["reward_score"] for one, other in zip(right, wrong, strict=True)] == [True] * 2
    assert all(one["reward_extra_info"]["failed"] == 0 for one in [*right, *wrong])
    assert right[0]["reward_extra_info"]["detection"] == pytest.approx(1)
