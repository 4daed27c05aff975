"""Opens a model of transformers from a folder or a hub id, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segearth.errors import CheckpointError, SegEarthError
from segearth.utils.hub import find_source
from segearth.utils.text import first_line
from segearth.utils.torchvision_mend import mend_torchvision


def open_pretrained(source: str | Path, class_of: Callable[[Any], str], what: str, **options: Any) -> Any:
    """Opens weights.

    Args:
        source: As for :func:`segearth.utils.hub.find_source`.
        class_of: From the model's configuration to the name of its class in transformers.
        what: What it should be, for the message.
        options: For ``from_pretrained``, such as ``dtype``.

    Returns:
        The model, on the CPU and in eval mode.

    Raises:
        CheckpointError: Nothing is there, or it cannot be opened.
    """
    mend_torchvision()
    import transformers

    place = str(find_source(source, what))
    with explained(source, what), quiet():
        config = transformers.AutoConfig.from_pretrained(place)
        return getattr(transformers, class_of(config)).from_pretrained(place, **options).eval()


@contextmanager
def explained(source: str | Path, what: str) -> Iterator[None]:
    """Turns what transformers and the hub's client raise, unrelated classes, into one error of this library."""
    try:
        yield
    except SegEarthError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what} {str(source)!r} cannot be opened: {first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from drawing a progress bar over a second's work."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
