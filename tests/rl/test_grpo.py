from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="training by rewards needs trl")

from segearth.config import GrpoConfig
from segearth.data.registry import build_dataset
from segearth.errors import ConfigError, UnknownNameError
from segearth.prompting.answers import Instance
from segearth.prompting.frames import Frame
from segearth.prompting.promptable import BoxFill
from segearth.prompting.sam import PromptableSam
from segearth.prompting.templates import answer_template
from segearth.prompting.tiny import tiny_sam2
from segearth.rl.ground_truth import read_ground_truth
from segearth.rl.grpo import grpo_trainer, open_embedder, preset_of, train_grpo
from segearth.rl.rows import QuestionRows

BRIEF = replace(answer_template("brief@1"), frame=Frame.resized(32, 32))
GROUP = 4


def rows() -> QuestionRows:
    return QuestionRows([build_dataset("roofs", None, "train", length=16)], BRIEF)


def asked(source: QuestionRows, *numbers: int) -> list[dict[str, Any]]:
    """Each row once for every answer of its group, as trl hands them over."""
    return [source[number] for number in numbers for _ in range(GROUP)]


def answers(inputs: list[dict[str, Any]], boxes: list[tuple[int, int, int, int]]) -> list[list[dict[str, str]]]:
    texts = [BRIEF.write([Instance(box=tuple(map(float, box)))], "upper left") for box in boxes]
    assert len(texts) == len(inputs)
    return [[{"role": "assistant", "content": text}] for text in texts]


def scored(trainer: Any, inputs: list[dict[str, Any]], completions: Any) -> torch.Tensor:
    trainer.model.train()
    return trainer._calculate_rewards(inputs, [row["prompt"] for row in inputs], completions, [[0]] * len(inputs))


SPREAD = [(0, 0, 8, 8), (24, 0, 32, 8), (0, 24, 8, 32), (24, 24, 32, 32)]
TOGETHER = [(8, 8, 16, 16)] * 4


