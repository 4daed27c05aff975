from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segearth.errors import ImageError
from segearth.utils.files import read_mask

LEVELS = np.array([[0, 1, 127, 128, 255]], np.uint8)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0, [0, 1, 1, 1, 1]), (127, [0, 0, 0, 1, 1]), (254, [0, 0, 0, 0, 1])]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
def test_threshold_in_every_mode(tmp_path, threshold, expected, mode):
    Image.fromarray(LEVELS).convert(mode).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", threshold).astype(int).tolist() == [expected]


@pytest.mark.parametrize("threshold", [0, 127])
@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16"])
def test_zeros_and_ones_stay(tmp_path, threshold, mode):
    array = np.array([[0, 1, 1, 0]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array * 255).convert("1") if mode == "1" else Image.fromarray(array)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9] + [0] * 762)
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", threshold).astype(int).tolist() == [[0, 1, 1, 0]]


def test_any_channel_counts(tmp_path):
    array = np.zeros((1, 3, 3), np.uint8)
    array[0, 0, 0] = array[0, 1, 2] = 255
    Image.fromarray(array).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[True, True, False]]


def test_missing_and_damaged(tmp_path):
    with pytest.raises(ImageError, match="no mask file"):
        read_mask(tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="damaged or not an image"):
        read_mask(tmp_path / "m.png")
