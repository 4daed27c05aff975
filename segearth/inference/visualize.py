"""Masks as pictures: overlays, picture sheets with captions, mask files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segearth.errors import OutputError
from segearth.utils.files import atomic_path, check_output_file

Colour = tuple[int, int, int]

PREDICTION_COLOUR: Colour = (255, 64, 160)  # magenta: neither roofs, soil, plants nor water have it
TARGET_COLOUR: Colour = (0, 200, 255)
DOUBT_COLOUR: Colour = (255, 220, 0)
STRONG, FAINT = 0.6, 0.15  # opacity of the tint where a model is sure, and where it might as well be wrong
MAYBE = 0.2  # from this probability on a pixel outside the mask is shown as one that might belong to it

FAST = 1  # PNG's least effort: a fourth of the usual time, for a photograph that is a seventh larger

_PAPER: Colour = (255, 255, 255)
_TILE_GROUND: Colour = (236, 238, 241)
_INK: Colour = (32, 36, 42)
_FAINT_INK: Colour = (112, 118, 128)
_GAP = 8

_MASK_FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
_PICTURE_FORMATS = {**_MASK_FORMATS, ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row of a picture sheet.

    Attributes:
        pictures: ``uint8`` RGB arrays, each of shape ``(H, W, 3)``, shown from left to right.
        caption: Text below them; wrapped to the row's width.
        note: A shorter, fainter line below the caption, such as numbers.
    """

    pictures: Sequence[np.ndarray]
    caption: str = ""
    note: str = ""


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    color: Colour = PREDICTION_COLOUR,
    alpha: float = 0.45,
    outline: int | None = None,
) -> np.ndarray:
    """Tints the masked pixels of an image and draws the mask's contour.

    Args:
        image: ``uint8`` RGB of shape ``(H, W, 3)``; not changed.
        mask: Boolean, of shape ``(H, W)``.
        color: RGB, each 0 to 255.
        alpha: Opacity of the tint in [0, 1].
        outline: Width of the contour in pixels, drawn inside the mask, with a dark line half as wide around it so that
            it stands out on any ground; 0: none; ``None``: a width that suits the image's size.

    Returns:
        ``uint8`` RGB of shape ``(H, W, 3)``.

    Raises:
        ValueError: The sizes differ.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask has shape {mask.shape}, image {image.shape[:2]}; they must be equal")
    mask = mask.astype(bool)
    tint = np.asarray(color, dtype=np.float32)
    # By tables of the 256 values of a channel: floats for the chosen pixels of a photograph took seconds.
    values = np.arange(256, dtype=np.float32)[:, None]
    painted = _replaced(image, mask, values * np.float32(1 - alpha) + tint * alpha)
    width = max(1, round(max(mask.shape) / 300)) if outline is None else outline
    if width:
        painted = _replaced(painted, _grown(mask, (width + 1) // 2) & ~mask, np.tile(values * np.float32(0.35), 3))
        painted = _replaced(painted, mask & _grown(~mask, width), np.tile(tint, (256, 1)))
    return painted


def overlay_doubt(image: np.ndarray, mask: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Draws a mask and how sure of it the model is, pixel by pixel.

    The tint is strong where the model is sure and fades towards its doubts; what was left out of the mask but might
    belong to it is yellow.

    Args:
        image: ``uint8`` RGB of shape ``(H, W, 3)``; not changed.
        mask: Boolean, of shape ``(H, W)``.
        logits: Float ``(H, W)``, of which the mask holds the highest, as ``predict(return_logits=True)`` gives them.

    Returns:
        ``uint8`` RGB of shape ``(H, W, 3)``.

    Raises:
        ValueError: The sizes differ.
    """
    if logits.shape != mask.shape:
        raise ValueError(f"mask has shape {mask.shape}, logits {logits.shape}; they must be equal")
    outside = logits[~mask]
    cut = 0.0  # where the mask was cut, which need not be at 0: see segearth.inference.deciding
    if mask.any():
        cut = float(outside.max()) if outside.size else min(0.0, float(logits.min()))
    inside = 1 / (1 + np.exp(-np.clip(logits - cut, -30, 30)))  # how likely a pixel belongs to the mask
    sure = overlay(image, mask, alpha=STRONG).astype(np.float32)
    faint = overlay(image, mask, alpha=FAINT).astype(np.float32)
    certainty = np.abs(2 * inside - 1)[..., None]
    painted = np.where(mask[..., None], faint + (sure - faint) * certainty, image)
    missed = (~mask & (inside > MAYBE))[..., None]
    share = np.minimum(2 * inside, 1)[..., None] * STRONG
    painted = np.where(missed, image + (np.asarray(DOUBT_COLOUR, np.float32) - image) * share, painted)
    return painted.round().astype(np.uint8)


