"""A model as files: saving it in a folder, and finding, reading and checking such a folder again.

:meth:`segearth.models.segearth.SegEarth.save_pretrained` writes such a folder; users open one with ``segearth.load``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segearth import __version__
from segearth.config import ModelConfig, from_dict, to_dict
from segearth.errors import CheckpointError
from segearth.text.known_words import FILE as KNOWN_WORDS_FILE
from segearth.text.known_words import KnownWords, load_known_words
from segearth.utils.files import atomic_path, write_text
from segearth.utils.hub import download, find_source

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
BESIDE = "."  # what a saved config calls its tokenizer: the one in the config's own folder
BEST, LAST = "model_best", "model"  # in a training run's folder: by its validation, and after its last step
TRAINING_FILE = "training.json"  # beside trained weights: how many steps, on which splits, and their score
KNOWN_WORDS = "known_words"  # key in config.json: how many words are in the list beside it
RANDOM = "random_parts"  # key in the metadata of the weights' file: the parts that are still random

# A number in a folder's config.json that says which names its files use; folders without one are of format 1. Raise it
# when a part of the model is renamed, and add a row below. Without that row nobody could open the models that they
# saved before. A new setting needs neither a number nor a row: its default must do what was done before it existed.
FORMAT = 2
FORMAT_KEY = "format"
RENAMED_PARTS: dict[int, dict[str, str]] = {  # by the format that still has the old name: old name to new
    1: {"place_words": "bag_of_words"},
}


def save_folder(model: SegEarth, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Writes ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Args:
        model: What is saved.
        folder: Made if missing.
        state: Weights to write in place of the model's own, under its parameter names.
    """
    from safetensors.torch import save_file

    state = state or model.state_dict()
    names = [{name for name, _ in model.named_parameters(remove_duplicate=d)} for d in (False, True)]
    tied = names[0] - names[1]  # further names of a parameter, which is stored under its first name alone
    tensors: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name in [name for name in state if name not in tied]:
        tensor = state[name].contiguous().cpu()
        # safetensors refuses tensors that share memory, so one that lies where another does is copied.
        tensors[name] = tensor.clone() if tensor.data_ptr() in addresses else tensor
        addresses.add(tensors[name].data_ptr())
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt", RANDOM: ",".join(sorted(model.random_parts))})
    model.prompt_encoder.tokenizer.save_pretrained(folder)
    (folder / KNOWN_WORDS_FILE).unlink(missing_ok=True)  # an older model's, which this one would obey
    if model.known_words:
        model.known_words.save(folder)
    described = to_dict(model.config)
    # The language model is described in full, so that a saved folder opens without the hub it once came from.
    described["language_model"] |= model.language_model.describe()
    # The tokenizer lies beside the weights now. Where it came from may be a path on this machine, which does not exist
    # on another and is nobody else's business.
    described["text"]["tokenizer"] = BESIDE
    facts = {"library": "segearth", "version": __version__, FORMAT_KEY: FORMAT, "model": described}
    if model.known_words:
        facts[KNOWN_WORDS] = len(model.known_words)
    write_text(folder / CONFIG_FILE, json.dumps(facts, indent=2) + "\n")


def save_settings(folder: Path, **settings: Any) -> None:
    """Changes fields of a saved model's configuration that its weights do not depend on, such as a threshold.

    Args:
        folder: With the model's ``config.json``.
        settings: Fields of :class:`~segearth.config.ModelConfig` and their values.
    """
    facts = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    facts["model"] |= settings
    write_text(folder / CONFIG_FILE, json.dumps(facts, indent=2) + "\n")


