from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.config import ImageTransformConfig
from segearth.errors import UnknownNameError
from segearth.preprocessing.transform import ImageTransform

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


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 700), st.integers(64, 700), st.sampled_from(["resize", "letterbox"]), st.data())
def test_to_the_frame_and_back(height: int, width: int, fit: str, data: st.DataObject) -> None:
    """A rectangle anywhere comes back where it was, each edge to half a cell of the frame and a pixel."""
    transform = ImageTransform(ImageTransformConfig(size=256, fit=fit))
    y0, x0 = data.draw(st.integers(0, height // 2)), data.draw(st.integers(0, width // 2))
    y1, x1 = data.draw(st.integers(y0 + height // 4, height)), data.draw(st.integers(x0 + width // 4, width))
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    framed = transform.apply_to_mask(mask)
    assert framed.shape == transform.frame_size(height, width)
    assert framed.dtype == bool
    back = transform.invert(torch.from_numpy(framed)[None] * 2.0 - 1, height, width)
    assert back.shape == (1, height, width)
    rows, columns = (np.flatnonzero((back[0].numpy() > 0).any(axis)) for axis in (1, 0))
    _, _, h, w = transform.content_box(height, width)
    for found, true, cell in (
        (rows[0], y0, height / h), (rows[-1] + 1, y1, height / h), (columns[0], x0, width / w),
        (columns[-1] + 1, x1, width / w),
    ):  # fmt: skip
        # Letterboxed masks are sampled by their cells' upper left corners, up to a cell away.
        assert abs(found - true) <= (0.5 if fit == "resize" else 1) * cell + 1, (found, true, cell)
    image = transform.apply(np.zeros((height, width, 3), np.uint8))
    assert tuple(image.shape[1:]) == framed.shape
    assert transform.valid(height, width).shape == framed.shape
    assert transform.valid(height, width).sum() == h * w


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_image_and_mask_take_the_same_way(fit: str) -> None:
    """What is bright in the image is target in the frame, wherever it lies; on padding nothing is."""
    transform = ImageTransform(ImageTransformConfig(size=128, fit=fit, mean=[0.0] * 3, std=[255.0] * 3))
    mask = np.zeros((300, 180), bool)
    mask[20:110, 30:75] = True
    mask[200:300, 100:] = True
    frame = transform.apply(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255)[0].numpy()
    sure = np.abs(frame - 0.5) > 0.4
    assert sure.mean() > 0.95
    for framed, most in ((transform.apply_to_target(mask), 0.0), (transform.apply_to_mask(mask), 0.02)):
        wrong = (framed[sure] > 0.5) != (frame[sure] > 0.5)
        assert wrong.mean() <= (most if fit == "letterbox" else 0)  # there masks are sampled, images interpolated
        assert not framed[~transform.valid(300, 180)].any()


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_targets_are_averages(fit: str) -> None:
    """Cells of 4 x 4 pixels hold 16, 12, 8, 1 and 0 target pixels."""
    transform = ImageTransform(ImageTransformConfig(size=64, fit=fit))
    mask = np.zeros((256, 256), bool)
    mask[8:12, 8:12] = True
    mask[8:12, 12:15] = True
    mask[12:14, 8:12] = True
    mask[13, 13] = True
    target = transform.apply_to_target(mask)
    assert (target.dtype, target.shape) == (np.float32, (64, 64))
    assert target[2:5, 2:5].tolist() == [[1.0, 0.75, 0.0], [0.5, 1 / 16, 0.0], [0.0, 0.0, 0.0]]
    assert target.sum() == 37 / 16
    if fit == "resize":
        assert np.argwhere(transform.apply_to_mask(mask)).tolist() == [[2, 2], [2, 3]]  # more than half


def test_a_thin_target_is_raised_until_its_fullest_cell_counts_whole() -> None:
    transform = ImageTransform(ImageTransformConfig(size=64))
    road = np.zeros((256, 256), bool)
    road[101, :128] = True  # a quarter of each cell it crosses
    road[101, 128:192:2] = True  # an eighth
    target = transform.apply_to_target(road)
    assert target[25].tolist() == [1.0] * 32 + [0.5] * 16 + [0.0] * 16
    assert target.sum() == 40
    assert transform.apply_to_mask(road).sum() == 32
    assert not transform.apply_to_target(np.zeros((256, 256), bool)).any()


def test_a_side_that_grows_does_not_keep_the_other_from_being_averaged() -> None:
    """A strip of 16 x 512 pixels becomes 32 x 64: stripes of one pixel average to a half, as do grey levels."""
    transform = ImageTransform(ImageTransformConfig(size=64, mean=[0.0] * 3, std=[255.0] * 3))
    stripes = np.zeros((16, 512), bool)
    stripes[:, ::2] = True
    image = np.repeat(stripes[..., None], 3, 2).astype(np.uint8) * 255
    assert transform.frame_size(16, 512) == (32, 64)
    assert np.allclose(transform.apply(image), 0.5, atol=0.01)
    stripes[:8] = True
    target = transform.apply_to_target(stripes)
    assert np.allclose(target[:14], 1) and np.allclose(target[18:], 0.5)


def test_masks_that_grow_are_interpolated() -> None:
    transform = ImageTransform(ImageTransformConfig(size=64))
    half = np.zeros((16, 16), bool)
    half[:, 8:] = True
    assert np.array_equal(transform.apply_to_mask(half), np.repeat(np.repeat(half, 4, 0), 4, 1))


def test_only_the_longer_side_sets_the_scale() -> None:
    resize = ImageTransform(ImageTransformConfig(size=256))
    sizes = {(512, 512): (256, 256), (384, 512): (192, 256), (512, 300): (256, 160), (2000, 20): (256, 32)}
    assert {size: resize.frame_size(*size) for size in sizes} == sizes
    assert {size: resize.content_box(*size) for size in sizes} == {size: (0, 0, *sizes[size]) for size in sizes}
    letterbox = ImageTransform(ImageTransformConfig(size=256, fit="letterbox"))
    assert letterbox.content_box(512, 300) == (0, 53, 256, 150)
    assert letterbox.content_box(3, 2000) == (127, 0, 1, 256)
    assert resize.at_size(64).frame_size(384, 512) == (64, 64)
    assert (resize.at_size(64).fit, letterbox.at_size(64).fit) == ("resize", "letterbox")


def test_letterboxed_images_are_interpolated_and_others_averaged() -> None:
    """Stripes of 1 in 4 pixels, shrunk fourfold: an average sees a quarter, interpolation the two middle pixels."""
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, ::4] = 255
    levels = {"resize": 0.25, "letterbox": 0.0}
    for fit, level in levels.items():
        transform = ImageTransform(ImageTransformConfig(size=64, fit=fit, mean=[0.0] * 3, std=[255.0] * 3))
        frame = transform.apply(image)
        assert frame.dtype == torch.float32
        assert np.allclose(frame, level, atol=0.01)
        small = transform.apply(image[:16, :16])  # growing, both interpolate
        assert len(np.unique(small)) > 2


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_logits_come_back_cell_by_cell(fit: str) -> None:
    """A ramp over the frame stays a ramp over the image: cells' centres meet, not the frame's corners."""
    transform = ImageTransform(ImageTransformConfig(size=64, fit=fit))
    logits = (torch.arange(16.0) + 0.5).expand(1, 16, 16) / 16  # at a quarter of the frame, as from the decoder
    back = transform.invert(logits, 256, 256)[0]
    expected = (torch.arange(256) + 0.5) / 256
    assert torch.allclose(back[100, 16:-16], expected[16:-16], atol=1e-5)
    assert torch.allclose(transform.fill_frame(logits, 256, 256)[0, 30, 4:-4], (torch.arange(64) + 0.5)[4:-4] / 64)
    assert transform.invert(logits.bfloat16(), 128, 100).dtype == torch.float32


def test_the_frame_follows_the_image() -> None:
    """Both sides are asked for, in their order."""
    transform = ImageTransform(ImageTransformConfig(size=128))
    logits = torch.zeros(2, 8, 8)
    assert transform.fill_frame(logits, 200, 400).shape == (2, 64, 128)
    assert transform.fill_frame(logits, 400, 200).shape == (2, 128, 64)


def test_letterbox_masks_are_sampled_as_published() -> None:
    transform = ImageTransform(ImageTransformConfig(size=64, fit="letterbox"))
    mask = np.zeros((256, 128), bool)
    mask[::4, ::4] = True  # the pixel that nearest neighbour reads of each 4 x 4
    assert transform.apply_to_mask(mask).sum() == 64 * 32


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
    with pytest.raises(UnknownNameError, match=r"unknown image fit 'leterbox'.*\(known: letterbox, resize\)"):
        ImageTransform(ImageTransformConfig(fit="leterbox"))
