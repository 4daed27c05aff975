"""Evaluates or calibrates the model of an experiment: opens its data, chooses defaults, and says what came of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segearth.config import UNKNOWN_SPLITS, DatasetConfig, ExperimentConfig
from segearth.data.base import SegmentationDataset
from segearth.data.registry import build_dataset, share_images, split_configs, split_label
from segearth.errors import CheckpointError, ConfigError, DatasetError
from segearth.evaluation.confidence import calibrate
from segearth.evaluation.report import run_evaluation
from segearth.models.pretrained import (
    BEST,
    CONFIG_FILE,
    LAST,
    local_folder,
    save_settings,
    training_facts,
)
from segearth.models.segearth import SegEarth
from segearth.segmenter import Segmenter, facts_of, usual_batch_size

logger = logging.getLogger(__name__)
UNKNOWN_SIDE = 1024  # pixels: the assumed longer side of the frame where a segmenter's facts do not say it


def report_folder(experiment: ExperimentConfig, source: str | Path, split: str) -> Path:
    """Returns where the report of a model goes when the user names no folder.

    The report of a saved model goes into its own folder, as ``MODEL/eval_SPLIT``, so that it replaces no other model's.
    Of a training run it goes to ``RUN/eval_SPLIT``; if its last model is scored and another was the best, to
    ``RUN/eval_SPLIT_last``. The report of a model without a folder, of the zoo or the hub, goes into the experiment's
    run, under the model's name.

    Args:
        experiment: What is evaluated; its ``train.output_dir`` and ``data`` are read.
        source: The model: a run, a saved folder, a zoo name or a hub id.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ConfigError: The report of another data set lies there.
        UnknownNameError: No such split.
    """
    own = Path(experiment.train.output_dir)
    model = Path(source).expanduser()
    if model.is_dir():
        of_a_run = model.name in (BEST, LAST) and (model.parent / "config.yaml").is_file()
        beside_the_best = of_a_run and model.name == LAST and local_folder(model.parent).name == BEST
        # A run's models are replaced as a whole whenever they are written again: nothing else may lie in them.
        folder = (model.parent if of_a_run else model) / f"eval_{split}{'_last' if beside_the_best else ''}"
    elif model == own:  # the run does not exist yet; opening its model will say so
        folder = own / f"eval_{split}"
    else:
        folder = own / f"eval_{split}_{re.sub(r'[^A-Za-z0-9._-]+', '--', str(source).removeprefix('hf:'))}"
    _check_same_data(folder, split_configs(experiment.data, split))
    return folder


def _check_same_data(folder: Path, chosen: Sequence[DatasetConfig]) -> None:
    """Refuses to replace a report on another data set."""
    path = folder / "report.json"
    if not path.is_file():
        return
    try:
        scored = json.loads(path.read_text(encoding="utf-8"))["dataset"]
    except (ValueError, KeyError, TypeError):  # not a whole report, so nothing is lost if it is replaced
        return
    if scored not in [data.name for data in chosen]:
        raise ConfigError(f"{folder} holds the report on {scored}; name a folder for this one with --out")


def evaluate_experiment(
    experiment: ExperimentConfig,
    segmenter: Segmenter,
    model_name: str,
    split: str,
    output_dir: Path,
    rank: int = 0,
    world_size: int = 1,
    training: Mapping[str, Any] | None = None,
) -> str:
    """Scores whatever answers questions on one split of an experiment's data and writes the report.

    Args:
        experiment: ``data`` and ``eval`` are read.
        segmenter: What to score; of its ``facts`` the protocol, the frame and the device are read.
        model_name: Named in the report.
        split: ``"train"``, ``"val"`` or ``"test"``.
        output_dir: Folder for the report.
        rank: This process.
        world_size: Processes.
        training: What is known of the weights' training, as ``segearth.zoo.opening.training_of`` returns it; ``None``:
            what lies beside them tells. Where their splits are not known, the experiment is taken to have trained them.

    Returns:
        The headline in one line, or one for each kind of answer that the split asks for.

    Raises:
        UnknownNameError: No such split.
        DatasetError: The split names no data set, or more than one.
    """
    chosen = split_configs(experiment.data, split)
    if len(chosen) != 1:
        raise DatasetError(
            f"data.{split} names {len(chosen)} data sets, and one is evaluated at a time; choose it with "
            f"'data.{split}=[{{name: …, root: …, split: {split}}}]'"
        )
    known = training_facts(model_name) if training is None else training
    notes = {"command": f"segearth eval, split {split}", **_which_weights(model_name, known)}
    if warning := _seen_before(chosen[0], known.get("trained_on"), experiment):
        notes["warning"] = warning
    options, facts = experiment.eval, facts_of(segmenter)
    train = experiment.data.train[0] if options.controls and experiment.data.train else None
    images_at_a_time = usual_batch_size(facts.device, facts.side or UNKNOWN_SIDE)
    result = run_evaluation(
        segmenter,
        _open(chosen[0]),
        output_dir,
        model_name=model_name,
        notes=notes,
        rank=rank,
        world_size=world_size,
        protocol=facts.protocol if options.protocol == "auto" else options.protocol,
        controls=options.controls,
        train_dataset=_open(train) if train else None,
        seed=experiment.train.seed,
        limit=options.limit,
        batch_size=images_at_a_time if options.batch_size is None else options.batch_size,
        examples=options.sheet_rows,
    )
    lines = []
    for found in result.by_scorer.values():
        line = f"{split}: {found.scorer.in_one_line(found.metrics)}"
        if found.margin is not None:
            line += f", {found.margin:+.4f} {found.scorer.headline_name} beside the best control ({found.best_control})"
        lines.append(line)
    return "\n".join(lines)


def calibrate_experiment(experiment: ExperimentConfig, source: str | Path, split: str, device: str = "cpu") -> str:
    """Sets a saved model's presence threshold, mask curve and score curve by one split of an experiment's data.

    Args:
        experiment: ``data`` is read.
        source: A training run or a saved folder, whose configuration is changed.
        split: ``"train"``, ``"val"`` or ``"test"``; not the one that the model will be reported on.
        device: Where to run.

    Returns:
        What was set and what that changed, in lines.

    Raises:
        CheckpointError: There is no such folder.
        DatasetError: The split names no data set, or more than one, or has too few questions.
    """
    chosen = split_configs(experiment.data, split)
    if len(chosen) != 1:
        raise DatasetError(f"data.{split} names {len(chosen)} data sets; calibrate on one")
    if not Path(source).is_dir():
        raise CheckpointError(
            f"{source} is no run and no saved folder here; calibrating changes a model's settings, so save it first"
        )
    folder = local_folder(Path(source))
    _seen_before(chosen[0], training_facts(folder).get("trained_on"), experiment)
    model = SegEarth.from_pretrained(folder).to(device)
    size = usual_batch_size(device, model.config.image_transform.size)
    found = calibrate(model, _open(chosen[0]), size)
    save_settings(
        folder, presence_threshold=found.presence_threshold, score_curve=list(found.score_curve),
        mask_curve=list(model.config.mask_curve),
    )  # fmt: skip
    (slope, offset), threshold = found.score_curve, found.presence_threshold
    changes = [
        (f"presence threshold {threshold:.2f}: gIoU", found.giou),
        (f"score curve {slope:.2f}, {offset:+.2f}: calibration error", found.score_error),
    ]
    if found.masks is not None:
        slope, offset = found.masks.curve
        changes.insert(0, (f"mask curve {slope:.2f}, {offset:+.2f}: IoU of what is there", found.masks.iou))
    lines = [f"{what} {100 * before:.1f} before, {100 * now:.1f} now" for what, (before, now) in changes]
    return "\n".join([*lines, f"written: {folder / CONFIG_FILE}"])


def _seen_before(scored: DatasetConfig, seen: Sequence[str] | None, experiment: ExperimentConfig) -> str | None:
    """Returns a warning, and logs it, where a model may have been trained on the images that it is scored on.

    Args:
        scored: The split.
        seen: What the model is known to have seen; ``None``: the experiment is taken to have trained it.
        experiment: Whose ``data.train`` is then read.
    """
    split = split_label(scored)
    known = [split_label(config) for config in experiment.data.train] if seen is None else list(seen)
    if any(share_images(split, label) for label in known):
        warning = "these images were trained on: the scores say nothing about new ones"
    elif UNKNOWN_SPLITS in known:
        warning = "it is not known which images the weights were trained on; these may be among them"
    else:
        return None
    logger.warning("%s: %s", split, warning)
    return warning


def _which_weights(model_name: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns a note for the report: the folder that was opened, and what training wrote down about its model."""
    if not Path(model_name).is_dir():
        return {}
    note = str(local_folder(model_name))
    if "step" in facts:
        note += f", after {facts['step']} steps"
    if "val_giou" in facts:
        note += f", best in validation: gIoU {100 * facts['val_giou']:.2f} on {facts['val_images']} images"
    return {"weights": note}


def _open(config: DatasetConfig) -> SegmentationDataset:
    return build_dataset(config.name, config.root, config.split, **config.options)
