from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.errors import ImageError
from segearth.preprocessing.images import as_rgb


def test_arrays_become_rgb_of_their_own_pixels(picture: np.ndarray) -> None:
    assert np.array_equal(as_rgb(picture), picture)
    assert np.array_equal(as_rgb(picture[..., 1]), np.stack([picture[..., 1]] * 3, axis=2))  # grey
    assert np.array_equal(as_rgb(np.dstack([picture, picture[..., :1]])), picture)  # alpha
    assert as_rgb(picture.transpose(1, 0, 2)).flags.c_contiguous
    assert np.array_equal(as_rgb(Image.fromarray(picture[..., 1])), np.stack([picture[..., 1]] * 3, axis=2))


@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize("across", [False, True])
def test_eight_pixels_a_side_are_enough(side: int, across: bool) -> None:
    array = np.zeros((side, 20, 3) if across else (20, side, 3), np.uint8)
    if side >= 8:
        assert as_rgb(array).shape == array.shape
        return
    size = "20x7" if across else "7x20"
    with pytest.raises(ImageError, match=f"^image is {size} px; at least 8 px a side are needed$"):
        as_rgb(array)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9), np.uint16), "^image array is uint16; scale it to 0-255 and convert it to uint8$"),
        (np.zeros((9, 9, 1), np.uint8), r"^image array has shape \(9, 9, 1\); expected \(H, W\), \(H, W, 3\) or"),
        (np.zeros((9, 9, 5), np.uint8), r"shape \(9, 9, 5\)"),
        (np.zeros((9, 9, 3, 3), np.uint8), r"shape \(9, 9, 3, 3\)"),
        (np.zeros(9, np.uint8), r"shape \(9,\)"),
        (None, "^cannot read an image from NoneType; give a path, an array or a PIL image$"),
    ],
)
def test_arrays_that_are_no_images(image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_rgb(image)


def test_pil_images_are_named_by_their_file(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1000])
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(ImageError, match=r"a\.jpg: damaged"):
        as_rgb(image)


def test_pictures_taken_with_a_turned_camera_stand_upright(picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(as_rgb(tmp_path / "a.png"), np.rot90(picture, -1))
