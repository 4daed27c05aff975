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
    overlay_doubt,
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


def test_the_contour_is_as_wide_as_asked():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    painted = overlay(grey(40, 40), mask, (200, 0, 100), alpha=0.5, outline=3)
    column = painted[:, 20].tolist()
    assert column[7:8] == [[100] * 3]
    assert column[8:10] == [[35] * 3] * 2  # half as wide, rounded up
    assert column[10:13] == [[200, 0, 100]] * 3
    assert column[13:27] == [[150, 50, 100]] * 14
    assert column[27:33] == [*[[200, 0, 100]] * 3, *[[35] * 3] * 2, [100] * 3]
    assert painted[8, 8].tolist() == [35] * 3  # around corners too


@pytest.mark.parametrize(("side", "width"), [(20, 1), (449, 1), (451, 2), (900, 3)])
def test_the_contour_suits_the_images_size(side, width):
    mask = np.zeros((30, side), bool)
    mask[10:20] = True
    painted = overlay(grey(30, side), mask, (200, 0, 100), alpha=0.5)
    assert (painted == overlay(grey(30, side), mask, (200, 0, 100), alpha=0.5, outline=width)).all()
    assert (painted[:, side // 2] == (200, 0, 100)).all(-1).sum() == 2 * width


def test_a_mask_that_fills_the_image_has_no_contour():
    painted = overlay(grey(8, 9), np.ones((8, 9), bool), (200, 0, 100), alpha=0.25)
    assert (painted == (125, 75, 100)).all()


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


TILE, GAP = 64, 8
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def plain(colour, height=20, width=20):
    return np.full((height, width, 3), colour, np.uint8)


def drawn(picture, *colours):
    """Where a sheet has exactly one of some colours: ``(top, left, bottom, right)``, the end exclusive."""
    places = np.argwhere(np.any([(np.asarray(picture) == colour).all(-1) for colour in colours], axis=0))
    return (*places.min(0).tolist(), *(places.max(0) + 1).tolist()) if len(places) else None


def test_pictures_stand_in_their_row_and_column():
    rows = [SheetRow([plain(RED), plain(GREEN)]), SheetRow([plain(BLUE)])]
    sheet = picture_sheet(rows, tile=TILE)
    assert sheet.size == (GAP + 2 * (TILE + GAP), GAP + 2 * (TILE + 6 + 2 * GAP))
    second = GAP + TILE + 6 + 2 * GAP
    assert drawn(sheet, RED) == (GAP, GAP, GAP + TILE, GAP + TILE)
    assert drawn(sheet, GREEN) == (GAP, 2 * GAP + TILE, GAP + TILE, 2 * GAP + 2 * TILE)
    assert drawn(sheet, BLUE) == (second, GAP, second + TILE, GAP + TILE)
    assert np.asarray(sheet)[second + 5, 2 * GAP + TILE + 5].tolist() == [255, 255, 255]  # no picture, no ground


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 20, (16, 0, 48, 64)), (20, 10, (0, 16, 64, 48)), (200, 100, (0, 16, 64, 48)), (1, 500, (31, 0, 32, 64))],
)
def test_a_picture_is_fitted_into_the_middle_of_its_tile_with_its_aspect(height, width, box):
    sheet = picture_sheet([SheetRow([plain(RED, height, width)])], tile=TILE)
    found = drawn(sheet, RED)
    assert found == tuple(side + GAP for side in box)
    ground = np.asarray(sheet)[GAP : GAP + TILE, GAP : GAP + TILE].copy()
    ground[box[0] : box[2], box[1] : box[3]] = (236, 238, 241)
    assert (ground == (236, 238, 241)).all()


INK, FAINT = (32, 36, 42), (112, 118, 128)


def test_texts_stand_where_they_belong():
    rows = [SheetRow([plain(RED)] * 2, "IIII IIII", "HHHH"), SheetRow([plain(BLUE)] * 2, "", "")]
    sheet = picture_sheet(rows, titles=["HHHH", "IIII"], heading="HIHI", tile=TILE)
    top = GAP + 32 + 24
    assert drawn(sheet, RED)[:2] == (top, GAP)
    second = top + TILE + 6 + 20 + 18 + 2 * GAP
    assert drawn(sheet, BLUE)[:2] == (second, GAP)
    assert sheet.height == second + TILE + 6 + 2 * GAP
    picture = np.asarray(sheet)
    heading = drawn(picture[: GAP + 30], INK)
    assert heading is not None and drawn(picture[: GAP + 30], FAINT) is None
    title = picture[GAP + 32 : top]
    assert drawn(title, FAINT) is not None and drawn(title, INK) is None
    left, right = drawn(title[:, : GAP + TILE], FAINT), drawn(title[:, GAP + TILE :], FAINT)
    assert GAP <= left[1] < GAP + 4 and GAP <= right[1] < GAP + 4  # each over its own column
    below = picture[top + TILE : second]
    caption, note = drawn(below, INK), drawn(below, FAINT)
    assert 6 <= caption[0] < caption[2] <= 6 + 20 <= note[0] < note[2] <= 6 + 20 + 18
    assert drawn(picture[second + TILE :], INK, FAINT) is None
    words = picture_sheet(rows[:1], tile=TILE)
    assert (np.asarray(words)[GAP:] == picture[top:second]).all()


