"""What users send: bytes in, a picture with its place on the map out. Nothing is written to disk.

Nobody knows what an upload is before it is read. So its kind is told by its first bytes and never by its name, its size
by its header before a pixel is decoded, and only the decoder of that kind sees it.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segearth.errors import ImageError

_KINDS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"), (b"RIFF", "WEBP"),
          (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"))  # fmt: skip
KIND_NAMES = ("JPEG", "PNG", "TIFF", "WebP", "BMP")  # as users call them
FILE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
UNSUPPORTED, TOO_LARGE, UNREADABLE = 415, 413, 422  # HTTP's words for it (RFC 9110, section 15.5)


class UploadError(ImageError):
    """An upload that is not taken.

    Attributes:
        status: What an HTTP service answers: 413 (too large), 415 (no picture) or 422 (cannot be decoded).
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken.

    Attributes:
        megabytes: Size of an upload, in millions of bytes.
        megapixels: Size of the picture in it, in millions of pixels. A small file can hold a huge picture.
    """

    megabytes: float = 64.0
    megapixels: float = 50.0

    @property
    def bytes(self) -> int:
        """The same in bytes."""
        return int(self.megabytes * 1e6)

    def check_bytes(self, count: int) -> None:
        """Raises an ``UploadError`` if an upload has more bytes."""
        if count > self.bytes:
            raise UploadError(
                f"the upload is larger than the {self.megabytes:g} MB that are taken; send a smaller part of it, or "
                "start with a larger --max-megabytes",
                TOO_LARGE,
            )

    def check_pixels(self, height: int, width: int) -> None:
        """Raises an ``UploadError`` if a picture has more pixels."""
        if height * width > self.megapixels * 1e6:
            raise UploadError(
                f"the picture has {width}x{height} pixels, {self.megapixels:g} million are taken; cut or shrink it, or "
                "start with a larger --max-megapixels",
                TOO_LARGE,
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture is on the map.

    Attributes:
        crs: A ``rasterio.crs.CRS``.
        transform: From pixels ``(column, row)`` to coordinates, an ``affine.Affine``; it may be rotated.
    """

    crs: Any
    transform: Any

    def __str__(self) -> str:
        return str(self.crs.to_string())[:60]


@dataclass(frozen=True)
class Picture:
    """One picture that is asked about.

    Attributes:
        pixels: ``uint8`` RGB of shape ``(H, W, 3)``; never changed.
        name: The file's name as its user calls it, without folders.
        place: Where it is on the map; ``None`` for a plain picture.
        valid: Boolean ``(H, W)``: where it holds something; ``None``: everywhere.
    """

    pixels: np.ndarray
    name: str
    place: Place | None = None
    valid: np.ndarray | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of size and pixels: pictures with the same digest get the same answers."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()


def kind_of(data: bytes) -> str:
    """Tells by its first bytes what kind of picture a file is.

    Args:
        data: The file, or its first 16 bytes.

    Returns:
        ``"JPEG"``, ``"PNG"``, ``"BMP"``, ``"WEBP"`` or ``"TIFF"``.

    Raises:
        UploadError: None of these.
    """
    for head, kind in _KINDS:
        if data.startswith(head) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            return kind
    what = "the upload is empty" if not data else "the upload is no picture of a known kind"
    raise UploadError(f"{what}; send one of {', '.join(KIND_NAMES)}", UNSUPPORTED)


def shown_name(name: str) -> str:
    """Returns a file's name without folders and without what does not belong into a message or a header."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:100] or "upload"


def plain_pixels(data: bytes, kind: str, name: str, limits: Limits) -> np.ndarray:
    """Decodes a picture that has no place on the map.

    Args:
        data: The file's bytes.
        kind: As :func:`kind_of` gives it.
        name: What it is called in errors.
        limits: What is taken.

    Returns:
        ``uint8`` RGB of shape ``(H, W, 3)``.

    Raises:
        UploadError: It has too many pixels, more than 8 bits, or cannot be decoded.
    """
    from PIL import Image

    from segearth.utils.files import rgb_of

    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            limits.check_pixels(image.height, image.width)
            return rgb_of(image, name)
    except UploadError:
        raise
    except ImageError as error:
        raise UploadError(str(error), UNREADABLE) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is above the default one here
        raise UploadError(f"{name}: more pixels than are taken; cut it or shrink it", TOO_LARGE) from error
    except Exception as error:  # Pillow's decoders raise many unrelated classes on damaged files
        raise UploadError(f"{name} cannot be decoded as {kind} ({error}); save it anew", UNREADABLE) from error
