"""Where a model is read from: a folder here, or a model of the Hugging Face hub that the user typed as one.

Anyone may open an account on the hub and give a model any name. So a folder that is not there yet, such as the output
of a training that has not run, must never be looked for on the hub: the answer would be a stranger's weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segearth.errors import CheckpointError

PREFIX = "hf:"  # says outright that what follows is a hub id
# First parts that people give to folders of their own. "models/best" is far more often a folder that is missing, or
# spelled wrongly, than a model of a hub account called "models"; whoever means that account writes "hf:models/best".
FOLDER_NAMES = frozenset({
    "build", "cache", "checkpoint", "checkpoints", "ckpt", "ckpts", "config", "configs", "converted", "data",
    "datasets", "dist", "download", "downloads", "exp", "experiment", "experiments", "export", "exports", "log",
    "logs", "model", "models", "out", "output", "outputs", "pretrained", "reports", "result", "results", "run", "runs",
    "save", "saved", "temp", "test", "tests", "tmp", "train", "trained", "training", "weights", "work", "workspace",
})  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # what the hub allows for an owner and for a model
_FILE = re.compile(r"\.(bin|ckpt|gz|json|jsonl|onnx|pkl|pt|pth|safetensors|tar|toml|txt|yaml|yml|zip)$", re.I)


def find_source(source: str | Path, what: str = "model") -> Path | str:
    """Tells a folder here from a hub id.

    A folder that exists comes first. Of the other texts a hub id is ``owner/name``, or anything after ``hf:``, and
    never what looks like a path: one that starts with ``/``, ``.`` or ``~``, has no slash or more than one, a
    backslash, the ending of a file, or a first part that is a folder here or one of :data:`FOLDER_NAMES`.

    Args:
        source: What the user wrote; a ``Path`` is a folder, whatever it looks like.
        what: What is looked for, named in the error.

    Returns:
        The folder as a path, or the hub id as a string without its prefix.

    Raises:
        CheckpointError: There is no such folder, and the text is not a hub id.
    """
    text = str(source)
    if isinstance(source, str) and text.startswith(PREFIX):
        return _explicit(text, what)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{what} {text!r} is a file; give the folder that it lies in")
    if isinstance(source, Path) or not is_hub_id(text):
        raise CheckpointError(f"no {what} at {text!r}: there is no such folder here{_hint(text)}")
    return text


def is_hub_id(text: str) -> bool:
    """Whether a text that is no folder here may be asked of the hub: see :func:`find_source`."""
    parts = text.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts) or _FILE.search(text):
        return False
    return parts[0].lower() not in FOLDER_NAMES and not Path(parts[0]).exists()


def download(hub_id: str, **options: Any) -> Path:
    """Fetches a model of the hub into the hub client's own cache; what lies there already is not fetched again.

    Args:
        hub_id: ``owner/name``, as :func:`find_source` returns it.
        options: For ``huggingface_hub.snapshot_download``, such as ``revision`` or ``allow_patterns``.

    Returns:
        The folder of one commit, whose name is that commit's.

    Raises:
        CheckpointError: The hub has no such model or revision, does not let this user read it, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{hub_id!r} is no folder here and no model on the hub: {first}") from error


def _explicit(text: str, what: str) -> str:
    name = text.removeprefix(PREFIX)
    parts = name.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise CheckpointError(f"{what} {text!r}: after {PREFIX} belongs a hub id such as owner/name")
    if Path(name).is_dir():  # the libraries that ask the hub would take the folder, whatever was meant
        raise CheckpointError(f"{what} {text!r}: a folder {name} lies here and would be read instead; move it away")
    return name


def _hint(text: str) -> str:
    """Ends the error with the way to say what the user may have meant."""
    parts = text.split("/")
    if len(parts) <= 2 and all(_NAME.fullmatch(part) for part in parts):
        example = text if len(parts) == 2 else f"OWNER/{text}"
        return f"; check its name, or write {PREFIX}{example} if you mean the hub's model of that name"
    return "; check its name"
