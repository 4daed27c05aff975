"""How the rows of an optimiser step are shared out among processes and forward passes."""

from __future__ import annotations

from segearth.errors import ConfigError


def split_batch(batch: int, most: int, processes: int, names: tuple[str, str]) -> tuple[int, int]:
    """Divides a step's rows, so that the same settings train on one process and on several.

    Args:
        batch: Rows of a step, over all processes.
        most: Rows of one process's forward pass, at most; fewer where its share of a step is smaller.
        processes: How many there are.
        names: Of the settings that ``batch`` and ``most`` come from, for the error.

    Returns:
        Rows of a pass, and passes of each process in a step.

    Raises:
        ConfigError: The rows cannot be divided evenly. The message says by what they can.

    Example:
        >>> split_batch(16, 8, 1, ("batch", "most")), split_batch(16, 8, 4, ("batch", "most"))
        ((8, 2), (4, 1))
    """
    if min(batch, most) < 1:
        raise ConfigError(f"{names[0]} is {batch} and {names[1]} {most}; give numbers from 1")
    share, rest = divmod(batch, processes)
    if rest:
        near = max(round(batch / processes), 1) * processes
        raise ConfigError(f"{names[0]} {batch} is no multiple of {processes} processes; set it to {near}, say")
    rows = min(most, share)
    if share % rows:
        fits = max(n for n in range(1, rows) if share % n == 0)
        raise ConfigError(
            f"{names[0]} {batch} is no multiple of {names[1]} {most} x {processes} processes; set {names[1]} to {fits}"
        )
    return rows, share // rows
