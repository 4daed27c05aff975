"""Rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of a scene's pixels. It may reach over the scene's border, so ``top`` and ``left`` may be negative.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows, at least 1.
        width: Number of columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column after the last."""
        return self.left + self.width

    def intersection(self, other: Window) -> Window | None:
        """Returns the pixels that both have, or ``None`` where they share none.

        Example:
            >>> Window(0, 0, 4, 4).intersection(Window(2, 3, 4, 4))
            Window(top=2, left=3, height=2, width=1)
        """
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Returns the rows and columns of this window in an array that holds the pixels of ``outer``."""
        top, left = self.top - outer.top, self.left - outer.left
        return slice(top, top + self.height), slice(left, left + self.width)
