"""Bit depth of an image's samples, read from its header.

Pillow opens many images of 16 bits as if they had 8: it keeps the high byte of each sample and gives no warning. The
image that results is often nearly black. So such images are found here and refused.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

_DEEP_MODES = ("I", "F")  # Pillow's modes for integers of 16 and 32 bits, and for floats
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"  # start of a codestream; 42 bytes further is the bit depth of the first component
_AVIF_CONFIG = b"av1C"  # name of the AVIF box whose third byte has a flag for more than 8 bits
_HEAD = 1 << 16  # these two are looked for in so many bytes at the start of the file
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex float"}
_PHOTOMETRICS = {0: "MINISWHITE", 1: "MINISBLACK", 2: "RGB", 3: "PALETTE", 5: "CMYK", 6: "YCBCR", 8: "CIELAB"}
_GEO_TAGS = (33550, 33922, 34264, 34735)  # scale, tie points, transformation, keys: OGC GeoTIFF 1.1, section 7

_STRETCH = (
    "stretch it to 8 bits first, such as with: gdal_translate -ot Byte -scale MIN MAX 0 255 {bands}IN OUT.tif"
    " (segearth scene takes it as it is)"
)
_CHOOSE = (
    "choose three bands first, such as with: gdal_translate -b 1 -b 2 -b 3 {colours}IN OUT.tif"
    " (segearth scene does so itself)"
)
_COLOURS = "-co PHOTOMETRIC=RGB "


def has_place(file: Path | BinaryIO) -> bool:
    """Whether a file is a TIFF that says where on the map it lies; ``False`` for what cannot be read."""
    from PIL import Image

    try:
        with Image.open(file, formats=("TIFF",)) as image:
            tags: Any = getattr(image, "tag_v2", {})
            return any(tag in tags for tag in _GEO_TAGS)
    except Exception:  # Pillow raises many classes on damaged files, and what is wrong is told by who decodes it
        return False


def deep_samples(image: Image.Image) -> str | None:
    """Describes an image's samples if they are anything else than unsigned numbers of at most 8 bits.

    Args:
        image: As ``PIL.Image.open`` gives it. Once an image is loaded, only a TIFF still knows its bit depth; for
            other formats the file is opened again, if it still exists.

    Returns:
        What the samples are and what to run, or ``None`` if nothing but 8 bits was found.
    """
    found = _depth(image)
    name = getattr(image, "filename", "")
    if found is None and name and not getattr(image, "tile", None):
        found = _depth_in_file(name)
    return found and f"{found}; {_STRETCH.format(bands='')}"


def unreadable_tiff(path: Path) -> str | None:
    """Describes an undamaged TIFF that Pillow cannot open, because of its many bands or its bit depth.

    Returns:
        What the file holds and what to run. ``None`` if the file is not a TIFF, is damaged, or has one band of 8 bits,
        so that the reason must be another one.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with contextlib.suppress(Exception), path.open("rb") as file:  # Pillow raises many classes on damaged files
        header = file.read(8)
        if header[:4] == b"MM\0+":
            return "a BigTIFF of big-endian numbers; rewrite it with: gdal_translate -co ENDIANNESS=LITTLE IN OUT.tif"
        if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0"):
            return None
        header += file.read(8) if header[2] == ord("+") else b""
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        bands, photometric = int(tags.get(277, 1)), int(tags.get(262, -1))
        bits, kind = _tiff_samples(tags)
        if not (tags.get(256) and tags.get(257)):
            return None
        space = _PHOTOMETRICS.get(photometric, f"photometric {photometric}")
        what = f"a TIFF of {bands} band{'s' * (bands > 1)} of {bits} bits ({kind}), stored as {space}"
        colours = "" if bands < 3 else _COLOURS
        if bits > 8 or kind != "unsigned":
            return f"{what}; {_STRETCH.format(bands=f'-b 1 -b 2 -b 3 {_COLOURS}' if bands > 3 else colours)}"
        return f"{what}; {_CHOOSE.format(colours=colours)}" if bands > 1 else None
    return None


def _depth(image: Image.Image) -> str | None:
    if image.mode.startswith(_DEEP_MODES):
        return f"mode {image.mode} is not 8-bit"
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits, kind = _tiff_samples(tags)
        if bits > 8 or kind != "unsigned":
            return f"its samples are {kind} numbers of {bits} bits, not unsigned ones of 8"
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        texts = [text for text in arguments if isinstance(text, str)]
        largest = arguments[-1] if tile[0] in ("ppm", "ppm_plain") else 255
        if any(";16" in text and not text.startswith("BGR") for text in texts) or largest > 255:
            return "its samples have 16 bits, not 8"
    bits = _coded_bits(image)
    return f"its samples have {bits} bits, not 8" if bits > 8 else None


def _depth_in_file(name: Any) -> str | None:
    from PIL import Image

    with contextlib.suppress(OSError), Image.open(name) as image:
        return _depth(image)
    return None


def _tiff_samples(tags: Any) -> tuple[int, str]:
    """Returns bits per sample and their kind; a tag holds one value for each band, or one value for all bands."""
    bits, formats = tags.get(258, (1,)), tags.get(339, (1,))
    deepest = max(bits) if isinstance(bits, tuple) else int(bits)
    kinds = formats if isinstance(formats, tuple) else (formats,)
    kind = next((k for k in kinds if k not in (1, 4)), 1)
    return deepest, _SAMPLE_FORMATS.get(kind, f"format {kind}")


def _coded_bits(image: Image.Image) -> int:
    """Returns the bits per sample of a JPEG 2000 or AVIF file that is still open, and 8 for any other image."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG2000", "AVIF") or file is None:
        return 8
    position = file.tell()
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(position)
    if image.format == "AVIF":
        start = head.find(_AVIF_CONFIG)
        return 10 if start >= 0 and head[start + 6 : start + 7] and head[start + 6] & 0x40 else 8
    start = head.find(_JPEG2000_SIZE)
    depth = head[start + 42 : start + 43] if start >= 0 else b""
    return (depth[0] & 0x7F) + 1 if depth else 8  # the highest bit is the sign flag, the others hold the depth minus 1
