"""Decides which settings may change when a run is resumed.

A setting that decides what is learned must stay as it was, or the weights would come from no single configuration.
Settings that only decide how fast a run is, what it writes down and what it scores may change.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig, from_dict, to_dict
from segearth.errors import ConfigError

# Keys, and whole sections, that do not decide what is learned. All others must stay as they were.
FREE_TO_CHANGE = (
    "data.val",
    "data.test",
    "data.num_workers",  # batches are the same for any number
    "eval",
    "train.output_dir",  # a folder may be moved
    "train.activation_checkpointing",  # gives the same numbers, computed twice
    "train.val_every",  # and what else decides which model is called the best, see Validation.load_state_dict
    "train.val_images",
    "train.early_stop_patience",
    "train.log_every",
    "train.save_every",
    "train.keep_checkpoints",
    "train.tensorboard",
)


def as_yaml(config: ExperimentConfig) -> str:
    """Returns the whole configuration as YAML, as a run's folder keeps it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def check_same_run(path: Path, config: ExperimentConfig) -> list[str]:
    """Compares a configuration with the one that a run was started with.

    Args:
        path: The run's ``config.yaml``.
        config: What it is to be resumed with.

    Returns:
        One line for each key that differs and may.

    Raises:
        ConfigError: A key differs that decides what is learned; the message names them.
    """
    from omegaconf import OmegaConf

    stored: Any = OmegaConf.to_container(OmegaConf.load(path))
    # A run of an earlier version names no settings that have come since; filled in, they have their defaults, which do
    # what was done then. If it names settings that are gone, reading fails, and they appear below as differences.
    with contextlib.suppress(ConfigError):
        stored = to_dict(from_dict(ExperimentConfig, stored))
    then, now = _flat(stored), _flat(to_dict(config))
    lines = {
        key: f"{key}: {then.get(key)} then, {now.get(key)} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    }
    if decisive := [line for key, line in lines.items() if not _is_free(key)]:
        raise ConfigError(
            f"{path.parent} holds a run of another configuration ({', '.join(decisive[:4])}); "
            "give train.output_dir=… a new folder, or delete this one"
        )
    return list(lines.values())


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in FREE_TO_CHANGE)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:  # an empty section counts as a value, to differ from a filled one
        return {prefix: tree}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}
