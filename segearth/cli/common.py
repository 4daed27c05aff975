"""What the commands share: options, and errors as one message."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NoReturn

import typer

from segearth.errors import SegEarthError
from segearth.zoo.opening import DEFAULT_NAME, DEFAULT_RUN, name_of

SOURCES = "Training run, saved folder, hub id, or a name of `segearth zoo list`"
ModelOption = Annotated[
    str | None, typer.Option(help=f"{SOURCES}; {DEFAULT_RUN} if left out, or {DEFAULT_NAME}.", show_default=False)
]
DeviceOption = Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="fp32, bf16, or the language model's weights as int8 or int4 (needs segearth\\[quant]); fp32 if left out.",
        show_default=False,
    ),
]


def end_cleanly() -> None:
    """Lets SIGTERM, such as QGIS's "Cancel", end the command as an error would: what is half written is deleted.

    Nothing changes where another way is set already, or in another thread than the main one, which alone may set it.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def shows_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns this library's errors and the system's into one message and exit code 1; others keep their traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SegEarthError as error:
            _fail(_own_words(error), error)
        except OSError as error:
            if error.errno is None:  # not the system's own, such as no permission, a full disk, a folder for a file
                raise
            _fail(f"{error.filename or 'the system says'}: {error.strerror}", error)

    return wrapped


def _own_words(error: SegEarthError) -> str:
    """An error's message; one from a worker that loads data arrives behind that worker's traceback."""
    kind = type(error)
    text = str(error)
    return text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip() if "Traceback" in text else text


def _fail(message: str, error: Exception) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(1) from error


def say_who_answers(model: str | None) -> None:
    """Tells on stderr which model is asked where none was named: a run that lies here goes before the package's own."""
    if model is None:
        typer.secho(f"asking {name_of(None)}; --model names another", err=True)


def whole_numbers(text: str) -> list[int]:
    """Reads an option such as ``1,8,32``."""
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 1,8,32")
    return [int(number) for number in numbers]
