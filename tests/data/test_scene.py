from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.data.scene import Scene, SceneDataset, SceneObject, transform_image
from segearth.data.synthetic import SyntheticDataset
from segearth.errors import DatasetError


def block(number: int, category: str, x0: int, y0: int, x1: int, y1: int, **facts) -> SceneObject:
    return SceneObject(number, category, np.ones((y1 - y0, x1 - x0), bool), (x0, y0, x1, y1), **facts)


def test_union_mask_of_two_blocks_and_cut() -> None:
    scene = Scene(6, 4, [block(1, "a", 0, 0, 2, 2), block(2, "b", 1, 1, 4, 3)])
    assert scene.union_mask([1, 2]).sum() == 4 + 6 - 1
    assert scene.union_mask([1, 2], within=(0, 0, 2, 4)).sum() == 4 + 2 - 1
    assert not scene.union_mask([]).any()
    with pytest.raises(DatasetError, match=r"no object \[9\]"):
        scene.union_mask([9])


def test_area_and_centroid() -> None:
    item = block(1, "a", 2, 1, 6, 3)
    assert item.area == 8
    assert item.centroid == (4.0, 2.0)
    assert item.area_within((0, 0, 3, 2)) == 1
    assert item.area_within((0, 0, 2, 9)) == 0


def test_crop_by_hand() -> None:
    scene = Scene(8, 8, [block(1, "a", 2, 2, 6, 4)], gsd_m=1.0)
    half = scene.transform((4, 0, 8, 8), (16, 8))  # right half, twice as large
    assert half.objects[0].box == (0, 4, 4, 8)
    assert half.objects[0].area == 16
    assert half.gsd_m == pytest.approx(0.5)


def test_flip_and_turn_by_hand() -> None:
    scene = Scene(8, 4, [block(1, "a", 0, 0, 3, 1)])
    assert scene.transform((0, 0, 8, 4), (4, 8), flip=True).objects[0].box == (5, 0, 8, 1)
    # counter-clockwise: the upper left goes to the lower left
    assert scene.transform((0, 0, 8, 4), (8, 4), turns=1).objects[0].box == (0, 5, 1, 8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), turns=st.integers(-1, 4), flip=st.booleans(), factor=st.integers(1, 3))
def test_image_and_annotation_move_together(seed: int, turns: int, flip: bool, factor: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(v) for v in rng.integers(4, 20, 2))
    mask = rng.random((height, width)) < 0.5
    mask[0, 0] = True
    scene = Scene(width, height, [SceneObject(1, "a", mask, (0, 0, width, height))])
    x0, y0 = int(rng.integers(0, width - 2)), int(rng.integers(0, height - 2))
    x1, y1 = int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))
    size = ((y1 - y0) * factor, (x1 - x0) * factor)
    size = size if turns % 2 == 0 else size[::-1]
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    moved = scene.transform((x0, y0, x1, y1), size, flip, turns)
    shown = transform_image(image, (x0, y0, x1, y1), size, flip, turns)[..., 0]
    assert moved.union_mask([o.id for o in moved.objects]).shape == shown.shape == size
    # Where bilinear scaling is far from an edge it shows the mask exactly.
    drawn = moved.union_mask([o.id for o in moved.objects])
    sure = (shown < 60) | (shown > 195)
    assert np.array_equal(drawn[sure], shown[sure] > 127)


def test_sliver_is_marked_and_vanished_is_remembered() -> None:
    scene = Scene(100, 100, [block(1, "a", 0, 0, 52, 10), block(2, "b", 60, 60, 61, 61), block(3, "c", 60, 0, 90, 30)])
    half = scene.transform((50, 0, 100, 100), (100, 50))
    assert {o.category: o.truncated for o in half.objects} == {"a": True, "b": False, "c": False}
    small = scene.transform((50, 0, 100, 100), (10, 5))
    assert "b" in small.unresolved
    assert "b" not in small.by_category


def test_a_sliver_stays_one_after_a_second_crop() -> None:
    """A second crop sees no more of the object than the first: what was cut off does not come back."""
    scene = Scene(100, 100, [block(1, "a", 0, 0, 52, 10), block(2, "b", 60, 60, 90, 90)])
    once = scene.transform((50, 0, 100, 100), (100, 50))
    assert [item.truncated for item in once.objects] == [True, False]
    twice = once.transform((0, 0, 50, 50), (200, 200))  # the sliver is whole in this crop, and large in its frame
    assert [(item.category, item.truncated) for item in twice.objects] == [("a", True)]
    assert not scene.transform((0, 0, 100, 50), (50, 100)).objects[0].truncated


def test_a_piece_is_a_sliver_only_if_it_is_little_of_the_object_and_of_the_frame() -> None:
    """15 % of an object and 1 % of the frame, both counted in the new frame."""
    def truncated(width: int, seen: int, crop: int) -> bool:
        scene = Scene(1000, 100, [block(1, "a", 500 - width, 0, 500, 10)])
        return scene.transform((500 - seen, 0, 500 - seen + crop, 100), (100, crop)).objects[0].truncated

    assert truncated(100, 14, 200)  # 14 % of it, 140 of 20000 pixels
    assert not truncated(100, 15, 200)  # 15 % of it
    assert not truncated(100, 14, 140)  # 1 % of the frame
    assert truncated(100, 14, 141)


def test_from_coco_reads_polygons_and_rle() -> None:
    square = {"id": 1, "category_id": 1, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]], "attributes": {"levels": 3}}
    rle = {"id": 2, "category_id": 2, "segmentation": {"size": [8, 10], "counts": [0, 8, 72]}, "iscrowd": 1}
    categories = {1: {"name": "house"}, 2: {"name": "grass", "isthing": 0}}
    scene = Scene.from_coco({"width": 10, "height": 8, "source": "x"}, [square, rle], categories)
    house, grass = scene.objects
    assert (house.box, house.area, house.attributes) == ((2, 2, 6, 5), 12, {"levels": "3"})
    assert (grass.box, grass.is_thing) == ((0, 0, 1, 8), False)
    assert scene.vocabulary == {"house", "grass"}


def test_from_coco_takes_a_crowd_for_stuff() -> None:
    """``iscrowd`` marks things run together, which nobody can count."""
    part = {"category_id": 1, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]]}
    categories = {1: {"name": "house"}}
    crowd, single, plain = ({**part, "id": 1, "iscrowd": 1}, {**part, "id": 2, "iscrowd": 0}, {**part, "id": 3})
    scene = Scene.from_coco({"width": 10, "height": 8}, [crowd, single, plain], categories)
    assert [item.is_thing for item in scene.objects] == [False, True, True]


@pytest.mark.parametrize("segmentation", [{"size": [9, 9], "counts": [81]}, {"size": [8, 10]}, None])
def test_from_coco_names_a_bad_annotation(segmentation: object) -> None:
    bad = {"id": 7, "category_id": 1, "segmentation": segmentation}
    with pytest.raises(DatasetError, match="annotation 7"):
        Scene.from_coco({"width": 10, "height": 8}, [bad], {1: {"name": "house"}})


@pytest.mark.parametrize("crop", [(0, 0, 9, 4), (3, 0, 3, 4), (-1, 0, 4, 4)])
def test_crop_outside_is_an_error(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(DatasetError, match="leaves the 8x4 frame"):
        Scene(8, 4, []).transform(crop, (4, 4))
    with pytest.raises(DatasetError, match="leaves the 8x4 frame"):
        transform_image(np.zeros((4, 8, 3), np.uint8), crop, (4, 4))


def test_protocol() -> None:
    assert isinstance(SyntheticDataset(length=1), SceneDataset)
