"""Training state on disk: a checkpoint is whole or it is not there.

A run's folder holds ``config.yaml``, ``metrics.jsonl``, ``checkpoints/step-NNNNNN/`` (to resume from) and ``model/``
(to use).
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from segearth.errors import CheckpointError
from segearth.models.segearth import SegEarth
from segearth.training.optimisation import merged_state_dict
from segearth.utils.files import write_text
from segearth.utils.processes import Process, wait_for_all

logger = logging.getLogger(__name__)
COMPLETE = "complete.json"  # written last: a folder without it was cut off
PARTIAL = ".partial"


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint under ``folder/checkpoints``, or ``None``."""
    whole = _whole_checkpoints(folder / "checkpoints")
    return whole[-1] if whole else None


def _whole_checkpoints(root: Path) -> list[Path]:
    """Oldest first. A folder under its temporary name is never whole, even where only the renaming was cut off."""
    whole = [p for p in root.glob("step-*") if p.suffix != PARTIAL and (p / COMPLETE).is_file()]
    return sorted(whole, key=checkpoint_step)  # by name, step 1000000 would come before step 999999


def checkpoint_step(path: Path) -> int:
    """Optimiser steps done when a checkpoint was written."""
    return int(json.loads((path / COMPLETE).read_text(encoding="utf-8"))["step"])


def save_checkpoint(
    engine: Any, average: dict[str, torch.Tensor] | None, folder: Path, step: int, keep: int, process: Process
) -> Path:
    """Writes a checkpoint under a temporary name, renames it when whole, and removes older ones.

    Args:
        engine: The DeepSpeed engine.
        average: Averaged weights, if kept.
        folder: The run's folder.
        step: Optimiser steps done.
        keep: Checkpoints left, at least 1.
        process: This process.

    Raises:
        CheckpointError: The disk is full or not writable; the previous checkpoint is untouched.
    """
    root = folder / "checkpoints"
    final = root / f"step-{step:06d}"
    partial = root / (final.name + PARTIAL)
    try:
        if process.is_main:
            for leftover in root.glob(f"step-*{PARTIAL}"):  # of a run that was killed; their space may be needed now
                shutil.rmtree(leftover, ignore_errors=True)
            root.mkdir(parents=True, exist_ok=True)
        wait_for_all()
        engine.save_checkpoint(str(root), tag=partial.name, save_latest=False)
        if process.is_main:
            if average is not None:
                torch.save(average, partial / "average.pt")
            write_text(partial / COMPLETE, json.dumps({"step": step, "world_size": process.world_size}) + "\n")
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            _remove_old(root, keep)
        wait_for_all()
    except (OSError, RuntimeError) as error:
        if process.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        previous = latest_checkpoint(folder)
        raise CheckpointError(
            f"could not save step {step} under {root}: {_first_line(error)}; {previous or 'no earlier checkpoint'} is "
            "untouched: free some space and run the same command again to go on from there"
        ) from error
    return final


def _remove_old(root: Path, keep: int) -> None:
    """Leaves the ``keep`` newest whole checkpoints; what is not whole was cut off, and counts as none."""
    kept = _whole_checkpoints(root)[-keep:]
    for path in root.glob("step-*"):
        if path not in kept:
            shutil.rmtree(path)


def load_checkpoint(engine: Any, path: Path, process: Process) -> dict[str, torch.Tensor] | None:
    """Loads a checkpoint into an engine; returns the averaged weights if it holds some.

    Raises:
        CheckpointError: It was written by another number of processes, or it is damaged.
    """
    written_by = json.loads((path / COMPLETE).read_text(encoding="utf-8"))["world_size"]
    if written_by != process.world_size:
        raise CheckpointError(
            f"{path} was written by {written_by} processes, not {process.world_size}; resume with NGPU={written_by}"
        )
    try:
        loaded, _ = engine.load_checkpoint(str(path.parent), tag=path.name)
        average = path / "average.pt"
        weights = torch.load(average, map_location=process.device, weights_only=True) if average.is_file() else None
    except (OSError, RuntimeError, EOFError, KeyError) as error:
        reason = _first_line(error)
        raise CheckpointError(f"{path} is damaged ({reason}); delete it to go on from the one before") from error
    if loaded is None:
        raise CheckpointError(f"{path} holds no training state; delete it to go on from the one before")
    return weights


def export_model(model: SegEarth, average: dict[str, torch.Tensor] | None, folder: Path, process: Process) -> None:
    """Writes ``folder/model``, which ``SegEarth.from_pretrained`` opens; adapters are merged, averages preferred.

    Args:
        model: The trained model.
        average: Averaged weights by parameter name, if kept.
        folder: The run's folder.
        process: Only the main process writes.

    Raises:
        CheckpointError: The disk is full or not writable; an earlier ``model`` is untouched.
    """
    with _gathered(model):
        if process.is_main:
            if average is not None:
                live = {name: p.data for name, p in model.named_parameters() if name in average}
                kept = {name: value.clone() for name, value in live.items()}
                for name, value in average.items():
                    live[name].copy_(value)
            try:
                _write_model(model, folder)
            finally:
                if average is not None:
                    for name, value in kept.items():
                        live[name].copy_(value)
    wait_for_all()


def _write_model(model: SegEarth, folder: Path) -> None:
    final, fresh, old = folder / "model", folder / ".model.partial", folder / ".model.old"
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        model.save_folder(fresh, merged_state_dict(model))
        if final.exists():
            final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        reason = _first_line(error)
        raise CheckpointError(f"could not write {final}: {reason}; free some space and run again") from error


def _gathered(model: torch.nn.Module) -> Any:
    """Under ZeRO-3 a rank holds only its part of each parameter: bring them together for a moment."""
    import contextlib

    sharded = [p for p in model.parameters() if hasattr(p, "ds_id")]
    if not sharded:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(sharded)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
