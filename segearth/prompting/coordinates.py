"""Boxes, points and names out of what stands under a key of an answer, whatever stands there.

Every function notes what it mends or leaves out, with ``where``, such as "thing 3", to say which thing is meant.
"""

from __future__ import annotations

import math
from typing import Any

from segearth.metrics.boxes import LARGEST

MOST_POINTS = 64  # of one thing
MOST_PROBLEMS = 20
LONGEST_LABEL = 200  # characters
LONGEST_NUMBER = 50  # characters of a number that is written as a text


class Notes:
    """Collects problems, and counts those beyond the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[str] = []

    def add(self, problem: str) -> None:
        """Notes one problem."""
        self.count += 1
        if len(self.kept) < MOST_PROBLEMS:
            self.kept.append(problem)

    def as_tuple(self) -> tuple[str, ...]:
        """Returns the first problems, and how many there are beyond them."""
        more = self.count - len(self.kept)
        return (*self.kept, f"and {more} more") if more else tuple(self.kept)


def read_box(value: Any, where: str, notes: Notes) -> tuple[float, float, float, float] | None:
    """Returns ``(x0, y0, x1, y1)`` with its corners in order; ``None`` if the value is no box."""
    numbers = _read_numbers(value, 4, f"box of {where}", notes)
    if numbers is None:
        return None
    x0, y0, x1, y1 = numbers
    if x0 > x1 or y0 > y1:
        notes.add(f"box of {where}: corners exchanged")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def read_rotated_box(value: Any, where: str, notes: Notes) -> tuple[float, float, float, float, float] | None:
    """Returns ``(x, y, width, height, degrees)`` with sides of at least 0; ``None`` if the value is no such box."""
    numbers = _read_numbers(value, 5, f"rotated box of {where}", notes)
    if numbers is None:
        return None
    x, y, width, height, degrees = numbers
    if width < 0 or height < 0:
        notes.add(f"rotated box of {where}: sides below 0 made positive")
    return x, y, abs(width), abs(height), degrees


def read_points(value: Any, where: str, notes: Notes) -> tuple[tuple[float, float], ...]:
    """Returns the points ``(x, y)`` that can be read."""
    where = f"points of {where}"
    if not isinstance(value, list):
        notes.add(f"{where}: {shown(value)} is no list, left out")
        return ()
    if value and not any(map(is_container, value)):
        notes.add(f"{where}: numbers in a row, taken two by two")
        value = [value[i : i + 2] for i in range(0, len(value), 2)]
    if len(value) > MOST_POINTS:
        notes.add(f"{where}: those after the first {MOST_POINTS} are left out")
    read = (_read_numbers(point, 2, where, notes) for point in value[:MOST_POINTS])
    return tuple((point[0], point[1]) for point in read if point is not None)


def read_label(value: Any, where: str, notes: Notes) -> str | None:
    """Returns a name, at most 200 characters that can be encoded as UTF-8; ``None`` if there is none."""
    if value is None:
        return None
    if not isinstance(value, str):
        notes.add(f"label of {where}: {shown(value)} is no text")
        return None if is_container(value) else str(value)
    label = value[:LONGEST_LABEL].encode("utf-8", "replace").decode("utf-8")
    if label != value:
        notes.add(f"label of {where}: cut at {LONGEST_LABEL} characters, or halves of characters replaced by ?")
    return label


def is_container(value: Any) -> bool:
    """Whether a value read from JSON is a list or an object."""
    return isinstance(value, (list, dict))


def shown(value: Any) -> str:
    """Returns a value in a few characters, for a note; a list or object by its kind, since it may be of any size."""
    if is_container(value):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value[:30] if isinstance(value, str) else value)


def _read_numbers(value: Any, count: int, where: str, notes: Notes) -> list[float] | None:
    """Returns ``count`` finite numbers between ±1e9, or ``None`` if the value does not hold just that many."""
    if isinstance(value, list) and value and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        notes.add(f"{where}: pairs joined to one list")
        value = [number for pair in value[: count + 1] for number in pair]
    if not isinstance(value, list) or len(value) != count:
        notes.add(f"{where}: {shown(value)} is no list of {count} numbers, left out")
        return None
    numbers = [_read_number(item, where, notes) for item in value]
    whole = [number for number in numbers if number is not None]
    return whole if len(whole) == count else None


def _read_number(value: Any, where: str, notes: Notes) -> float | None:
    number = value
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        try:
            number = float(value)
            notes.add(f"{where}: the text {value!r} taken for a number")
        except ValueError:
            pass
    if not isinstance(number, float) or not math.isfinite(number):  # true and false are no numbers either
        notes.add(f"{where}: {shown(value)} is no number, left out")
        return None
    if abs(number) > LARGEST:
        notes.add(f"{where}: {number:g} cut at {LARGEST:g}")
    return min(max(number, -LARGEST), LARGEST)
