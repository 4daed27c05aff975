"""Named parts of the frame, such as "upper left corner", and the words for directions in a question."""

from __future__ import annotations

import re
from typing import NamedTuple

Fractions = tuple[float, float, float, float]

_DIRECTION = re.compile(
    r"\b(left|right|upper|lower|top|bottom|above|below|beneath|up|down|higher|horizontal(ly)?|vertical(ly)?"
    r"|leftmost|rightmost|topmost|bottommost|uppermost|lowermost"
    r"|(north|south)?[- ]?(north|south|east|west)(ern|ward|wards|erly|ernmost)?)\b",
    re.IGNORECASE,
)


class Region(NamedTuple):
    """A part of the frame, as three boxes ``(x0, y0, x1, y1)`` in fractions of its width and height.

    An object is inside the region if most of its area lies in ``box`` and its centroid in the smaller ``core``. It is
    outside if little of its area lies in ``box`` and its centroid is not in the larger ``halo``. Otherwise it is
    unclear where the object is, and no question depends on it.
    """

    box: Fractions
    core: Fractions
    halo: Fractions


def _region(x: str, y: str, core: float) -> Region:
    def span(side: str, reach: float) -> tuple[float, float]:
        return {"all": (0.0, 1.0), "low": (0.0, reach), "high": (1.0 - reach, 1.0)}[side]

    def box(reach: float) -> Fractions:
        (x0, x1), (y0, y1) = span(x, reach), span(y, reach)
        return x0, y0, x1, y1

    return Region(box(0.5), box(core), box(0.53))


HALVES: dict[str, Region] = {
    "left half": _region("low", "all", 0.47),
    "right half": _region("high", "all", 0.47),
    "upper half": _region("all", "low", 0.47),
    "lower half": _region("all", "high", 0.47),
}
QUARTERS: dict[str, Region] = {
    "upper left quarter": _region("low", "low", 0.47),
    "upper right quarter": _region("high", "low", 0.47),
    "lower left quarter": _region("low", "high", 0.47),
    "lower right quarter": _region("high", "high", 0.47),
}
SPOTS: dict[str, Region] = {
    "upper left corner": _region("low", "low", 0.36),
    "upper right corner": _region("high", "low", 0.36),
    "lower left corner": _region("low", "high", 0.36),
    "lower right corner": _region("high", "high", 0.36),
    "middle": Region((0.25, 0.25, 0.75, 0.75), (0.36, 0.36, 0.64, 0.64), (0.2, 0.2, 0.8, 0.8)),
}
REGIONS: dict[str, Region] = {**HALVES, **QUARTERS, **SPOTS}


def has_direction(text: str) -> bool:
    """Whether a text names a direction (left, upper, north-east, …), so that the image must not be mirrored or turned.

    In doubt the answer is ``True``, also for "right now".
    """
    return _DIRECTION.search(text) is not None


def mirrored(name: str) -> str:
    """Returns the name of a region or side after mirroring, in which left and right change places."""
    return re.sub(r"left|right", lambda m: "right" if m.group() == "left" else "left", name)
