"""Checkpoint files of others, read without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segearth.convert.rules import shorten
from segearth.errors import CheckpointError, DatasetError
from segearth.utils.safe_pickle import load_plain_pickle

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SUFFIXES = (".safetensors", ".bin")
WHOLE = ("model.safetensors", "pytorch_model.bin")


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Reads all tensors of a transformers-style folder, sharded or not, safetensors or ``.bin``.

    Args:
        folder: Safetensors are preferred where both are there.

    Returns:
        Tensors by name, backed by the files where possible.

    Raises:
        CheckpointError: No weights, a shard missing or cut short, a shard and its index disagree, or the index names
            something else than files beside it.
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
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # besides its own error, a damaged header raises what its values lead to
            raise _damaged(path, error) from error
    content = _read_detectron2(path) if path.suffix == ".pkl" else _read_torch(path)
    return _tensors(content, path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where there is no file.

    Raises:
        CheckpointError: It is not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again")
    return content


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or Path(place).suffix not in SUFFIXES:
            raise CheckpointError(
                f"{index}: its weight_map names {ascii(place)[:100]}, no {' or '.join(SUFFIXES)} file beside it"
            )
    shards, present = sorted(set(places.values())), {entry.name for entry in folder.iterdir()}
    if missing := [name for name in shards if name not in present]:
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
    except Exception as error:  # a damaged pickle raises almost anything
        named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path}: refused, it names {named[1]}; only tensors are read, nothing was run"
        ) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # torch's own message on unpickling advises to let the file run code.
    reason = "" if isinstance(error, pickle.UnpicklingError) else str(error).strip().split("\n")[0][:200]
    return CheckpointError(f"{path} is damaged or cut short ({reason or type(error).__name__}); fetch it again")


def _read_detectron2(path: Path) -> Any:
    try:
        return load_plain_pickle(path)
    except DatasetError as error:
        raise CheckpointError(str(error)) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    content = _entries(content, path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = _entries(content[key], path)
    if not content:
        raise CheckpointError(f"{path} holds no tensors by name")
    return {str(name): _tensor(value, str(name), path) for name, value in content.items()}


def _entries(content: Any, path: Path) -> dict[Any, Any]:
    """Returns a plain dict of what may be an ordered one; in a file, attributes of that may hide its methods."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no tensors by name")
    if hidden := getattr(content, "__dict__", {}).keys() & set(dir(dict)):
        raise CheckpointError(f"{path}: its OrderedDict has attributes in place of {shorten(sorted(hidden))}")
    return dict(content)


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {name} is an array of {value.dtype}, which no tensor holds") from error
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: {name} is a {type(value).__name__}, not a tensor")
    if value.is_meta or value.layout is not torch.strided:
        raise CheckpointError(f"{path}: {name} is a sparse tensor or one without data; save it as a plain one")
    return value
