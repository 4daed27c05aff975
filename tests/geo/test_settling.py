from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import QuestionError
from segearth.geo.scene_questions import understand
from segearth.geo.settling import Ground, settle

shapely = pytest.importorskip("shapely")

NORTH_WEST, NORTH_EAST = shapely.box(10, 10, 20, 20), shapely.box(50, 10, 80, 30)
SMALL, SOUTH_EAST = shapely.box(10, 70, 15, 75), shapely.box(80, 80, 100, 100)
BUILDINGS = [NORTH_WEST, NORTH_EAST, SMALL, SOUTH_EAST]
ROAD = shapely.box(0, 45, 100, 50)
NORTH_UP = Ground(100, 100, (0.5, 0.5), np.diag([0.5, -0.5]))


def settled(text: str, ground: Ground = NORTH_UP, shapes: list | None = None, others: list | None = None) -> list:
    question = understand(text)
    assert question.mode == "settle"
    shapes = BUILDINGS if shapes is None else shapes
    return settle(question.conditions, shapes, {"the road": [ROAD] if others is None else others}, ground)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("the largest building", [NORTH_EAST]),
        ("the second largest building", [SOUTH_EAST]),
        ("the two smallest buildings", [SMALL, NORTH_WEST]),
        ("the ten largest buildings", [NORTH_EAST, SOUTH_EAST, NORTH_WEST, SMALL]),
        ("the building nearest to the road", [NORTH_EAST]),  # 15 px; the others 20, 25 and 30
        ("the building farthest from the road", [SOUTH_EAST]),
        ("the buildings within 10 m of the road", [NORTH_EAST, SMALL]),  # 7.5 and 10 m
        ("the buildings within 15 px of the road", [NORTH_EAST]),
        ("the buildings more than 10 m from the road", [NORTH_WEST, SOUTH_EAST]),
        ("the buildings north of the road", [NORTH_WEST, NORTH_EAST]),
        ("the buildings below the road", [SMALL, SOUTH_EAST]),
        ("the buildings in the southwest", [SMALL]),
        ("the buildings in the upper half", [NORTH_WEST, NORTH_EAST]),
        ("the easternmost building", [SOUTH_EAST]),
        ("the topmost building", [NORTH_WEST]),  # by centroid
        ("the largest building in the lower half", [SOUTH_EAST]),
    ],
)
def test_worked_examples(text: str, chosen: list) -> None:
    assert settled(text) == chosen


def test_a_long_thing_is_cut_at_the_border_of_a_region() -> None:
    (cut,) = settled("the road in the left half", shapes=[ROAD])
    assert cut.bounds == (0, 45, 50, 50)
    (cut,) = settled("the road in the east", shapes=[ROAD])
    assert cut.bounds == (50, 45, 100, 50)
    assert settled("the road in the lower half", shapes=[shapely.box(0, 45, 100, 50)]) == []


def test_the_compass_turns_with_the_map() -> None:
    east_up = Ground(100, 100, (0.5, 0.5), np.array([[0, -0.5], [-0.5, 0]]))  # north is to the left, so east is up
    assert settled("the buildings in the southeast", east_up) == [NORTH_EAST]  # south is right, east is up
    assert settled("the northernmost building", east_up) == [SMALL]
    assert settled("the buildings east of the road", east_up) == [NORTH_WEST, NORTH_EAST]
    assert settled("the leftmost building", east_up) == [SMALL]  # the picture stays as it is


def test_pixels_may_be_longer_one_way() -> None:
    shapes, pole = [shapely.box(40, 0, 41, 1), shapely.box(0, 30, 1, 31)], [shapely.box(0, 0, 1, 1)]
    assert settled("the car nearest to the road", shapes=shapes, others=pole) == [shapes[1]]
    flat = Ground(100, 100, (0.5, 1.0), np.diag([0.5, -1]))
    assert settled("the car nearest to the road", flat, shapes, pole) == [shapes[0]]


@pytest.mark.parametrize("compass", [np.diag([0.5, 0.5]), np.diag([-0.5, -0.5])])  # south-up, and a mirrored one
def test_the_compass_is_mirrored_with_the_map(compass: np.ndarray) -> None:
    def on_ground(box: shapely.Polygon) -> list[float]:
        return (shapely.get_coordinates(box.centroid)[0] - 50) @ compass.T

    ground = Ground(100, 100, (0.5, 0.5), compass)
    (found,) = settled("the easternmost building", ground)
    assert found == max(BUILDINGS, key=lambda box: on_ground(box)[0])
    assert settled("the buildings in the east", ground) == [box for box in BUILDINGS if on_ground(box)[0] > 0]
    pole = [shapely.box(49, 49, 51, 51)]
    shapes = [shapely.box(x, y, x + 2, y + 2) for x, y in ((10, 45), (90, 45), (45, 10), (45, 90))]
    for name, way in (("east", (1, 0)), ("west", (-1, 0)), ("north", (0, 1)), ("south", (0, -1))):
        expected = [box for box in shapes if on_ground(box) @ way > 15]
        assert settled(f"the buildings {name} of the road", ground, shapes, pole) == expected


def test_within_45_degrees_of_a_direction_is_meant_on_the_ground() -> None:
    """A thing 40 px to the right and 20 px up is 15 m to the east and 20 m to the north."""
    ground, pole = Ground(100, 100, (0.375, 1.0), np.diag([0.375, -1])), [shapely.box(0, 60, 0.1, 60.1)]
    shapes = [shapely.box(39, 39, 41, 41)]
    assert settled("the cars north of the road", ground, shapes, pole) == shapes
    assert settled("the cars east of the road", ground, shapes, pole) == []
    assert settled("the cars right of the road", ground, shapes, pole) == shapes  # of the picture: in its pixels


def test_size_is_that_on_the_ground() -> None:
    ground = Ground(100, 100, areas=lambda shapes: shapely.area(shapes) * shapely.bounds(shapes)[:, 1])
    assert settled("the largest building", ground) == [SOUTH_EAST]
    assert settled("the second largest building", ground) == [NORTH_EAST]


def test_what_is_near_to_nothing() -> None:
    assert settled("the building nearest to the road", others=[]) == []
    assert settled("the buildings within 50 m of the road", others=[]) == []
    assert settled("the buildings more than 50 m from the road", others=[]) == BUILDINGS
    assert settled("the largest building", shapes=[]) == []


def test_without_a_map() -> None:
    picture = Ground(100, 100)
    assert settled("the building nearest to the road", picture) == [NORTH_EAST]
    assert settled("the buildings within 15 px of the road", picture) == [NORTH_EAST]
    with pytest.raises(QuestionError, match="such as 10 px"):
        settled("the buildings within 10 m of the road", picture)
    with pytest.raises(QuestionError, match="ask for left, right"):
        settled("the northernmost building", picture)
