"""Which changes of configuration a run in the same folder can be resumed with.

Everything that decides what is learned must be as it was, or the resumed run would be neither the old one nor a new
one. What only decides how fast it goes, what is written down and what is scored may change.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from segearth.config import ExperimentConfig, from_dict, to_dict
from segearth.errors import ConfigError

# Keys, and whole branches, that decide nothing of what is learned. A key that is not named here matters.
FREE_TO_CHANGE = (
    "data.val",
    "data.test",
    "data.num_workers",  # batches are the same for any number
    "eval",
    "train.output_dir",  # a folder may be moved
    "train.activation_checkpointing",  # the same numbers, computed twice
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
    # An earlier version did not write settings that have come since: they had the defaults' effect. Where it wrote some
    # that are gone, they are named below.
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
    if not isinstance(tree, dict) or not tree:  # an empty branch is a value too: it may have been filled since
        return {prefix: tree}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}