def picture_sheet(
    rows: Sequence[SheetRow],
    *,
    titles: Sequence[str] = (),
    heading: str = "",
    tile: int = 256,
) -> Image.Image:
    """Lays pictures out in captioned rows on white paper.

    Args:
        rows: At least one row; a row may hold fewer pictures than another.
        titles: A title over each column.
        heading: A line over everything.
        tile: Side in pixels of the square that each picture is fitted into, its aspect kept.

    Returns:
        An RGB image, as wide as the longest row and as high as needed.

    Raises:
        ValueError: There is no picture.
    """
    columns = max((len(row.pictures) for row in rows), default=0)
    if not columns:
        raise ValueError("a picture sheet needs at least one picture")
    width = _GAP + columns * (tile + _GAP)
    heading_font, font, note_font = (ImageFont.load_default(size) for size in (20, 15, 13))
    captions = [wrap_text(row.caption, font, width - 2 * _GAP) for row in rows]
    notes = [wrap_text(row.note, note_font, width - 2 * _GAP) for row in rows]
    head_height = _GAP + (32 if heading else 0) + (24 if titles else 0)
    heights = [
        tile + 6 + 20 * len(caption) + 18 * len(note) + 2 * _GAP for caption, note in zip(captions, notes, strict=True)
    ]
    sheet = Image.new("RGB", (width, head_height + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((_GAP, _GAP), heading, _INK, heading_font)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (tile + _GAP), head_height - 22), title, _FAINT_INK, font)
    y = head_height
    for row, caption, note, height in zip(rows, captions, notes, heights, strict=True):
        for column, picture in enumerate(row.pictures):
            sheet.paste(_fitted(picture, tile), (_GAP + column * (tile + _GAP), y))
        text_y = y + tile + 6
        for line in caption:
            draw.text((_GAP, text_y), line, _INK, font)
            text_y += 20
        for line in note:
            draw.text((_GAP, text_y), line, _FAINT_INK, note_font)
            text_y += 18
        y += height
    return sheet


def side_by_side(sheets: Sequence[Image.Image], gap: int = 24) -> Image.Image:
    """Joins sheets from left to right on white paper, aligned at the top.

    Args:
        sheets: At least one RGB image.
        gap: Pixels between them.
    """
    width = sum(sheet.width for sheet in sheets) + gap * (len(sheets) - 1)
    joined = Image.new("RGB", (width, max(sheet.height for sheet in sheets)), _PAPER)
    x = 0
    for sheet in sheets:
        joined.paste(sheet, (x, 0))
        x += sheet.width + gap
    return joined


def wrap_text(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text into lines no wider than ``width`` pixels, at spaces where it can and inside a word where it must.

    Args:
        text: Any text; runs of white space become one space.
        font: Decides the width of a line.
        width: Pixels; a single letter may exceed it.

    Returns:
        The lines; none for an empty text.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width and len(line) > 1:
            cut = len(line) - 1
            while cut > 1 and font.getlength(line[:cut]) > width:
                cut -= 1
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line else lines


def save_mask(path: str | Path, mask: np.ndarray) -> None:
    """Writes a mask as 8-bit grey of 0 and 255; an older file stays whole until the new one is.

    Args:
        path: File to write, in the format of its ending: see :func:`check_mask_path`. Its folder is made.
        mask: Boolean, of shape ``(H, W)``.

    Raises:
        OutputError: The ending names no format for masks, or the file cannot be written.
    """
    format_ = _format_of(path, _MASK_FORMATS)
    options = {"compression": "tiff_lzw"} if format_ == "TIFF" else {}
    with atomic_path(path) as temporary:
        Image.fromarray(mask.astype(bool).astype(np.uint8) * 255).save(temporary, format_, **options)


def save_picture(path: str | Path, picture: np.ndarray | Image.Image) -> None:
    """Writes a picture in the format of the file's ending; an older file stays whole until the new one is.

    Args:
        path: File to write, such as ``sheet.jpg`` or ``overlay.png``. Its folder is made.
        picture: ``uint8`` RGB of shape ``(H, W, 3)``, or a Pillow image.

    Raises:
        OutputError: The ending names no format, the picture is larger than the format allows, or the file cannot be
            written.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    format_ = _format_of(path, _PICTURE_FORMATS)
    if max(image.size) > (limit := _LARGEST_SIDE.get(format_, max(image.size))):
        raise OutputError(f"{path}: {format_} holds {limit} pixels a side, the picture {max(image.size)}; name it .png")
    with atomic_path(path) as temporary:
        image.save(temporary, format_, quality=90, compress_level=FAST)


def check_mask_path(path: str | Path) -> None:
    """Checks that a mask can be written at ``path``; call it before the work that finds the mask.

    Args:
        path: Must end in ``.png``, ``.tif``, ``.tiff`` or ``.bmp``.

    Raises:
        OutputError: It ends otherwise, such as in ``.jpg``, whose compression blurs a mask's edges, or cannot be
            written.
    """
    _format_of(path, _MASK_FORMATS)
    check_output_file(path)


def check_picture_path(path: str | Path) -> None:
    """Checks that a picture can be written at ``path``, likewise.

    Raises:
        OutputError: The ending names no format for pictures, or the file cannot be written.
    """
    _format_of(path, _PICTURE_FORMATS)
    check_output_file(path)


def _format_of(path: str | Path, formats: Mapping[str, str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in formats:
        return formats[suffix]
    lossy = suffix in _PICTURE_FORMATS
    why = f"a {_PICTURE_FORMATS[suffix]} blurs a mask's edges" if lossy else f"no format is known for {suffix!r}"
    raise OutputError(f"{path}: {why}; name it {Path(path).stem}.png, or with one of {', '.join(formats)}")


def _replaced(image: np.ndarray, where: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns a copy of ``(H, W, 3)`` in which pixels are looked up in ``(256, 3)`` values, where a mask says so."""
    changed = cv2.LUT(image, table.round().astype(np.uint8)[None])
    return cv2.copyTo(changed, where.view(np.uint8), np.ascontiguousarray(image).copy())


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilates a boolean ``(H, W)`` mask by ``radius`` pixels, along diagonals too."""
    return cv2.dilate(mask.view(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0


def _fitted(picture: np.ndarray, tile: int) -> Image.Image:
    """Fits a picture into a square tile, centred, its aspect kept."""
    image = Image.fromarray(picture)
    scale = tile / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (tile, tile), _TILE_GROUND)
    filter_ = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    square.paste(image.resize(size, filter_), ((tile - size[0]) // 2, (tile - size[1]) // 2))
    return square
