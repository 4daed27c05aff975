"""What several readers need: finding the folder that holds a layout, listing files by id, reading text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segearth.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def find_root(root: str | Path, markers: Iterable[str], inside: Iterable[str]) -> Path:
    """Returns the folder that holds a data set's files. Users may also name a folder above it, as it was unpacked.

    Args:
        root: The folder that the user named.
        markers: Names of files or folders; the right folder holds at least one of them.
        inside: Other folders to look in, relative to ``root``, such as ``"rs_ref_seg/RefSegRS"``.

    Returns:
        The first folder, of ``root`` and those inside it, that holds a marker; ``root`` if none does.
    """
    root, markers = Path(root), list(markers)
    for folder in (root, *(root / relative for relative in inside)):
        if any((folder / marker).exists() for marker in markers):
            return folder
    return root


def files_by_id(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Returns the files of a folder by id, sorted. The id of a file is its name without the suffix.

    Args:
        folder: The folder. Folders in it are not searched, and hidden files are left out.
        suffixes: Suffixes in lower case, with their dot. Files may have them in upper case.

    Raises:
        DatasetError: Two files have the same id.
    """
    wanted = tuple(suffixes)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in wanted:
            continue
        if path.stem in found:
            raise DatasetError(f"{found[path.stem]} and {path} have the same id {path.stem!r}; remove one of them")
        found[path.stem] = path
    return found


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        DatasetError: The file is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DatasetError: The file is missing, not UTF-8 or not JSON; the message has the line.
    """
    return parse_json(read_text(path), f"{path}: ")


def parse_json(text: str, where: str = "") -> Any:
    """Parses JSON.

    Args:
        text: What to parse.
        where: Put before the error's message.

    Raises:
        DatasetError: The text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}not valid JSON ({error})") from error
