from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.config import ImageTransformConfig
from segearth.data.transform import ImageTransform
from segearth.errors import UnknownNameError

SIDES = st.integers(64, 4000)


@given(SIDES, SIDES)
def test_frames(height: int, width: int) -> None:
    resize = ImageTransform(ImageTransformConfig(size=256))
    h, w = resize.frame_size(height, width)
    assert h % 32 == w % 32 == 0
    assert max(h, w) == 256
    assert min(h, w) >= 32
    letterbox = ImageTransform(ImageTransformConfig(size=256, fit="letterbox"))
    assert letterbox.frame_size(height, width) == (256, 256)
    top, left, h, w = letterbox.content_box(height, width)
    assert max(h, w) == 256
    assert 0 <= top <= 256 - h
    assert 0 <= left <= 256 - w
    assert abs(top - (256 - h - top)) <= 1  # centred


@settings(max_examples=25, deadline=None)
@given(st.integers(64, 700), st.integers(64, 700), st.sampled_from(["resize", "letterbox"]))
def test_to_the_frame_and_back(height: int, width: int, fit: str) -> None:
    transform = ImageTransform(ImageTransformConfig(size=256, fit=fit))
    mask = np.zeros((height, width), bool)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    framed = transform.apply_to_mask(mask)
    assert framed.shape == transform.frame_size(height, width)
    back = transform.invert(torch.from_numpy(framed)[None] * 2.0 - 1, height, width)
    assert back.shape == (1, height, width)
    found = back[0].numpy() > 0
    assert (found & mask).sum() / (found | mask).sum() > 0.9
    image = transform.apply(np.zeros((height, width, 3), np.uint8))
    assert tuple(image.shape[1:]) == framed.shape
    assert transform.valid(height, width).shape == framed.shape


def test_normalisation_by_hand() -> None:
    transform = ImageTransform(ImageTransformConfig(size=64, mean=[100.0, 0.0, 50.0], std=[10.0, 1.0, 50.0]))
    frame = transform.apply(np.full((64, 64, 3), 100, np.uint8))
    assert frame[:, 0, 0].tolist() == [0.0, 100.0, 1.0]


def test_padding_comes_before_normalisation() -> None:
    transform = ImageTransform(ImageTransformConfig(size=64, fit="letterbox", mean=[64.0] * 3, std=[64.0] * 3))
    frame = transform.apply(np.full((32, 64, 3), 64, np.uint8))
    assert frame[0, 0, 0] == -1  # black, not the mean
    assert frame[0, 32, 0] == 0
    assert transform.valid(32, 64)[:, 0].sum() == 32


def test_an_unknown_fit() -> None:
    with pytest.raises(UnknownNameError, match="letterbox"):
        ImageTransform(ImageTransformConfig(fit="leterbox"))