def test_long_texts_take_more_lines_and_push_the_next_row_down():
    text = "a much longer caption that takes several lines below such a narrow picture"
    sheet = picture_sheet([SheetRow([plain(RED)], text, text), SheetRow([plain(BLUE)])], tile=TILE)
    captions, notes = (len(wrap_text(text, ImageFont.load_default(size), TILE)) for size in (15, 13))
    assert captions > notes > 3
    assert drawn(sheet, BLUE)[0] == GAP + TILE + 6 + 20 * captions + 18 * notes + 2 * GAP
    ink = (np.asarray(sheet)[: drawn(sheet, BLUE)[0]] == INK).all(-1).any(1)
    starts = GAP + TILE + 6 + 20 * np.arange(captions)
    assert all(ink[start : start + 20].any() for start in starts) and not ink[starts[-1] + 20 :].any()


def test_picture_sheet_without_pictures_is_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        picture_sheet([])


def test_sheets_stand_side_by_side(tmp_path):
    sheets = [Image.fromarray(plain(RED, 30, 10)), Image.fromarray(plain(GREEN, 50, 20))]
    joined = side_by_side([*sheets, sheets[0]], gap=7)
    assert joined.size == (10 + 7 + 20 + 7 + 10, 50)
    expected = np.full((50, 54, 3), 255, np.uint8)
    expected[:30, :10] = expected[:30, 44:] = RED
    expected[:, 17:37] = GREEN
    assert (np.asarray(joined) == expected).all()
    assert side_by_side(sheets).size == (10 + 24 + 20, 50)
    save_picture(tmp_path / "sheet.jpg", joined)
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert image.format == "JPEG" and image.size == joined.size


class Letters:
    """A font in which every letter is ten pixels wide."""

    def getlength(self, text):
        return 10 * len(text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("  \n ", []),
        ("one", ["one"]),
        ("one two", ["one two"]),
        ("one two three", ["one two", "three"]),
        ("a bb  ccc\ndd", ["a bb", "ccc dd"]),
        ("seventeen", ["sevente", "en"]),
        ("to seventeen ab", ["to", "sevente", "en ab"]),
        ("fourteenletter", ["fourtee", "nletter"]),
    ],
)
def test_lines_break_at_spaces_and_inside_words_that_are_too_long(text, lines):
    assert wrap_text(text, Letters(), 70) == lines
    assert wrap_text("abc", Letters(), 5) == ["a", "b", "c"]


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=120), st.integers(40, 300))
def test_wrapped_lines_fit_and_lose_nothing(text, width):
    font = ImageFont.load_default(14)
    lines = wrap_text(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(text.split())


def test_doubt_fades_the_tint_and_shows_what_might_belong():
    """Four columns: surely in, hardly in, hardly out, surely out."""
    image = np.full((40, 80, 3), 100, np.uint8)
    logits = np.repeat(np.array([6.0, 0.3, -0.2, -6.0], np.float32), 20)[None].repeat(40, 0)
    drawn = overlay_doubt(image, logits > 0, logits).astype(int)
    moved = np.abs(drawn - 100).sum(-1)[20]
    assert moved[10] > 2 * moved[30] > 0  # strong where sure
    assert np.array_equal(drawn[20, 70], [100, 100, 100])
    assert drawn[20, 50, 0] > 120 and drawn[20, 50, 1] > 120 and drawn[20, 50, 2] < 100  # yellow
    plain = overlay(image, logits > 0, alpha=0.6)
    assert np.abs(drawn[20, 10] - plain[20, 10]).max() <= 2


def test_of_what_was_judged_absent_the_likeliest_places_stand_out():
    """Presence said no, so the mask is empty, though some logits are high: just these must be seen."""
    image = np.full((8, 80, 3), 100, np.uint8)
    logits = np.repeat(np.array([6.0, 0.5, -1.0, -6.0], np.float32), 20)[None].repeat(8, 0)
    moved = np.abs(overlay_doubt(image, np.zeros((8, 80), bool), logits).astype(int) - 100).sum(-1)[4]
    assert moved[10] >= moved[30] > moved[50] > moved[70] == 0


def test_a_mask_of_everything_is_strongest_where_the_logits_are_highest():
    image = np.full((8, 40, 3), 100, np.uint8)
    logits = np.repeat(np.array([-1.0, -3.0], np.float32), 20)[None].repeat(8, 0)
    moved = np.abs(overlay_doubt(image, np.ones((8, 40), bool), logits).astype(int) - 100).sum(-1)[4]
    assert moved[10] > moved[30] > 0


def test_doubt_is_measured_from_where_the_mask_was_cut():
    """Of a mask that must not be empty the logits are all negative: at 0 it would be cut nowhere."""
    image = np.full((8, 80, 3), 100, np.uint8)
    logits = np.repeat(np.array([-1.0, -4.0, -4.1, -9.0], np.float32), 20)[None].repeat(8, 0)
    drawn = overlay_doubt(image, logits > -4.05, logits).astype(int)
    moved = np.abs(drawn - 100).sum(-1)[4]
    assert moved[10] > 1.5 * moved[30] and moved[50] > 0 and moved[70] == 0
    with pytest.raises(ValueError, match="they must be equal"):
        overlay_doubt(image, logits > 0, logits[:4])