def read_config(folder: Path) -> ModelConfig:
    """Reads the model's configuration from a saved folder, whose tokenizer it then names.

    Raises:
        CheckpointError: The file is missing, is not one of this library, describes no model, is of a later version, or
            names weights that lie elsewhere.
    """
    facts, path = _saved_facts(folder), folder / CONFIG_FILE
    config = from_dict(ModelConfig, facts["model"], origin=str(path))
    if config.language_model.pretrained:  # a file must not send anyone to the hub: only what the user typed may
        raise CheckpointError(
            f"{path}: language_model.pretrained is {config.language_model.pretrained!r}, but a saved folder holds its "
            "language model itself; save the model again"
        )
    config.text.tokenizer = str(folder)
    return config


def saved_known_words(folder: Path) -> KnownWords | None:
    """Reads the words that a saved model has met; ``None`` where it takes every word.

    Raises:
        CheckpointError: The list is damaged, or is not the one that was saved with the model.
    """
    words, number = load_known_words(folder), _saved_facts(folder).get(KNOWN_WORDS)
    found = None if words is None else len(words)
    if found != number:
        raise CheckpointError(
            f"{folder} was saved with {number or 'no'} known words, and its {KNOWN_WORDS_FILE} holds "
            f"{found or 'none'}; fetch the folder again"
        )
    return words


def _saved_facts(folder: Path) -> dict[str, Any]:
    """Returns what ``config.json`` holds, once it is known that this library wrote it in a format that can be read."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}; give a folder that save_pretrained or training wrote")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch the file again") from error
    if not isinstance(facts, dict) or facts.get("library") != "segearth":
        raise CheckpointError(
            f"{path} was not written by segearth; `segearth zoo convert {folder} NEW` makes a folder that opens of a "
            "published SegEarth-R1"
        )
    found = facts.get(FORMAT_KEY, 1)
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(
            f"{path} was saved in format {found} by segearth {facts.get('version', 'of an unknown version')}, and "
            f"segearth {__version__} reads formats up to {FORMAT}; install a newer one: `pip install "
            "--upgrade segearth`"
        )
    if not isinstance(facts.get("model"), dict):
        raise CheckpointError(f'{path} describes no model, its "model" is missing; fetch or save the folder again')
    return facts


def _new_names(folder: Path) -> dict[str, str]:
    """Returns today's name for each part that has another one in a folder's format."""
    first = _saved_facts(folder).get(FORMAT_KEY, 1)
    names: dict[str, str] = {}
    for step in range(first, FORMAT):
        renamed = RENAMED_PARTS.get(step, {})
        names = {old: renamed.get(new, new) for old, new in names.items()} | renamed  # a part may be renamed again
    return names


def load_folder(model: nn.Module, folder: Path, absent: Sequence[str] = ()) -> set[str]:
    """Loads the weights of a saved folder, whichever version of this library wrote it; see :func:`load_weights`.

    Raises:
        CheckpointError: As :func:`load_weights`, or the folder is of a later version.
    """
    return load_weights(model, folder / WEIGHTS_FILE, absent, _new_names(folder))


def with_new_names(state: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Names the weights of a saved folder as this version does, whichever version wrote them.

    Args:
        state: What the folder's file holds.
        folder: With its ``config.json``.

    Raises:
        CheckpointError: The folder is of a later version.
    """
    new_names = _new_names(folder)
    return {_renamed(name, new_names): tensor for name, tensor in state.items()}


def local_folder(model_id: str | Path, **options: Any) -> Path:
    """Returns the folder of a saved model: a folder here, the best or else the last model of a training run's folder,
    or a download from the hub.

    Args:
        model_id: Folder or hub id (a ``Path`` is a folder); :func:`segearth.utils.hub.find_source` tells which.
        options: ``revision``, ``cache_dir``, ``force_download``, ``local_files_only`` and ``token`` for the hub.

    Raises:
        CheckpointError: Neither a folder nor on the hub.
    """
    source = find_source(model_id)
    if isinstance(source, Path):
        inside = (source / name for name in (BEST, LAST))
        return next((path for path in inside if (path / CONFIG_FILE).is_file()), source)
    keys = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    return download(source, **{k: options[k] for k in keys if k in options})


