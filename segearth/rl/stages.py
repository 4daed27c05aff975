"""What both stages of training share: trl's arguments from an experiment, adapters, DeepSpeed, and a CSV log."""

from __future__ import annotations

import csv
import json
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig, LoraConfig
from segearth.errors import ConfigError, MissingExtraError, UnknownNameError
from segearth.utils.files import atomic_path, configs_dir
from segearth.utils.torchvision_mend import mend_torchvision

NO_DEEPSPEED = "none"
VISION_NAMES = ("visual", "vision_model", "vision_tower")  # what transformers calls the vision encoder, by model
LOGGED = {  # from trl's names to the columns of the CSV file; the terms of a reward come after them
    "loss": "loss", "reward": "reward", "reward_std": "reward_std", "frac_reward_zero_std": "equal_groups", "kl": "kl",
    "entropy": "entropy", "completions/mean_length": "tokens", "grad_norm": "grad_norm", "learning_rate": "lr",
    "step_time": "step_seconds", "seconds/rewards": "reward_seconds", "encodings": "encodings", "trust": "trust",
}  # fmt: skip


def import_trl() -> Any:
    """Imports trl, after what a mismatched torchvision would stop it with is mended.

    Raises:
        MissingExtraError: It is not installed, or not with what it needs.
    """
    mend_torchvision()
    try:
        import trl
        import trl.trainer.grpo_trainer
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError("trl", "rl", error) from error
    return trl


def shared_arguments(experiment: ExperimentConfig, folder: Path) -> dict[str, Any]:
    """Returns what trl's configurations of both stages take from ``experiment.train``.

    Args:
        experiment: Its ``train``.
        folder: Of the stage's checkpoints.

    Raises:
        ConfigError: There is no such DeepSpeed file.
    """
    import torch

    train = experiment.train
    on_gpu = torch.cuda.is_available()
    bf16 = train.precision == "bf16" or (train.precision == "auto" and on_gpu)
    # Weights that learn are kept in float32: a step at a learning rate of 1e-6 is less than bf16 can tell from nothing.
    # Beside adapters the others do not learn; DeepSpeed keeps float32 copies of its own.
    half = bf16 and train.lora.enabled and train.deepspeed == NO_DEEPSPEED
    return dict(
        output_dir=str(folder), seed=train.seed, data_seed=train.seed, bf16=bf16, use_cpu=not on_gpu,
        lr_scheduler_type="cosine_with_min_lr" if train.min_learning_rate_ratio < 1 else "constant_with_warmup",
        lr_scheduler_kwargs={"min_lr_rate": train.min_learning_rate_ratio} if train.min_learning_rate_ratio < 1 else {},
        weight_decay=train.weight_decay, adam_beta1=train.betas[0], adam_beta2=train.betas[1],
        max_grad_norm=train.max_grad_norm, gradient_checkpointing=train.activation_checkpointing,
        logging_steps=train.log_every, save_steps=train.save_every, save_total_limit=train.keep_checkpoints,
        report_to="tensorboard" if train.tensorboard else "none", disable_tqdm=True, remove_unused_columns=False,
        dataloader_num_workers=experiment.data.num_workers, deepspeed=_deepspeed(train.deepspeed),
        model_init_kwargs={"dtype": "bfloat16" if half else "float32"},
    )  # fmt: skip


def processes() -> int:
    """Returns how many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def checked_fields(where: str, kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Returns values for the fields of a dataclass, after checking that it has such fields.

    Args:
        where: The setting that holds them, for the error.
        kind: The dataclass.
        values: By name.

    Raises:
        UnknownNameError: It has no field of a name.
    """
    names = [each.name for each in fields(kind)]
    for name in values:
        if name not in names:
            raise UnknownNameError(where, name, names)
    return values


def peft_of(lora: LoraConfig) -> Any:
    """Returns the adapters' configuration for trl; ``None`` where there are none.

    Raises:
        MissingExtraError: peft is not installed.
    """
    if not lora.enabled:
        return None
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError as error:
        raise MissingExtraError("peft", "rl", error) from error
    return PeftConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )  # fmt: skip


def freeze_vision(model: Any) -> None:
    """Freezes the vision encoder of a vision-language model, with what merges its tokens.

    Raises:
        ConfigError: None is found, and training would change what should stay.
    """
    found = [parameter for name, parameter in model.named_parameters() if set(name.split(".")) & set(VISION_NAMES)]
    if not found:
        raise ConfigError(f"no vision encoder ({', '.join(VISION_NAMES)}) in a {type(model).__name__}")
    for parameter in found:
        parameter.requires_grad_(False)


def last_checkpoint(folder: Path) -> str | None:
    """Returns the newest whole checkpoint of a stage, to go on from; ``None`` where there is none."""
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def csv_log(path: Path) -> Any:
    """Returns a callback that writes what trl logs as a CSV file, one row for each logged step.

    A run that goes on after an interruption does steps anew; their earlier rows are dropped.

    Args:
        path: The file.
    """
    from transformers import TrainerCallback

    class CsvLog(TrainerCallback):
        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []
            self.start = self.cpu = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if path.is_file():
                with path.open(encoding="utf-8", newline="") as file:
                    self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= state.global_step]
            before = self.rows[-1] if self.rows else {"seconds": 0, "cpu_seconds": 0}
            self.start = time.perf_counter() - float(before["seconds"])
            self.cpu = time.process_time() - float(before["cpu_seconds"])

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            if not state.is_world_process_zero or not logs or "loss" not in logs:
                return
            row = {
                "step": state.global_step,
                "seconds": round(time.perf_counter() - self.start, 1),
                "cpu_seconds": round(time.process_time() - self.cpu, 1),
            }
            named = {**LOGGED, **{key: key.split("/")[1] for key in logs if _is_term(key)}}
            row |= {
                column: f"{float(logs[key]):.6g}" for key, column in named.items() if logs.get(key) is not None
            }
            self.rows.append(row)
            _write_csv(path, self.rows)

    return CsvLog()


def _is_term(key: str) -> bool:
    return key.startswith("rewards/") and key.endswith("/mean")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _deepspeed(name: str) -> dict[str, Any] | None:
    """Reads a DeepSpeed file and leaves to transformers what it knows from the other arguments."""
    if name == NO_DEEPSPEED:
        return None
    path = Path(name) if name.endswith(".json") else configs_dir() / "deepspeed" / f"{name}.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.deepspeed: {path} cannot be read ({error}); or give {NO_DEEPSPEED}") from error
    if settings.get("zero_optimization", {}).get("stage") == 3:  # else the parts of a model are saved, which none opens
        settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    told = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {**dict.fromkeys(told, "auto"), "bf16": {"enabled": "auto"}, **settings}
