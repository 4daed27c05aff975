"""The library's errors. Their messages say what was looked for, where, what exists, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class SegEarthError(Exception):
    """Base of every error this library raises on purpose. The command line shows it as one message, no traceback."""


class ConfigError(SegEarthError, ValueError):
    """A configuration key or value that does not fit."""


class UnknownNameError(SegEarthError, KeyError):
    """A name that is in no table; the message lists the nearest ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, sorted(known)
        super().__init__(f"unknown {what} {name!r}{nearest_names(name, self.known)}")

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes, with line breaks written as \n


class ImageError(SegEarthError, ValueError):
    """An image that is missing, corrupt or of an unusable form."""


class QuestionError(SegEarthError, ValueError):
    """A question the model cannot take: empty, not text, or too long."""


class DatasetError(SegEarthError, ValueError):
    """A data set that is incomplete or contradicts itself.

    Attributes:
        problems: One line for each problem if several were found; else empty.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class NothingToFitError(DatasetError):
    """A training split that has no target of the kind that is to be learned from."""


class CheckpointError(SegEarthError, ValueError):
    """Weights or training state that are missing, damaged or of another model."""


class OutputError(SegEarthError, OSError):
    """A file or folder that cannot be written where, or as, it was asked for."""


class TrainingError(SegEarthError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class RewardError(SegEarthError, ValueError):
    """A completion, or what it is held against, that a reward cannot be computed from."""


class TraceError(SegEarthError, ValueError):
    """A question of which no reasoning trace can be made, or a trace that is not true of its image."""


class MissingExtraError(SegEarthError, ImportError):
    """An optional package that is not installed, or cannot be imported.

    Args:
        package: Its name.
        extra: The extra of this package that installs it.
        cause: What importing it raised. Where the package is there but a library of the system is not, this names it,
            and installing again would not help.
    """

    def __init__(self, package: str, extra: str, cause: Exception | None = None) -> None:
        known = cause is not None and not isinstance(cause, ModuleNotFoundError)
        fault = f"{package} cannot be imported ({cause})" if known else f"{package} is not installed"
        super().__init__(f"{fault}, or in a version that does not fit; run: pip install 'segearth[{extra}]'")


class MissingPackageError(SegEarthError, ImportError):
    """An optional package that is not installed and has no wheel, so that no extra of this package can install it."""

    def __init__(self, package: str, command: str, page: str) -> None:
        super().__init__(f"{package} is not installed; run: {command} (more: {page})")


def nearest_names(name: str, known: Sequence[str]) -> str:
    """Returns ``"; did you mean 'x' or 'y'? (known: …)"``, to be put at the end of an error message.

    Args:
        name: The name that was not found.
        known: All names that exist.
    """
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    shown = ", ".join(known[:30]) + (", …" if len(known) > 30 else "")
    return f"{hint} (known: {shown or 'none'})"


def missing_entry(root: Path, missing: Path | str, tree: str, dataset: str) -> DatasetError:
    """Returns the error for a data-set folder in which something is missing; its message shows the expected layout.

    Args:
        root: The folder that was given.
        missing: The first entry that was not found, relative to ``root``.
        tree: The expected layout, one entry a line.
        dataset: The data set's name.
    """
    return DatasetError(f"{dataset}: {missing} is missing under {root}\nexpected:\n{tree.rstrip()}")
