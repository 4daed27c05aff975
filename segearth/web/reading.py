"""Reads an upload of any kind."""

from __future__ import annotations

from segearth.web.tiffs import read_tiff
from segearth.web.uploads import Limits, Picture, kind_of, plain_pixels, shown_name


def read_upload(data: bytes, name: str, limits: Limits) -> Picture:
    """Reads an uploaded file.

    Args:
        data: The file's bytes.
        name: What the user calls it; only shown, never opened.
        limits: What is taken.

    Raises:
        UploadError: It is too large, no picture, or cannot be decoded.
    """
    limits.check_bytes(len(data))
    kind = kind_of(data)
    shown = shown_name(name)
    if kind == "TIFF":
        return read_tiff(data, shown, limits)
    return Picture(plain_pixels(data, kind, shown, limits), shown)
