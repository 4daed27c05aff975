"""The second stage: answers are rewarded, and those of a group that do better than the others become likelier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig, GrpoConfig
from segearth.errors import ConfigError
from segearth.prompting.opening import quiet
from segearth.prompting.promptable import PromptableSegmenter
from segearth.rl.completions import reward_functions
from segearth.rl.masks import GroupMasks
from segearth.rl.rewards.presets import reward_preset, reward_term
from segearth.rl.rewards.settings import ConsistencySettings, RewardSettings
from segearth.rl.rewards.terms import RewardPreset, RewardTools
from segearth.rl.rewards.wording import Embed
from segearth.rl.rows import QuestionRows
from segearth.rl.stages import (
    checked_fields,
    csv_log,
    freeze_vision,
    import_trl,
    last_checkpoint,
    peft_of,
    processes,
    shared_arguments,
)
from segearth.utils.step_batches import split_batch


def preset_of(grpo: GrpoConfig) -> RewardPreset:
    """Returns the reward that an experiment asks for.

    Raises:
        UnknownNameError: There is no such preset, term or constant.
        ConfigError: A constant is out of range.
    """
    settings = RewardSettings(**checked_fields("grpo.constants", RewardSettings, grpo.constants))
    consistency = ConsistencySettings(**checked_fields("grpo.consistency", ConsistencySettings, grpo.consistency))
    preset = reward_preset(grpo.reward, settings, consistency)
    added = tuple(replace(reward_term(name, settings), weight=weight) for name, weight in grpo.add.items())
    return replace(preset, terms=preset.terms + added).with_weights(grpo.weights)


def grpo_trainer(
    experiment: ExperimentConfig, model: str | Path, processor: Any, rows: QuestionRows, folder: Path,
    segmenter: PromptableSegmenter, embed: Embed | None = None,
) -> Any:  # fmt: skip
    """Prepares the trainer, a thin subclass of trl's ``GRPOTrainer``.

    Args:
        experiment: ``grpo``, ``policy`` and ``train`` are read.
        model: Folder or hub id of a vision-language model; opened by trl, since ZeRO-3 must be there before it.
        processor: Its processor.
        rows: Without a thought.
        folder: For checkpoints and ``grpo.csv``.
        segmenter: Frozen; makes the masks that are rewarded.
        embed: For presets that compare texts.

    Raises:
        MissingExtraError: trl is not installed.
        ConfigError: A batch cannot be divided, the preset needs a tool that is not there, or there is no vision encoder
            to freeze.
        UnknownNameError: There is no such preset, term or constant.
    """
    trl = import_trl()
    from segearth.rl.group_trainer import GroupTrainer

    grpo, train, policy = experiment.grpo, experiment.train, experiment.policy
    preset = preset_of(grpo)
    masks = GroupMasks(segmenter, rows.image_of)
    preset.check_tools(RewardTools(masks, embed))
    if train.global_batch_size % grpo.group:
        raise ConfigError(
            f"train.global_batch_size is {train.global_batch_size} answers, no multiple of grpo.group {grpo.group}"
        )
    if grpo.updates < 1:
        raise ConfigError(f"grpo.updates is {grpo.updates}; give at least 1")
    names = "train.global_batch_size", "train.micro_batch_size"
    answers, passes = split_batch(train.global_batch_size, train.micro_batch_size, processes(), names)
    arguments = trl.GRPOConfig(
        **shared_arguments(experiment, folder), max_steps=train.max_steps, learning_rate=train.learning_rate,
        warmup_steps=train.warmup_ratio, per_device_train_batch_size=answers,
        gradient_accumulation_steps=passes, steps_per_generation=passes * grpo.updates, num_generations=grpo.group,
        max_completion_length=policy.max_new_tokens, temperature=grpo.temperature, beta=grpo.beta,
        epsilon=grpo.epsilon, loss_type=grpo.loss, scale_rewards=grpo.scale,
        reward_weights=[term.weight for term in preset.terms],
    )  # fmt: skip
    trainer = GroupTrainer(
        str(model), reward_functions(preset, masks_of=masks, embed=embed), arguments, rows.as_dataset(),
        processing_class=processor, peft_config=peft_of(train.lora), callbacks=[csv_log(folder / "grpo.csv")],
        consistency=preset.consistency, masks=masks,
    )  # fmt: skip
    if policy.freeze_vision:
        freeze_vision(trainer.model)
    return trainer


def train_grpo(
    experiment: ExperimentConfig, model: str | Path, processor: Any, rows: QuestionRows, folder: Path,
    segmenter: PromptableSegmenter, embed: Embed | None = None,
) -> Any:  # fmt: skip
    """Trains the stage, from its newest checkpoint on if there is one; see :func:`grpo_trainer`.

    Returns:
        The trainer, with the trained model.
    """
    trainer = grpo_trainer(experiment, model, processor, rows, folder, segmenter, embed)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return trainer


def open_embedder(source: str | None) -> Embed | None:
    """Opens a model that turns texts into sentence embeddings; ``None`` for none.

    Raises:
        ConfigError: sentence-transformers is not installed.
    """
    if source is None:
        return None
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "grpo.embedder needs the package sentence-transformers, which no extra installs; "
            "run pip install sentence-transformers"
        ) from error
    with quiet():
        encode: Callable[..., Any] = SentenceTransformer(source).encode
    return encode
