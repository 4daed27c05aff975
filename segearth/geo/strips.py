"""Finished rows of a scene, kept in a folder, so that a run that was interrupted goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from segearth.errors import OutputError
from segearth.utils.files import atomic_path, check_output_folder, write_text

_SETTINGS, _LOCK = "settings.json", ".lock"


def parts_folder(output: str | Path) -> Path:
    """Returns the folder in which strips of an output file are kept: ``out.tif.parts`` beside ``out.tif``."""
    output = Path(output)
    return output.with_name(f"{output.name}.parts")


@dataclass(frozen=True, slots=True)
class StoredStrip:
    """Rows that are finished.

    Attributes:
        top: The first row.
        bottom: The row after the last.
        facts: What was noted beside them, such as the presence that each tile saw.
    """

    top: int
    bottom: int
    facts: dict[str, Any]


class StripStore:
    """Strips of a scene from its first row on, one file each, to be used in a ``with`` block.

    A strip gets its name when it is whole, so that whatever has a name counts, also after the process was killed. The
    folder remembers the settings, all that the strips depend on; strips of other settings never mix with them.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, object], restart: bool = False) -> None:
        """Makes the folder, or opens it to go on.

        Args:
            folder: See :func:`parts_folder`.
            settings: What the strips depend on: source, questions, model, tile size and so on; anything JSON can hold.
            restart: Throw away what is there.

        Raises:
            OutputError: The folder holds strips of other settings or other files, another process is at work in it, or
                it cannot be written.
        """
        self.folder = Path(folder)
        check_output_folder(self.folder)
        wanted = json.loads(json.dumps(dict(settings), sort_keys=True))  # as it will be read: tuples become lists
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / _LOCK)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(f"another process works in {self.folder}; wait for it, or name another output") from error
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written ({error}); name another place") from error
        try:
            self._prepare(wanted, restart)
        except BaseException:
            self._lock.release()
            raise

    def _prepare(self, wanted: dict[str, Any], restart: bool) -> None:
        stated = self.folder / _SETTINGS
        found = _json_of(stated)
        if restart or (found is None and stated.exists()):  # a loss of power left settings that say nothing
            found = None
            stated.unlink(missing_ok=True)
            for path in self.folder.glob("rows_*"):
                path.unlink()
        if found is not None:
            _check_settings(self.folder, found, wanted)
        else:
            if strange := [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]:
                raise OutputError(f"{self.folder} holds other files ({strange[0]}); move them, or name another output")
            write_text(stated, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
        self._strips = self._found()

    def __enter__(self) -> StripStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes in; the strips stay.

        Where there is none the folder goes: nothing is lost with it, and its settings, such as an overlap that turned
        out to be too large, would stand in the way of the next run.
        """
        if self._strips:
            self._lock.release()
        else:
            self.remove()

    def remove(self) -> None:
        """Deletes the folder, once the final file is written."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def strips(self) -> Sequence[StoredStrip]:
        """The finished strips from the scene's first row on; none is missing between them."""
        return tuple(self._strips)

    @property
    def finished_rows(self) -> int:
        """How many of the scene's first rows are there: where to go on."""
        return self._strips[-1].bottom if self._strips else 0

    def put(self, values: np.ndarray, facts: Mapping[str, object] | None = None) -> None:
        """Keeps the next rows.

        Args:
            values: ``(Q, h, w)`` of any type, all strips of the same; they follow :attr:`finished_rows`.
            facts: Anything JSON can hold, to be given back with the strip.

        Raises:
            OutputError: The disk is full, or the folder cannot be written.
        """
        top = self.finished_rows
        strip = StoredStrip(top, top + values.shape[1], dict(facts or {}))
        path = self._path(strip.top, strip.bottom)
        # The facts come first: the strip counts as soon as its own file has its name.
        write_text(path.with_suffix(".json"), json.dumps(strip.facts))
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        self._strips.append(strip)

    def rows(self, top: int, bottom: int, question: int | None = None) -> np.ndarray:
        """Returns some finished rows, ``(Q, bottom - top, w)``, or of one question ``(1, bottom - top, w)``.

        Only these are read from disk.

        Raises:
            OutputError: Some of the rows are not there.
        """
        if not 0 <= top < bottom <= self.finished_rows:
            raise OutputError(
                f"rows {top} to {bottom} are not all in {self.folder}, only {self.finished_rows} rows are; go on first"
            )
        wanted = slice(None) if question is None else slice(question, question + 1)
        parts = []
        for strip in self._strips:
            if strip.top < bottom and strip.bottom > top:
                values = np.load(self._path(strip.top, strip.bottom), mmap_mode="r")
                parts.append(values[wanted, max(top - strip.top, 0) : bottom - strip.top])
        return np.concatenate(parts, axis=1)

    def _path(self, top: int, bottom: int) -> Path:
        return self.folder / f"rows_{top:08d}_{bottom:08d}.npy"

    def _found(self) -> list[StoredStrip]:
        """Lists strips up to the first gap; what lies after it, such as what a loss of power cut off, is deleted."""
        found: list[StoredStrip] = []
        for path in sorted(self.folder.glob("rows_*.npy")):
            top, bottom = (int(number) for number in path.stem.split("_")[1:])
            facts = _json_of(path.with_suffix(".json"))
            if top == (found[-1].bottom if found else 0) and facts is not None and _is_whole(path, bottom - top):
                found.append(StoredStrip(top, bottom, facts))
            else:
                path.unlink()
        for path in self.folder.glob(".rows_*"):  # what was being written when the process was killed
            path.unlink()
        return found


def _is_whole(path: Path, rows: int) -> bool:
    with contextlib.suppress(ValueError, OSError, EOFError):
        shape = np.load(path, mmap_mode="r").shape  # the file's length is compared with what its head says
        return len(shape) == 3 and shape[1] == rows
    return False


def _json_of(path: Path) -> dict[str, Any] | None:
    """Reads a file of facts; ``None`` if it is not there or not whole, as a loss of power leaves it."""
    with contextlib.suppress(ValueError, OSError):
        facts = json.loads(path.read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else None
    return None


def _check_settings(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if names:
        name = names[0]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise OutputError(
            f"{folder} was begun with {name} = {found.get(name)!r}, now it is {wanted.get(name)!r}{more}; "
            "take what it was begun with, or begin anew: delete the folder, or pass --restart"
        )
