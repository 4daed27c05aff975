"""A run's checkpoints and models on disk. A folder has its final name only when everything in it is written.

A run's folder holds ``config.yaml``, ``metrics.jsonl``, ``checkpoints/step-NNNNNN/`` (to resume from), ``model/`` and
``model_best/`` (to use).
"""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segearth.errors import CheckpointError
from segearth.models.pretrained import FORMAT, FORMAT_KEY, LAST, TRAINING_FILE, save_folder, training_facts
from segearth.models.segearth import SegEarth
from segearth.training.masters import MasterWeights, WeightAverage
from segearth.training.optimisation import merged_state_dict
from segearth.utils.files import write_text
from segearth.utils.processes import Process, wait_for_all
from segearth.utils.text import first_line

logger = logging.getLogger(__name__)
COMPLETE = "complete.json"  # written last, so a folder without it is incomplete
PARTIAL = ".partial"  # how the name of a folder ends while it is being written
AVERAGE = "average.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint under ``folder/checkpoints``, or ``None``."""
    whole = _whole_checkpoints(folder / "checkpoints")
    return whole[-1] if whole else None


def _whole_checkpoints(root: Path) -> list[Path]:
    """Returns the complete checkpoints, oldest first. A folder that still has its temporary name does not count."""
    whole = [p for p in root.glob("step-*") if p.suffix != PARTIAL and (p / COMPLETE).is_file()]
    return sorted(whole, key=checkpoint_step)  # by name, step 1000000 would come before step 999999


def checkpoint_step(path: Path) -> int:
    """Returns how many optimiser steps were done when a checkpoint was written."""
    return int(checkpoint_facts(path)["step"])


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint keeps beside its tensors: ``step``, ``world_size``, ``format`` and the given facts."""
    return json.loads((path / COMPLETE).read_text(encoding="utf-8"))


def save_checkpoint(
    engine: Any, average: WeightAverage | None, folder: Path, step: int, keep: int, process: Process,
    facts: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Writes a checkpoint under a temporary name, renames it when whole, and removes older ones.

    Args:
        engine: The DeepSpeed engine.
        average: Averaged weights, if kept.
        folder: The run's folder.
        step: Optimiser steps done.
        keep: Checkpoints left, at least 1.
        process: This process.
        facts: What else a resumed run needs to know, see :func:`checkpoint_facts`.

    Raises:
        CheckpointError: The disk is full or not writable; the previous checkpoint is untouched.
    """
    root = folder / "checkpoints"
    final = root / f"step-{step:06d}"
    partial = root / (final.name + PARTIAL)
    try:
        if process.is_main:
            for leftover in root.glob(f"step-*{PARTIAL}"):  # of a run that was killed; removed, for the space they take
                shutil.rmtree(leftover, ignore_errors=True)
            root.mkdir(parents=True, exist_ok=True)
        wait_for_all()
        engine.save_checkpoint(str(root), tag=partial.name, save_latest=False)
        wait_for_all()  # each process has written a file of its own into the folder
        averaged = None if average is None else average.state_dict(keep=process.is_main)
        if process.is_main:
            if averaged is not None:
                torch.save(averaged, partial / AVERAGE)
            marker = {**(facts or {}), "step": step, "world_size": process.world_size, FORMAT_KEY: FORMAT}
            write_text(partial / COMPLETE, json.dumps(marker) + "\n")
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            _remove_old(root, keep)
        wait_for_all()
    except (OSError, RuntimeError) as error:
        if process.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        previous = latest_checkpoint(folder)
        raise CheckpointError(
            f"could not save step {step} under {root}: {first_line(error)}; {previous or 'no earlier checkpoint'} is "
            "untouched: free some space and run the same command again to go on from there"
        ) from error
    return final


def _remove_old(root: Path, keep: int) -> None:
    """Removes all but the ``keep`` newest complete checkpoints."""
    newest_first = _whole_checkpoints(root)[::-1]
    kept = newest_first[:keep]
    for path in root.glob("step-*"):
        if path not in kept:
            shutil.rmtree(path)


def load_checkpoint(engine: Any, average: WeightAverage | None, path: Path, process: Process) -> None:
    """Loads a checkpoint into an engine and an average.

    Args:
        engine: The DeepSpeed engine.
        average: Averaged weights, if kept.
        path: The checkpoint.
        process: This process.

    Raises:
        CheckpointError: It was written by another number of processes or by a version with other names, or it is
            damaged.
    """
    facts = checkpoint_facts(path)
    written_by, found = facts["world_size"], facts.get(FORMAT_KEY, 1)
    from_its_weights = f"model.pretrained={path.parent.parent / LAST} train.output_dir=… a new folder"
    if written_by != process.world_size:
        raise CheckpointError(
            f"{path} was written by {written_by} processes, not {process.world_size}; resume with NGPU={written_by}, "
            f"or start anew from its weights: {from_its_weights}"
        )
    if found != FORMAT:
        # A saved model's weights have names, which can be changed to today's. AdamW's moments have none, only the order
        # of the weights. DeepSpeed would fail on them, and the checkpoint would be reported as damaged.
        when = "an earlier" if found < FORMAT else "a later"
        raise CheckpointError(f"{path} was written by {when} version; start from its weights: {from_its_weights}")
    try:
        loaded, _ = engine.load_checkpoint(str(path.parent), tag=path.name)
        if average is not None:
            average.load_state_dict(torch.load(path / AVERAGE, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{path} is damaged ({reason}); delete it to go on from the one before") from error
    if loaded is None:
        raise CheckpointError(f"{path} holds no training state; delete it to go on from the one before")


def exported_step(model: Path) -> int | None:
    """Returns for how many steps a model that :func:`export_model` wrote was trained; ``None`` if there is none."""
    step = training_facts(model).get("step")
    return step if isinstance(step, int) else None


def export_model(
    masters: MasterWeights, average: WeightAverage | None, model: SegEarth, final: Path, step: int, process: Process,
    facts: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes a folder that ``SegEarth.from_pretrained`` opens, in fp32, with adapters merged into their layers.

    Where averaged weights are kept, these are written.

    Args:
        masters: The trained weights.
        average: Averaged weights, if kept.
        model: What they are the weights of.
        final: The folder to write. An older one is replaced when the new one is whole.
        step: Optimiser steps done; kept beside the weights.
        process: All processes call this together; the main one writes.
        facts: What else is known of these weights, such as their score; kept beside them.

    Raises:
        CheckpointError: The disk is full or not writable; an older folder is untouched.
    """
    with contextlib.nullcontext() if average is None else average.as_masters():
        state = masters.state_dict(keep=process.is_main)
        if process.is_main:
            _write_model(model, merged_state_dict(model, state), final, {**(facts or {}), "step": step})
    wait_for_all()


def _write_model(model: SegEarth, state: dict[str, torch.Tensor], final: Path, facts: Mapping[str, Any]) -> None:
    fresh, old = (final.with_name(f".{final.name}{suffix}") for suffix in (PARTIAL, ".old"))
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        save_folder(model, fresh, state)
        write_text(fresh / TRAINING_FILE, json.dumps(facts) + "\n")
        if final.exists():
            final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        if old.exists() and not final.exists():
            old.rename(final)
        shutil.rmtree(fresh, ignore_errors=True)
        raise CheckpointError(
            f"could not write {final}: {first_line(error)}; free some space and run the same command again: it goes "
            f"on from the checkpoint of step {facts['step']}"
        ) from error
