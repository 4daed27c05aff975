"""A whole experiment of the decoupled family: a start, traces to learn writing from, rewards, and what that gained.

A run's folder, in the order in which it fills; whatever is there is not made again:

==================  =================================================================================================
``start``           the tiny model with random weights, where the experiment has no other
``sft``             checkpoints and ``sft.csv`` of the first stage
``sft_model``       its model
``grpo``            checkpoints and ``grpo.csv`` of the second stage
``vlm``             the policy
``prompted.json``   names it and the segmenter, so that ``segearth.load`` opens the run
``sight.json``      held-out IoU of both stages, beside what needs no sight: :class:`segearth.rl.blind.Sight`
==================  =================================================================================================
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from segearth.config import DECOUPLED, DatasetConfig, ExperimentConfig, to_dict
from segearth.data.base import SegmentationDataset
from segearth.data.registry import build_dataset, split_configs, split_label
from segearth.errors import ConfigError, NothingToFitError
from segearth.prompting.opening import explained, quiet
from segearth.prompting.promptable import BoxFill, PromptableSegmenter
from segearth.prompting.prompter import Prompter, framed
from segearth.prompting.sam import PromptableSam
from segearth.prompting.saved import BOXES, CARD_FILE, PromptedCard, write_card
from segearth.prompting.tiny import TinyShape, tiny_vision_language_model
from segearth.rl.blind import measure_sight
from segearth.rl.grpo import open_embedder, preset_of, train_grpo
from segearth.rl.rows import QuestionRows
from segearth.rl.sft import train_sft
from segearth.rl.stages import checked_fields, import_trl
from segearth.structures import Sample
from segearth.utils.files import atomic_folder, write_text
from segearth.utils.hub import find_source
from segearth.utils.processes import own_device, wait_for_all
from segearth.utils.seeds import seed_everything

logger = logging.getLogger(__name__)
SIGHT_FILE = "sight.json"
SIGHT_IMAGES = 256  # where eval.limit does not say how many; all stages are measured, while other processes wait
ASKED_AT_ONCE = 64  # questions, where a policy is measured


def train_decoupled(experiment: ExperimentConfig, is_main: bool = True) -> Path:
    """Trains both stages; run again after an interruption, it goes on where it stopped.

    Args:
        experiment: Its ``family`` is ``"decoupled"``.
        is_main: Whether this process writes files, where a launcher started several.

    Returns:
        The run's folder, which ``segearth.load`` opens.

    Raises:
        ConfigError: The experiment is of another family, or a setting is out of range.
        MissingExtraError: trl is not installed.
        DatasetError: There is nothing to learn from.
    """
    if experiment.family != DECOUPLED:
        raise ConfigError(f"the experiment's family is {experiment.family!r}; rewards train family: {DECOUPLED}")
    preset_of(experiment.grpo)  # what is misspelt is told before hours of the first stage
    folder, train = Path(experiment.train.output_dir), experiment.train
    if (folder / CARD_FILE).is_file():
        logger.info("%s is trained already; remove it, or name another train.output_dir, to train anew", folder)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(train.seed)
    if is_main:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(experiment))))
        _make_start(experiment, folder)
    wait_for_all()
    pretrained = experiment.policy.pretrained
    model = folder / "start" if pretrained is None else find_source(pretrained, "vision-language model")
    if experiment.sft.max_steps:
        if not (folder / "sft_model").is_dir():
            rows = _rows(experiment, _traced(experiment), experiment.sft.thought)
            _save(train_sft(experiment, model, _processor(model), rows, folder / "sft"), folder / "sft_model")
        model = folder / "sft_model"
    if not (folder / "vlm").is_dir():
        trainer = train_grpo(
            experiment, model, _processor(model), _rows(experiment, experiment.data.train), folder / "grpo",
            open_segmenter(experiment), open_embedder(experiment.grpo.embedder),
        )  # fmt: skip
        _save(trainer, folder / "vlm")
        del trainer  # what it holds of the device's memory is needed to measure
    if is_main:
        _finish(experiment, folder, {"sft": model, "grpo": folder / "vlm"})
    wait_for_all()
    return folder


def _finish(experiment: ExperimentConfig, folder: Path, models: dict[str, str | Path]) -> None:
    """Measures what each stage gained, and then makes the folder one that can be opened."""
    policy = experiment.policy
    _open_whole()
    sight = _sight(experiment, models)
    seen = experiment.data.train + (_traced(experiment) if experiment.sft.max_steps else [])
    write_text(folder / SIGHT_FILE, json.dumps(sight, indent=2) + "\n")
    write_card(folder, PromptedCard(
        "vlm", policy.segmenter, policy.template, max_new_tokens=policy.max_new_tokens, side=policy.side,
        trained_on=list(dict.fromkeys(split_label(config) for config in seen)),
    ))  # fmt: skip


def open_segmenter(experiment: ExperimentConfig) -> PromptableSegmenter:
    """Opens the frozen segmenter of an experiment, on the device of this process."""
    if experiment.policy.segmenter == BOXES:
        return BoxFill()
    return PromptableSam.from_pretrained(experiment.policy.segmenter, own_device(apple=False))


def _make_start(experiment: ExperimentConfig, folder: Path) -> None:
    """Makes and saves the tiny model to start from, where the experiment names no other."""
    policy, start = experiment.policy, folder / "start"
    if policy.pretrained is None and not start.is_dir():
        shape = TinyShape(**checked_fields("policy.tiny", TinyShape, policy.tiny))
        with atomic_folder(start) as temporary:
            for part in tiny_vision_language_model(shape):
                part.save_pretrained(temporary)


def _processor(model: str | Path) -> Any:
    import_trl()  # which mends what processors need too
    from transformers import AutoProcessor

    with explained(model, "vision-language model"), quiet():
        processor = AutoProcessor.from_pretrained(str(model))
    processor.tokenizer.padding_side = "left"  # an answer follows its own question, not padding
    return processor


def _traced(experiment: ExperimentConfig) -> list[DatasetConfig]:
    own = experiment.sft.data
    return experiment.data.train if own is None else own


def _rows(experiment: ExperimentConfig, configs: list[DatasetConfig], thought: str | None = None) -> QuestionRows:
    template = framed(experiment.policy.template, experiment.policy.side)
    datasets = [_open(config) for config in configs]
    return QuestionRows(datasets, template, experiment.data.questions_per_image, experiment.train.seed, thought)


def _sight(experiment: ExperimentConfig, models: dict[str, str | Path]) -> dict[str, dict[str, Any] | None]:
    """What policies see of the test split, beside what needs no sight; ``None`` each where there are no boxes."""
    chosen = split_configs(experiment.data, "test")
    if not chosen:
        return dict.fromkeys(models)
    held_out, fitted_on = (_first_images(experiment, config) for config in (chosen[0], experiment.data.train[0]))
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(models)
    try:
        for stage, model in models.items():
            began = time.perf_counter()
            seen = measure_sight(_prompter(experiment, model), held_out, fitted_on)
            logger.info("%s: %s (%.0f s)", model, seen, time.perf_counter() - began)
            found[stage] = seen.as_dict()
    except NothingToFitError as error:
        logger.warning("what the policy sees is not measured: %s", error)
    return found


def _prompter(experiment: ExperimentConfig, model: str | Path) -> Prompter:
    import torch

    policy, device = experiment.policy, own_device(apple=False)
    half = device.type == "cuda" and experiment.train.precision != "fp32"
    return Prompter.from_pretrained(
        model, device, torch.bfloat16 if half else torch.float32, template=policy.template, side=policy.side,
        max_new_tokens=policy.max_new_tokens, batch_size=ASKED_AT_ONCE,
    )  # fmt: skip


def _first_images(experiment: ExperimentConfig, config: DatasetConfig) -> list[Sample]:
    dataset, limit = _open(config), experiment.eval.limit
    return [dataset[index] for index in range(min(len(dataset), SIGHT_IMAGES if limit is None else limit))]


def _open(config: DatasetConfig) -> SegmentationDataset:
    return build_dataset(config.name, config.root, config.split, **config.options)


def _save(trainer: Any, folder: Path) -> None:
    """Saves the model that a stage trained, with its processor; adapters are merged into the weights they adapt."""
    weights = folder.with_name(f"{folder.name}_weights")
    trainer.save_model(str(weights))  # by every process: under ZeRO-3 each holds a part
    if trainer.is_world_process_zero():
        model = _merged(weights) if (weights / "adapter_config.json").is_file() else None
        with atomic_folder(folder) as temporary:
            for file in weights.iterdir() if model is None else ():
                if file.is_file() and file.name != "training_args.bin":
                    file.rename(temporary / file.name)
            if model is not None:
                model.save_pretrained(temporary)
            trainer.processing_class.save_pretrained(temporary)
        shutil.rmtree(weights)
    trainer.accelerator.wait_for_everyone()


def _merged(folder: Path) -> Any:
    """Opens what adapters were put on, on the CPU and whole, and merges them; under ZeRO-3 no process has it whole."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForImageTextToText

    _open_whole()
    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    model = AutoModelForImageTextToText.from_pretrained(str(base), dtype="auto")
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def _open_whole() -> None:
    """Ends what a stage under ZeRO-3 leaves behind: that every model opened is divided among the processes."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
