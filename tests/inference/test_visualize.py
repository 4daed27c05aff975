from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from segearth.errors import OutputError
from segearth.inference.visualize import (
    SheetRow,
    check_mask_path,
    check_picture_path,
    overlay,
    picture_sheet,
    save_mask,
    save_picture,
    side_by_side,
    wrap_text,
)
from segearth.utils.files import read_mask


def grey(height, width, level=100):
    return np.full((height, width, 3), level, np.uint8)


def square():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 10:20] = True
    return mask


def test_overlay_tints_inside_and_leaves_the_rest():
    image = grey(20, 30)
    painted = overlay(image, square(), (200, 0, 100), alpha=0.5, outline=0)
    assert painted.dtype == np.uint8
    assert painted[10, 15].tolist() == [150, 50, 100]
    assert (painted[~square()] == 100).all()
    assert (image == 100).all()


def test_overlay_draws_the_contour_in_full_colour_with_a_dark_edge():
    painted = overlay(grey(20, 30), square(), (200, 0, 100), alpha=0.5, outline=1)
    assert painted[5, 12].tolist() == [200, 0, 100]  # inside, at the border
    assert painted[4, 12].tolist() == [35, 35, 35]  # outside, next to it
    assert painted[6, 12].tolist() == [150, 50, 100]
    assert painted[2, 12].tolist() == [100, 100, 100]


def test_overlay_of_an_empty_mask_changes_nothing():
    assert (overlay(grey(8, 9), np.zeros((8, 9), bool)) == 100).all()


def test_overlay_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="must be equal"):
        overlay(grey(8, 9), np.zeros((9, 8), bool))


def test_mask_file_round_trip(tmp_path):
    path = tmp_path / "new" / "mask.png"
    save_mask(path, square())
    with Image.open(path) as image:
        assert image.mode == "L"
        assert set(np.unique(np.asarray(image))) == {0, 255}
    assert (read_mask(path) == square()).all()
    assert [p.name for p in path.parent.iterdir()] == ["mask.png"]


@pytest.mark.parametrize(
    ("name", "kind"), [("m.png", "PNG"), ("m.PNG", "PNG"), ("m.tif", "TIFF"), ("m.tiff", "TIFF"), ("m.bmp", "BMP")]
)
def test_a_mask_is_written_in_the_format_of_its_ending(tmp_path, name, kind):
    check_mask_path(tmp_path / name)
    save_mask(tmp_path / name, square())
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
    assert (read_mask(tmp_path / name) == square()).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.jpg", r"m\.jpg: a JPEG blurs a mask's edges; name it m\.png"),
        ("m.JPEG", r"m\.JPEG: a JPEG blurs"),
        ("m.webp", r"a WEBP blurs"),
        ("m.xyz", r"no format is known for '\.xyz'; name it m\.png, or with one of \.png, \.tif, \.tiff, \.bmp"),
        ("m", r"no format is known for ''; name it m\.png"),
    ],
)
def test_formats_that_hold_no_mask_are_refused(tmp_path, name, message):
    for attempt in (check_mask_path, lambda path: save_mask(path, square())):
        with pytest.raises(OutputError, match=message):
            attempt(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind"), [("o.png", "PNG"), ("o.jpg", "JPEG"), ("o.webp", "WEBP"), ("o.tif", "TIFF"), ("o.bmp", "BMP")]
)
def test_a_picture_is_written_in_the_format_of_its_ending(tmp_path, name, kind):
    check_picture_path(tmp_path / name)
    save_picture(tmp_path / name, grey(20, 30))
    with Image.open(tmp_path / name) as image:
        assert image.format == kind and image.size == (30, 20)
        assert np.abs(np.asarray(image).astype(int) - 100).max() <= 2


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("o.gif", (8, 8), r"no format is known for '\.gif'"),
        ("o.jpg", (8, 65501), r"o\.jpg: JPEG holds 65500 pixels a side, the picture 65501; name it \.png"),
        ("o.webp", (16384, 8), r"WEBP holds 16383"),
    ],
)
def test_pictures_that_no_file_of_that_kind_holds_are_refused(tmp_path, name, size, message):
    with pytest.raises(OutputError, match=message):
        save_picture(tmp_path / name, grey(*size))
    assert not list(tmp_path.iterdir())


def test_an_older_mask_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    save_mask(tmp_path / "m.png", square())

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    for save, value in ((save_mask, ~square()), (save_picture, grey(20, 30))):
        with pytest.raises(OutputError, match=r"m\.png cannot be written \(No space left on device\); free some space"):
            save(tmp_path / "m.png", value)
    assert (read_mask(tmp_path / "m.png") == square()).all()
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_picture_sheet_size_follows_columns_rows_and_captions():
    row = SheetRow([grey(10, 20), grey(20, 10)], "roofs")
    one = picture_sheet([row], tile=64)
    two = picture_sheet([row, row], tile=64)
    long = picture_sheet([SheetRow(row.pictures, "a much longer caption that takes several lines")], tile=64)
    assert one.width == two.width == 8 + 2 * (64 + 8)
    assert two.height > one.height + 64
    assert long.height > one.height
    assert picture_sheet([row], tile=64, heading="Best", titles=["a", "b"]).height > one.height


def test_picture_is_fitted_with_its_aspect():
    sheet = np.asarray(picture_sheet([SheetRow([grey(10, 20, 0)])], tile=64))
    dark = np.argwhere((sheet == 0).all(-1))
    assert (np.ptp(dark, axis=0) + 1).tolist() == [32, 64]


def test_picture_sheet_without_pictures_is_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        picture_sheet([])


def test_sheets_stand_side_by_side(tmp_path):
    sheet = picture_sheet([SheetRow([grey(10, 10)])], tile=32)
    joined = side_by_side([sheet, sheet], gap=10)
    assert joined.size == (2 * sheet.width + 10, sheet.height)
    save_picture(tmp_path / "sheet.jpg", joined)
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert image.format == "JPEG"


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=120), st.integers(40, 300))
def test_wrapped_lines_fit_and_lose_nothing(text, width):
    font = ImageFont.load_default(14)
    lines = wrap_text(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
