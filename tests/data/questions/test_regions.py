from __future__ import annotations

import pytest

from segearth.data.questions.regions import REGIONS, has_direction, mirrored


@pytest.mark.parametrize(
    ("name", "box", "core", "halo"),
    [
        ("left half", (0, 0, 0.5, 1), (0, 0, 0.47, 1), (0, 0, 0.53, 1)),
        ("right half", (0.5, 0, 1, 1), (0.53, 0, 1, 1), (0.47, 0, 1, 1)),
        ("upper half", (0, 0, 1, 0.5), (0, 0, 1, 0.47), (0, 0, 1, 0.53)),
        ("lower half", (0, 0.5, 1, 1), (0, 0.53, 1, 1), (0, 0.47, 1, 1)),
        ("upper left quarter", (0, 0, 0.5, 0.5), (0, 0, 0.47, 0.47), (0, 0, 0.53, 0.53)),
        ("lower right quarter", (0.5, 0.5, 1, 1), (0.53, 0.53, 1, 1), (0.47, 0.47, 1, 1)),
        ("upper right corner", (0.5, 0, 1, 0.5), (0.64, 0, 1, 0.36), (0.47, 0, 1, 0.53)),
        ("lower left corner", (0, 0.5, 0.5, 1), (0, 0.64, 0.36, 1), (0, 0.47, 0.53, 1)),
        ("middle", (0.25, 0.25, 0.75, 0.75), (0.36, 0.36, 0.64, 0.64), (0.2, 0.2, 0.8, 0.8)),
    ],
)
def test_parts_of_the_frame_by_hand(name: str, box: tuple, core: tuple, halo: tuple) -> None:
    region = REGIONS[name]
    assert (region.box, region.core, region.halo) == tuple(pytest.approx(part) for part in (box, core, halo))


@pytest.mark.parametrize("name", sorted(REGIONS))
def test_a_part_and_its_mirror_image(name: str) -> None:
    region, other = REGIONS[name], REGIONS[mirrored(name)]
    for (x0, y0, x1, y1), turned in zip(region, other, strict=True):
        assert turned == pytest.approx((1 - x1, y0, 1 - x0, y1))
    assert has_direction(name) == (name != "middle")


def test_mirrored_sides() -> None:
    assert [mirrored(side) for side in ("left", "right", "above", "below")] == ["right", "left", "above", "below"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the building in the upper left corner", True),
        ("the Right one", True),
        ("houses north-west of the road", True),
        ("the northernmost pool", True),
        ("what is above it?", True),
        ("the second largest building", False),
        ("leftovers", False),
        ("the eastern wall", True),
        ("the least green field", False),
        ("a downtown car park", False),
        ("the topmost roof", True),
        ("trees further down", True),
    ],
)
def test_has_direction(text: str, expected: bool) -> None:
    assert has_direction(text) is expected
