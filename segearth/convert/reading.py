"""Reads checkpoint files of other projects, without running code from them."""

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
    """Reads all tensors of a folder in the layout of transformers, sharded or not, safetensors or ``.bin``.

    Args:
        folder: The folder. If it has both formats, safetensors is read.

    Returns:
        Tensors by name, memory-mapped from the files where possible.

    Raises:
        CheckpointError: There are no weights, a shard is missing or damaged, a shard and the index disagree, or the
            index names anything but files in this folder.
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
        CheckpointError: The file is missing, damaged, holds no tensors, or names code to be run.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # a damaged header may raise many classes beside safetensors' own
            raise _damaged(path, error) from error
    content = _read_detectron2(path) if path.suffix == ".pkl" else _read_torch(path)
    return _tensors(content, path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file, or returns an empty one if there is no such file.

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
    shard_of = read_json_object(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    for name in shard_of.values():
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(
                f"{index}: its weight_map names {ascii(name)[:100]}, no {' or '.join(SUFFIXES)} file beside it"
            )
    shards, present = sorted(set(shard_of.values())), {entry.name for entry in folder.iterdir()}
    if missing := [name for name in shards if name not in present]:
        raise CheckpointError(f"{index} names {shorten(missing)}, which {folder} lacks; fetch the missing shard")
    state: dict[str, Tensor] = {}
    for shard in shards:
        part = read_file(folder / shard)
        promised = {name for name, own_shard in shard_of.items() if own_shard == shard}
        if part.keys() != promised:
            differing = sorted(part.keys() ^ promised)
            raise CheckpointError(f"{folder / shard} and {index.name} disagree about {shorten(differing)}")
        state |= part
    return state


def _read_torch(path: Path) -> Any:
    try:
        # Files of torch before 1.6 are no zip archives and cannot be memory-mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle raises almost anything
        named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path}: refused, it names {named[1]}; only tensors are read, nothing was run"
        ) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # torch's own message is left out, since it advises to let the file run code.
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
    """Returns the content as a plain dict.

    A file may hold an ``OrderedDict`` and set attributes on it that replace its methods, such as ``items``; that is
    refused.
    """
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