@pytest.fixture(scope="module")
def trainer(tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("grpo")
    return grpo_trainer(tiny_experiment(folder), policy_start, None, rows(), folder / "grpo", BoxFill())


def test_an_image_is_encoded_once_a_group(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path
) -> None:
    sam = PromptableSam(tiny_sam2(), keep=1)
    own = grpo_trainer(tiny_experiment(tmp_path), policy_start, None, rows(), tmp_path / "grpo", sam)
    inputs = asked(rows(), 0, 1, 2)
    scored(own, inputs, answers(inputs, SPREAD * 3))
    assert sam.encodings == own.masks.images == 3  # of twelve answers
    assert own._metrics["train"]["encodings"] == [3] and own._metrics["train"]["seconds/rewards"][0] > 0


def test_rewards_are_the_presets(trainer: Any) -> None:
    inputs = asked(rows(), 0)
    ys, xs = np.nonzero(read_ground_truth(inputs[0]["ground_truth"])[0].mask)  # type: ignore[union-attr]
    box = tuple(int(value) // 2 for value in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))  # 64 px in a frame of 32
    values = scored(trainer, inputs, answers(inputs, [box, *SPREAD[:3]]))  # type: ignore[list-item]
    assert trainer.reward_func_names == ["mask_iou", "json_form", "tags_form", "positional"] and values.shape == (4, 4)
    assert trainer.reward_weights.tolist() == [2.0, 1.0, 1.0, 1.0] and values[:, 1:3].eq(1).all()
    assert values[0, 0] > 0.6 and values[0, 0] == values[:, 0].max()


def test_a_failing_row_gets_the_floor_and_touches_no_other(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(BoxFill):
        def masks(self, instances: Any) -> Any:
            if instances[0].box[0] == 0 and instances[0].box[1] == 0:
                raise RuntimeError("out of memory")
            return super().masks(instances)

    own = grpo_trainer(tiny_experiment(tmp_path), policy_start, None, rows(), tmp_path / "grpo", Failing())
    inputs = asked(rows(), 0, 1)
    whole = [(0, 0, 32, 32), (1, 1, 31, 31), (1, 1, 31, 31), (1, 1, 31, 31)]
    values = scored(own, inputs, answers(inputs, whole * 2))[:, 0]
    assert values[[0, 4]].tolist() == [0.0, 0.0] and (values[[1, 2, 3, 5, 6, 7]] > 0).all()
    assert "out of memory" in caplog.text


def test_groups_that_scatter_move_the_policy_less(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    experiment = tiny_experiment(tmp_path, "grpo.reward=rsground_r1", "grpo.consistency.lowest_weight=0.25")
    experiment.grpo.add = {}
    own = grpo_trainer(experiment, policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    inputs = asked(rows(), 0, 1)
    completions = answers(inputs, [*SPREAD, *TOGETHER])

    def scoring(self: Any, given: Any) -> dict[str, Any]:
        scored(own, given, completions)
        return {"advantages": torch.tensor([1.0, -1, 1, -1] * 2)}

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", scoring)
    made = own._generate_and_score_completions(inputs)["advantages"]
    # The centres lie 0.375 of each side from their mean: s = 0.375 * sqrt(2), C = exp(-s / 0.25) = 0.119873.
    assert made[:4].tolist() == pytest.approx([0.339905, -0.339905, 0.339905, -0.339905], abs=1e-5)
    assert made[4:].tolist() == [1.0, -1.0, 1.0, -1.0]
    text = BRIEF.write([Instance(box=(0.0, 0.0, 1.0, 1.0))] * 501, "all over")
    thousands = [[{"role": "assistant", "content": text}]]
    scored(own, inputs, [*thousands, *completions[1:]])  # which counts as pointing at nothing
    assert own._trust.shape == (8,) and own._trust[0] > 0.3


def test_a_run_goes_on_from_its_checkpoint_and_logs_every_step_once(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path
) -> None:
    experiment = tiny_experiment(tmp_path, "train.max_steps=1")
    train_grpo(experiment, policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    experiment.train.max_steps = 2
    again = train_grpo(experiment, policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    assert again.state.global_step == 2
    with (tmp_path / "grpo/grpo.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["1", "2"]
    assert {"reward", "mask_iou", "json_form", "tags_form", "reward_seconds", "encodings", "entropy"} <= set(lines[0])


def test_answers_that_are_better_become_likelier(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step on two answers that are made up: the likelihood of the better one must rise against the other's."""
    overrides = ["train.max_steps=1", "train.learning_rate=0.01", "train.warmup_ratio=0", "grpo.group=2"]
    experiment = tiny_experiment(tmp_path, *overrides, "train.global_batch_size=4", "train.micro_batch_size=4")
    own = grpo_trainer(experiment, policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    tokenizer = own.processing_class.tokenizer
    texts = [BRIEF.write([Instance(box=(0.0, 0.0, 32.0, 32.0))], "here"), "nothing at all to say"]
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    begin = type(own)._generate_single_turn

    def made_up(self: Any, prompt_ids: Any, *others: Any, **more: Any) -> Any:
        begin(self, prompt_ids, *others, **more)
        return [ids[number % 2] for number in range(len(prompt_ids))], None

    monkeypatch.setattr(type(own), "_generate_single_turn", made_up)
    before = _likelihood(own, ids)
    own.train()
    after = _likelihood(own, ids)
    assert after[0] - before[0] > after[1] - before[1]


def _likelihood(trainer: Any, ids: list[list[int]]) -> np.ndarray:
    """Log-likelihood of the two answers to the first question."""
    row = rows()[0]
    processor = trainer.processing_class
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[row["images"]], return_tensors="pt")
    found = []
    for answer in ids:
        own = torch.tensor([answer])
        whole = {
            **inputs, "input_ids": torch.cat([inputs["input_ids"], own], 1),
            "attention_mask": torch.ones(1, inputs["input_ids"].shape[1] + len(answer), dtype=torch.long),
        }  # fmt: skip
        if "mm_token_type_ids" in inputs:
            whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(own)], 1)
        trainer.model.eval()
        with torch.no_grad():
            logits = trainer.model(**whole).logits[0, -len(answer) - 1 : -1]
        found.append(float(logits.log_softmax(-1).gather(1, own.T).sum()))
    return np.array(found)


def test_answers_of_several_steps_are_written_at_once(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(tmp_path, "grpo.updates=2", "train.micro_batch_size=4", "train.max_steps=4")
    own = grpo_trainer(experiment, policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    written: list[int] = []
    generate = type(own)._generate_single_turn

    def counted(self: Any, prompt_ids: Any, *others: Any, **more: Any) -> Any:
        written.append(len(prompt_ids))
        return generate(self, prompt_ids, *others, **more)

    monkeypatch.setattr(type(own), "_generate_single_turn", counted)
    own.train()
    assert own.state.global_step == 4 and written == [16, 16]  # two steps of eight answers each, twice


def test_what_is_misspelt_or_missing_is_told_before_the_first_step(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path
) -> None:
    assert preset_of(GrpoConfig(weights={"json_form": 0.0})).terms[1].weight == 0
    with pytest.raises(UnknownNameError, match="positional_sigma"):
        preset_of(GrpoConfig(constants={"positional_sigmas": 1}))
    with pytest.raises(UnknownNameError, match="reward term"):
        preset_of(GrpoConfig(add={"position": 1.0}))
    with pytest.raises(UnknownNameError, match="reward preset"):
        preset_of(GrpoConfig(reward="think2seg"))
    wrong = {
        "grpo.group=3": "no multiple of grpo.group", "grpo.updates=0": "grpo.updates is 0",
        "grpo.reward=geovlm_r1/region_caption": "embed",
    }  # fmt: skip
    for override, problem in wrong.items():
        with pytest.raises(ConfigError, match=problem):
            grpo_trainer(tiny_experiment(tmp_path, override), policy_start, None, rows(), tmp_path / "grpo", BoxFill())
    assert open_embedder(None) is None


def test_an_embedder_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match="pip install sentence-transformers"):
        open_embedder("some/model")
