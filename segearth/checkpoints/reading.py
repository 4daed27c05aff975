"""Checkpoint files of others, read without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segearth.checkpoints.rules import shorten
from segearth.errors import CheckpointError, DatasetError
from segearth.utils.safe_pickle import load_plain_pickle

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Reads all tensors of a transformers-style folder, sharded or not, safetensors or ``.bin``.

    Args:
        folder: Safetensors are preferred where both are there.

    Returns:
        Tensors by name, backed by the files where possible.

    Raises:
        CheckpointError: No weights, a shard missing or cut short, or a shard and its index disagree.
    """
    for index, whole in zip(INDEXES, WHOLE, strict=True):
        if (folder / index).is_file():
            return _read_shards(folder, folder / index)
        if (folder / whole).is_file():
            return read_file(folder / whole)
    raise CheckpointError(f"{folder} holds no weights; expected one of {', '.join((*WHOLE, *INDEXES))}")


def read_file(path: Path) -> dict[str, Tensor]:
    """Reads one file of tensors.

    Args:
        path: ``.safetensors``; a ``.pkl`` of NumPy arrays as detectron2 writes it; or a torch file. A state dict may
            lie under ``"model"`` or ``"state_dict"``.

    Raises:
        CheckpointError: Missing, damaged, holding no tensors, or naming code to be run.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch it again") from error
    content = _read_detectron2(path) if path.suffix == ".pkl" else _read_torch(path)
    return _tensors(content, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where there is no file.

    Raises:
        CheckpointError: It is not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again")
    return content


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    shards = sorted(set(places.values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise CheckpointError(f"{index} names {shorten(missing)}, which {folder} lacks; fetch the missing shard")
    state: dict[str, Tensor] = {}
    for shard in shards:
        part = read_file(folder / shard)
        promised = {name for name, place in places.items() if place == shard}
        if part.keys() != promised:
            differing = sorted(part.keys() ^ promised)
            raise CheckpointError(f"{folder / shard} and {index.name} disagree about {shorten(differing)}")
        state |= part
    return state


def _read_torch(path: Path) -> Any:
    try:
        # The format before torch 1.6, which is no zip archive, cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise CheckpointError(f"{path} is damaged or cut short; fetch it again") from error
        raise CheckpointError(
            f"{path}: refused, it names {named[1]}; only tensors are read, nothing was run"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or cut short ({first}); fetch it again") from error


def _read_detectron2(path: Path) -> Any:
    try:
        return load_plain_pickle(path)
    except DatasetError as error:
        raise CheckpointError(str(error)) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no tensors by name")
    state = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(value).__name__}, not a tensor")
        state[str(name)] = value
    return state
