from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ConfigError, ImageError
from segearth.prompting.answers import Instance
from segearth.prompting.frames import IMAGE_PIXELS, THOUSANDTHS, UNIT, Frame, clip_to_image, smart_resize

SIZES = st.integers(20, 3000)
PLACES = st.floats(-5000, 5000)
SIDES = st.floats(0, 5000)
FRAMES = st.sampled_from([IMAGE_PIXELS, THOUSANDTHS, UNIT, Frame.resized(840, 840), Frame.smart(), Frame.smart(32)])


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    x, y = draw(PLACES), draw(PLACES)
    points = tuple(draw(st.lists(st.tuples(PLACES, PLACES), max_size=3)))
    return Instance(
        (x, y, x + draw(SIDES), y + draw(SIDES)),
        (draw(PLACES), draw(PLACES), draw(SIDES), draw(SIDES), draw(st.floats(-400, 400))),
        points, tuple(index % 2 for index in range(len(points))), draw(st.sampled_from([None, "ship"])),
    )  # fmt: skip


def numbers(instance: Instance) -> list[float]:
    assert instance.box is not None and instance.rotated_box is not None
    return [*instance.box, *instance.rotated_box, *(value for point in instance.points for value in point)]


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((840, 840), {}, (840, 840)),  # 30 x 28: the identity that Think2Seg relies on
        ((1000, 600), {}, (1008, 588)),  # 35.71 -> 36, 21.43 -> 21
        ((42, 70), {"min_pixels": 1}, (56, 56)),  # 1.5 -> 2 and 2.5 -> 2: halves go to the even one
        # 10 * 10 < 56 * 56: grown by 5.6 to 56 x 56, a multiple already
        ((10, 10), {}, (56, 56)),
        # 2000 * 1000 > 1280 * 784: shrunk by sqrt(1.99298) = 1.41173 to 1416.7 x 708.35, and down to 50 x 28, 25 x 28
        ((2000, 1000), {"max_pixels": 1280 * 784}, (1400, 700)),
        ((10, 1000), {}, (28, 560)),  # 0 x 28 is less than allowed: both grown by 0.56 and rounded up
        # 20 x 2000 > 20,000: shrunk by sqrt(2) to 14.1 x 1414.2; 14.1 is less than one multiple, and none would be left
        ((20, 2000), {"max_pixels": 20_000}, (28, 1400)),
        ((2000, 20), {"max_pixels": 20_000}, (1400, 28)),
        ((800, 800), {"factor": 32}, (800, 800)),
    ],
)
def test_smart_resize_by_hand(size: tuple[int, int], options: dict[str, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size, **options) == expected


@given(SIZES, SIZES, st.sampled_from([28, 32]))
def test_smart_resize_keeps_its_promises(height: int, width: int, factor: int) -> None:
    least, most = 56 * 56, 1280 * 784
    new = smart_resize(height, width, factor, least, most)
    assert new[0] % factor == new[1] % factor == 0
    assert least <= new[0] * new[1] <= most


def test_a_frame_says_its_size() -> None:
    assert Frame.resized(840, 800).size_for(100, 50) == (840, 800)
    assert Frame.smart().size_for(1000, 600) == (1008, 588)
    assert IMAGE_PIXELS.size_for(100, 50) == (100, 50)
    assert THOUSANDTHS.size_for(100, 50) == (1000, 1000)
    assert UNIT.size_for(100, 50) == (1, 1)
    assert [frame.in_pixels for frame in (IMAGE_PIXELS, Frame.smart(), THOUSANDTHS, UNIT)] == [True, True, False, False]


def test_conversions_by_hand() -> None:
    answered = Instance(box=(84, 210, 420, 840), points=((420.0, 420.0),), point_labels=(1,), label="ship")
    expected = Instance(box=(20, 25, 100, 100), points=((100.0, 50.0),), point_labels=(1,), label="ship")
    assert Frame.resized(840, 840).to_pixels(answered, height=100, width=200) == expected
    assert Frame.resized(840, 840).from_pixels(expected, height=100, width=200) == answered
    assert THOUSANDTHS.to_pixels(Instance(box=(0, 500, 250, 1000)), 100, 200).box == (0, 50, 50, 100)
    assert UNIT.to_pixels(Instance(box=(0, 0.5, 0.25, 1)), 100, 200).box == (0, 50, 50, 100)
    assert IMAGE_PIXELS.to_pixels(answered, 33, 77) == answered


@given(instances(), FRAMES, SIZES, SIZES)
def test_there_and_back_changes_nothing(instance: Instance, frame: Frame, height: int, width: int) -> None:
    for there, back in ((frame.to_pixels, frame.from_pixels), (frame.from_pixels, frame.to_pixels)):
        again = back(there(instance, height, width), height, width)
        assert numbers(again) == pytest.approx(numbers(instance), rel=1e-9, abs=1e-6)
        assert (again.point_labels, again.label) == (instance.point_labels, instance.label)


def test_a_rotated_box_is_stretched_as_documented() -> None:
    frame = Frame.resized(100, 100)  # shown an image of 100 x 200: x is doubled on the way to pixels

    def stretched(degrees: float) -> tuple[float, ...]:
        box = frame.to_pixels(Instance(rotated_box=(50, 50, 20, 10, degrees)), height=100, width=200).rotated_box
        assert box is not None
        return box

    assert stretched(0) == pytest.approx((100, 50, 40, 10, 0))
    assert stretched(90) == pytest.approx((100, 50, 20, 20, 90))  # its width lies along y, its height along x
    assert stretched(270) == pytest.approx((100, 50, 20, 20, 270))
    # Turned by 45 degrees, its width's direction (1, 1) becomes (2, 1): 26.565 degrees, longer by sqrt(5 / 2).
    # The area is doubled, so the height becomes 10 * 2 / sqrt(5 / 2).
    longer = math.sqrt(2.5)
    assert stretched(45) == pytest.approx((100, 50, 20 * longer, 20 / longer, math.degrees(math.atan2(1, 2))))


@given(instances(), FRAMES, SIZES, SIZES)
def test_a_rotated_box_grows_as_areas_do(instance: Instance, frame: Frame, height: int, width: int) -> None:
    own_height, own_width = frame.size_for(height, width)
    before, after = instance.rotated_box, frame.to_pixels(instance, height, width).rotated_box
    assert before is not None and after is not None
    share = height * width / (own_height * own_width)
    assert after[2] * after[3] == pytest.approx(before[2] * before[3] * share, rel=1e-9)


def test_clipping_is_its_own_step() -> None:
    instance = Instance(
        box=(-5, 10, 30, 80), points=((3.0, 4.0), (60.0, 4.0), (50.0, 40.0)), point_labels=(1, 0, 1), label="ship"
    )
    assert IMAGE_PIXELS.to_pixels(instance, 40, 50) == instance
    clipped = clip_to_image(instance, height=40, width=50)
    assert clipped == replace(instance, box=(0, 10, 30, 40), points=((3.0, 4.0), (50.0, 40.0)), point_labels=(1, 1))


@pytest.mark.parametrize(
    "outside",
    [
        Instance(box=(50, 0, 60, 10)),  # begins where the image ends
        Instance(box=(-9, -9, -1, -1)),
        Instance(box=(5, 5, 5, 20)),  # without area
        Instance(points=((-1.0, 5.0),), point_labels=(1,)),
        Instance(rotated_box=(60, 10, 10, 10, 0)),
        Instance(rotated_box=(10, -20, 10, 40, 90)),
    ],
)
def test_what_lies_outside_is_gone(outside: Instance) -> None:
    assert clip_to_image(outside, height=40, width=50) is None


def test_a_rotated_box_that_reaches_in_stays_whole() -> None:
    turned = Instance(rotated_box=(56, 10, 10, 10, 45))  # upright it would end at 51; its corner reaches 48.9
    assert clip_to_image(turned, height=40, width=50) == turned
    standing = Instance(rotated_box=(10, -15, 40, 10, 90))  # its width lies along y and reaches down to 5
    assert clip_to_image(standing, height=40, width=50) == standing


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_an_image_without_pixels(size: tuple[int, int]) -> None:
    for frame in (IMAGE_PIXELS, UNIT, Frame.smart()):
        with pytest.raises(ImageError, match="both sides must be above 0"):
            frame.to_pixels(Instance(box=(0, 0, 1, 1)), *size)


def test_an_elongated_image() -> None:
    assert smart_resize(200, 1)[1] == 28
    with pytest.raises(ImageError, match="cut it into tiles"):
        smart_resize(201, 1)


def test_impossible_frames() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Frame.resized(0, 840)
    with pytest.raises(ConfigError, match="min_pixels <= max_pixels"):
        Frame.smart(28, 100, 99)
