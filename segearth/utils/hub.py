"""Tells whether a name that the user typed is a local folder or a model of the Hugging Face hub.

Anyone can open an account on the hub and give a model any name. If the name of a local folder that does not exist yet,
such as ``runs/mine``, were looked up on the hub, a stranger's weights could be loaded without anybody noticing. So what
looks like a path is never taken for a hub id.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segearth.errors import CheckpointError
from segearth.utils.text import first_line

PREFIX = "hf:"  # what follows this is always taken for a hub id
# Common names of local folders. "models/best" is far more often a folder that is missing or misspelt than a model of a
# hub account called "models"; whoever means that account writes "hf:models/best".
FOLDER_NAMES = frozenset({
    "build", "cache", "checkpoint", "checkpoints", "ckpt", "ckpts", "config", "configs", "converted", "data",
    "datasets", "dist", "download", "downloads", "exp", "experiment", "experiments", "export", "exports", "log",
    "logs", "model", "models", "out", "output", "outputs", "pretrained", "reports", "result", "results", "run", "runs",
    "save", "saved", "temp", "test", "tests", "tmp", "train", "trained", "training", "weights", "work", "workspace",
})  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # what the hub allows for an owner and for a model
_FILE = re.compile(r"\.(bin|ckpt|gz|json|jsonl|onnx|pkl|pt|pth|safetensors|tar|toml|txt|yaml|yml|zip)$", re.I)


def find_source(source: str | Path, what: str = "model") -> Path | str:
    """Tells a local folder from a hub id.

    A folder that exists is taken first. Otherwise anything after ``hf:`` is a hub id, and so is ``owner/name``, unless
    it looks like a path: it starts with ``/``, ``.`` or ``~``, has no slash or more than one, has a backslash, ends
    like a file, or its first part is an existing folder or one of :data:`FOLDER_NAMES`.

    Args:
        source: What the user wrote. A ``Path`` is always a folder, never a hub id.
        what: What the folder should hold, for the error message.

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
    """Whether a text that is not an existing folder is a hub id, by the rules of :func:`find_source`."""
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

    try:
        return Path(snapshot_download(hub_id, **options))
    except Exception as error:  # the client, its HTTP library and the network raise unrelated classes
        raise CheckpointError(f"{hub_id!r} is no folder here and no model on the hub: {first_line(error)}") from error


def _explicit(text: str, what: str) -> str:
    name = text.removeprefix(PREFIX)
    parts = name.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise CheckpointError(f"{what} {text!r}: after {PREFIX} belongs a hub id such as owner/name")
    if Path(name).is_dir():  # transformers and huggingface_hub prefer a local folder to a hub id of the same name
        raise CheckpointError(f"{what} {text!r}: a folder {name} lies here and would be read instead; move it away")
    return name


def _hint(text: str) -> str:
    """Returns the end of the error message: how to write the name if the hub's model was meant."""
    parts = text.split("/")
    if len(parts) <= 2 and all(_NAME.fullmatch(part) for part in parts):
        example = text if len(parts) == 2 else f"OWNER/{text}"
        return f"; check its name, or write {PREFIX}{example} if you mean the hub's model of that name"
    return "; check its name"
