"""The first stage: a vision-language model learns to write from reasoning traces, before rewards can judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig
from segearth.rl.rows import QuestionRows
from segearth.rl.stages import (
    csv_log,
    freeze_vision,
    import_trl,
    last_checkpoint,
    peft_of,
    processes,
    shared_arguments,
)
from segearth.utils.step_batches import split_batch


def sft_trainer(
    experiment: ExperimentConfig, model: str | Path, processor: Any, rows: QuestionRows, folder: Path
) -> Any:
    """Prepares trl's ``SFTTrainer``: the loss is that of the answer's tokens alone.

    Args:
        experiment: ``sft`` and ``train`` are read.
        model: Folder or hub id of a vision-language model; opened by trl, since ZeRO-3 must be there before it.
        processor: Its processor.
        rows: With a ``thought``.
        folder: For checkpoints and ``sft.csv``.

    Raises:
        MissingExtraError: trl is not installed.
        ConfigError: A batch cannot be divided, or there is no vision encoder to freeze.
    """
    trl = import_trl()
    sft, train = experiment.sft, experiment.train
    names = "sft.batch_size", "sft.micro_batch_size"
    traces, passes = split_batch(sft.batch_size, sft.micro_batch_size, processes(), names)
    arguments = trl.SFTConfig(
        **shared_arguments(experiment, folder), max_steps=sft.max_steps, learning_rate=sft.learning_rate,
        warmup_steps=sft.warmup_ratio, per_device_train_batch_size=traces,
        gradient_accumulation_steps=passes, completion_only_loss=True, max_length=None,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        str(model), arguments, train_dataset=rows.as_dataset(), processing_class=processor,
        peft_config=peft_of(train.lora), callbacks=[csv_log(folder / "sft.csv")],
    )  # fmt: skip
    if experiment.policy.freeze_vision:
        freeze_vision(trainer.model)
    return trainer


def train_sft(experiment: ExperimentConfig, model: str | Path, processor: Any, rows: QuestionRows, folder: Path) -> Any:
    """Trains the stage, from its newest checkpoint on if there is one; see :func:`sft_trainer`.

    Returns:
        The trainer, with the trained model.
    """
    trainer = sft_trainer(experiment, model, processor, rows, folder)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return trainer
