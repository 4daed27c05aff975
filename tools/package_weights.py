"""Puts the weights of a trained model into the package, in half precision, and prints what its card must say.

    python tools/package_weights.py runs/segearth_tiny segearth_tiny

What users get is then scored by `segearth eval aerial_mini --model segearth_tiny`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from segearth.config import UNKNOWN_SPLITS
from segearth.errors import CheckpointError
from segearth.models.pretrained import TRAINING_FILE, WEIGHTS_FILE, save_folder, training_facts
from segearth.utils.files import atomic_folder, sha256_of, write_text
from segearth.zoo.cards import get_card
from segearth.zoo.opening import PACKAGED_WEIGHTS, open_model

MOST_BYTES = 25_000_000  # more would make the package slow to fetch for those who never use the weights


def main() -> None:
    """Writes the folder and prints the card's fields."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="training run or saved folder")
    parser.add_argument("name", help="the zoo's name for it")
    options = parser.parse_args()
    get_card(options.name)
    path = package(options.run, PACKAGED_WEIGHTS / options.name)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"sha256={sha256_of(path)!r}, trained_on={tuple(training_facts(path.parent)['trained_on'])}")


def package(run: str | Path, folder: Path) -> Path:
    """Writes a model's weights as fp16, with what is known of its training; returns the file of the weights.

    Raises:
        CheckpointError: The model does not say which splits it has seen, a weight is too large for fp16, or the file
            would be larger than a package should be.
    """
    facts = training_facts(run)
    if not facts.get("trained_on") or UNKNOWN_SPLITS in facts["trained_on"]:
        raise CheckpointError(f"{run} does not say which splits it was trained on; train it with this version")
    model = open_model(str(run))
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{name} does not fit into fp16; package it in fp32")
    made = folder.with_name(f".{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    with atomic_folder(made) as temporary:
        save_folder(model, temporary, state)
        size = (temporary / WEIGHTS_FILE).stat().st_size
        if size > MOST_BYTES:
            raise CheckpointError(f"the weights take {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
        write_text(temporary / TRAINING_FILE, json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)  # the old weights are deleted only now that the new ones are complete
    made.rename(folder)
    return folder / WEIGHTS_FILE


if __name__ == "__main__":
    main()