def training_facts(source: str | Path) -> dict[str, Any]:
    """Returns what training noted beside a model in a folder: its step, its splits, its score if it was validated.

    Nothing where the model is not by training, is by an earlier version, or is not in a folder.
    """
    if not Path(source).is_dir():
        return {}
    try:
        facts = json.loads((local_folder(Path(source)) / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def load_weights(
    model: nn.Module, path: Path, absent: Sequence[str] = (), new_names: Mapping[str, str] | None = None
) -> set[str]:
    """Loads safetensors strictly: every key must match in name and shape.

    Tensors are copied one at a time, so that memory holds the weights once. Of names that share one tensor, the file
    holds one.

    Args:
        model: Its tensors are overwritten.
        path: The file.
        absent: Parts of the model, by name, that the file does not hold; they are left as they are.
        new_names: The model's name for each part that has another one in the file.

    Returns:
        Parts of the model that were never trained: those the file says it saved as they started, and ``absent`` ones.

    Raises:
        CheckpointError: The file is missing or damaged, or its keys are not the model's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    names: dict[int, list[str]] = {}
    own = model.state_dict(keep_vars=True)
    for name, tensor in own.items():
        names.setdefault(id(tensor), []).append(name)
    try:
        with safe_open(path, "pt") as file:
            stored = {_renamed(name, new_names or {}): name for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(file.get_slice(stored[name]).get_shape()) for name in stored}
            random = {_renamed(part, new_names or {}) for part in (file.metadata() or {}).get(RANDOM, "").split(",")}
        elsewhere = tuple(f"{part}." for part in absent)
        found = {
            next((name for name in tied if name in shapes), tied[0])
            for tied in names.values()
            if not tied[0].startswith(elsewhere)
        }
        _check_fit(shapes, {name: tuple(own[name].shape) for name in found}, path)
        with torch.no_grad():
            for name in found:
                # Opened again for each tensor: what was read of a mapped file stays in memory until it is closed.
                with safe_open(path, "pt") as file:
                    own[name].copy_(file.get_tensor(stored[name]))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch or save it again") from error
    return random - {""} | {part.partition(".")[0] for part in absent}


def _renamed(name: str, new_names: Mapping[str, str]) -> str:
    """A weight's or a part's name, with the part that it begins with renamed: ``b.weight`` for ``a.weight``."""
    part, dot, rest = name.partition(".")
    return new_names.get(part, part) + dot + rest


def _check_fit(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], path: Path) -> None:
    lines = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"unknown {name}" for name in sorted(found.keys() - expected.keys())]
    lines += [
        f"{name} is {found[name]} where the model has {expected[name]}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    if lines:
        more = f" and {len(lines) - 6} more" if len(lines) > 6 else ""
        raise CheckpointError(f"{path} does not fit this model: {', '.join(lines[:6])}{more}")


class WithoutRandomStart(TorchFunctionMode):
    """Inside this context tensors are filled with zeros instead of random numbers: weights that follow replace them.

    Drawing random numbers takes most of the time of building a large model. Everything else is computed as usual.
    PyTorch's meta device would draw nothing either, but some buffers are computed when a module is built and are in no
    file, such as the frequencies of rotary positions and the table of relative positions. On the meta device they would
    get no values.
    """

    # Compared by name, since transformers puts functions of its own, with the same names, in place of torch.nn.init's.
    DRAWS = frozenset({"uniform_", "normal_", "kaiming_uniform_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls every function but those that fill a tensor with random numbers."""
        if getattr(func, "__name__", "") not in self.DRAWS:
            return func(*args, **(kwargs or {}))
        tensor = args[0] if args else kwargs["tensor"]  # functions of torch.nn.init are called by keyword
        with torch.no_grad():
            # Zeros, and not whatever is in memory: a truncated normal is drawn again until its numbers are in range.
            return tensor.zero_()
