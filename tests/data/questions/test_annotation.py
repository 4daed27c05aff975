from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.data.questions.annotation import AnnotatedDataset, AnnotatedImage, AnnotatedObject, transform_image
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.errors import DatasetError


def block(number: int, category: str, x0: int, y0: int, x1: int, y1: int, **facts) -> AnnotatedObject:
    return AnnotatedObject(number, category, np.ones((y1 - y0, x1 - x0), bool), (x0, y0, x1, y1), **facts)


def test_union_mask_of_two_blocks_and_cut() -> None:
    annotated = AnnotatedImage(6, 4, [block(1, "a", 0, 0, 2, 2), block(2, "b", 1, 1, 4, 3)])
    assert annotated.union_mask([1, 2]).sum() == 4 + 6 - 1
    assert annotated.union_mask([1, 2], within=(0, 0, 2, 4)).sum() == 4 + 2 - 1
    assert not annotated.union_mask([]).any()
    with pytest.raises(DatasetError, match=r"no object \[9\]"):
        annotated.union_mask([9])


def test_area_and_centroid() -> None:
    item = block(1, "a", 2, 1, 6, 3)
    assert item.area == 8
    assert item.centroid == (4.0, 2.0)
    assert item.area_within((0, 0, 3, 2)) == 1
    assert item.area_within((0, 0, 2, 9)) == 0


def test_crop_by_hand() -> None:
    annotated = AnnotatedImage(8, 8, [block(1, "a", 2, 2, 6, 4)], gsd_m=1.0)
    half = annotated.transform((4, 0, 8, 8), (16, 8))  # right half, twice as large
    assert half.objects[0].box == (0, 4, 4, 8)
    assert half.objects[0].area == 16
    assert half.gsd_m == pytest.approx(0.5)


def test_flip_and_turn_by_hand() -> None:
    annotated = AnnotatedImage(8, 4, [block(1, "a", 0, 0, 3, 1)])
    assert annotated.transform((0, 0, 8, 4), (4, 8), flip=True).objects[0].box == (5, 0, 8, 1)
    # counter-clockwise: the upper left goes to the lower left
    assert annotated.transform((0, 0, 8, 4), (8, 4), turns=1).objects[0].box == (0, 5, 1, 8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), turns=st.integers(-1, 4), flip=st.booleans(), factor=st.integers(1, 3))
def test_image_and_annotation_move_together(seed: int, turns: int, flip: bool, factor: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(v) for v in rng.integers(4, 20, 2))
    mask = rng.random((height, width)) < 0.5
    mask[0, 0] = True
    annotated = AnnotatedImage(width, height, [AnnotatedObject(1, "a", mask, (0, 0, width, height))])
    x0, y0 = int(rng.integers(0, width - 2)), int(rng.integers(0, height - 2))
    x1, y1 = int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))
    size = ((y1 - y0) * factor, (x1 - x0) * factor)
    size = size if turns % 2 == 0 else size[::-1]
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    moved = annotated.transform((x0, y0, x1, y1), size, flip, turns)
    shown = transform_image(image, (x0, y0, x1, y1), size, flip, turns)[..., 0]
    assert moved.union_mask([o.id for o in moved.objects]).shape == shown.shape == size
    # Where bilinear scaling is far from an edge it shows the mask exactly.
    drawn = moved.union_mask([o.id for o in moved.objects])
    sure = (shown < 60) | (shown > 195)
    assert np.array_equal(drawn[sure], shown[sure] > 127)


def test_sliver_is_marked_and_vanished_is_remembered() -> None:
    annotated = AnnotatedImage(
        100, 100, [block(1, "a", 0, 0, 52, 10), block(2, "b", 60, 60, 61, 61), block(3, "c", 60, 0, 90, 30)]
    )
    half = annotated.transform((50, 0, 100, 100), (100, 50))
    assert {o.category: o.truncated for o in half.objects} == {"a": True, "b": False, "c": False}
    small = annotated.transform((50, 0, 100, 100), (10, 5))
    assert "b" in small.unresolved
    assert "b" not in small.by_category


def test_a_sliver_stays_one_after_a_second_crop() -> None:
    """A second crop sees no more of the object than the first: what was cut off does not come back."""
    annotated = AnnotatedImage(100, 100, [block(1, "a", 0, 0, 52, 10), block(2, "b", 60, 60, 90, 90)])
    once = annotated.transform((50, 0, 100, 100), (100, 50))
    assert [item.truncated for item in once.objects] == [True, False]
    twice = once.transform((0, 0, 50, 50), (200, 200))  # the sliver is whole in this crop, and large in its frame
    assert [(item.category, item.truncated) for item in twice.objects] == [("a", True)]
    assert not annotated.transform((0, 0, 100, 50), (50, 100)).objects[0].truncated


def test_a_piece_is_a_sliver_only_if_it_is_little_of_the_object_and_of_the_frame() -> None:
    """15 % of an object and 1 % of the frame, both counted in the new frame."""

    def truncated(width: int, seen: int, crop: int) -> bool:
        annotated = AnnotatedImage(1000, 100, [block(1, "a", 500 - width, 0, 500, 10)])
        return annotated.transform((500 - seen, 0, 500 - seen + crop, 100), (100, crop)).objects[0].truncated

    assert truncated(100, 14, 200)  # 14 % of it, 140 of 20000 pixels
    assert not truncated(100, 15, 200)  # 15 % of it
    assert not truncated(100, 14, 140)  # 1 % of the frame
    assert truncated(100, 14, 141)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), turns=st.integers(-5, 5), flip=st.booleans())
def test_a_transform_samples_every_pixel_where_a_loop_would(seed: int, turns: int, flip: bool) -> None:
    """Each pixel of the new frame looks at one pixel of the old: found here by walking through the steps backwards."""
    rng = np.random.default_rng(seed)
    width, height = (int(v) for v in rng.integers(2, 12, 2))
    objects, masks = [], {}
    for number in range(1, 4):
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        x1, y1 = int(rng.integers(x0, width)) + 1, int(rng.integers(y0, height)) + 1
        mask = rng.random((y1 - y0, x1 - x0)) < 0.6
        facts = {"colour": str(number)}
        objects.append(
            AnnotatedObject(number, f"class {number}", mask, (x0, y0, x1, y1), number != 2, facts, number == 3)
        )
        masks[number] = np.zeros((height, width), bool)
        masks[number][y0:y1, x0:x1] = mask
    left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
    crop = (left, top, int(rng.integers(left, width)) + 1, int(rng.integers(top, height)) + 1)
    out_size = (int(rng.integers(1, 15)), int(rng.integers(1, 15)))
    moved = AnnotatedImage(width, height, objects, frozenset("abc")).transform(crop, out_size, flip, turns)
    expected = {number: np.zeros(out_size, bool) for number in masks}
    for row in range(out_size[0]):
        for column in range(out_size[1]):
            u, v = (column + 0.5) / out_size[1], (row + 0.5) / out_size[0]
            u = 1 - u if flip else u
            for _ in range(turns % 4):  # back by a quarter turn clockwise
                u, v = 1 - v, u
            x = crop[0] + min(int(u * (crop[2] - crop[0]) + 1e-9), crop[2] - crop[0] - 1)
            y = crop[1] + min(int(v * (crop[3] - crop[1]) + 1e-9), crop[3] - crop[1] - 1)
            for number, mask in masks.items():
                expected[number][row, column] = mask[y, x]
    assert (moved.height, moved.width) == out_size and moved.vocabulary == frozenset("abc")
    seen = {item.id: item for item in moved.objects}
    for number, mask in expected.items():
        assert (number in seen) == mask.any()
        if number in seen:
            assert np.array_equal(moved.union_mask([number]), mask)
            item = seen[number]
            assert (item.category, item.is_thing) == (f"class {number}", number != 2)
            assert item.attributes == {"colour": str(number)}
        in_crop = masks[number][crop[1] : crop[3], crop[0] : crop[2]].any()
        assert (f"class {number}" in moved.unresolved) == (in_crop and not mask.any())
    assert 3 not in seen or seen[3].truncated


def test_what_is_unresolved_stays_so_and_the_ground_size_follows_the_scale() -> None:
    annotated = AnnotatedImage(
        20, 10, [], unresolved=frozenset(("a",)), gsd_m=0.5, source="x", known_absent=frozenset(("b",))
    )
    half = annotated.transform((0, 0, 10, 10), (5, 5))
    assert (half.unresolved, half.gsd_m, half.source, half.known_absent) == ({"a"}, 1.0, "x", {"b"})
    assert annotated.transform((0, 0, 10, 10), (20, 5)).gsd_m == pytest.approx(0.5)  # of a pixel's area
    assert AnnotatedImage(20, 10, []).transform((0, 0, 20, 10), (10, 20)).gsd_m is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_area_and_centroid_are_the_pixels_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 9)), int(rng.integers(1, 9)))) < 0.5
    x0, y0 = (int(v) for v in rng.integers(0, 9, 2))
    item = AnnotatedObject(1, "a", mask, (x0, y0, x0 + mask.shape[1], y0 + mask.shape[0]))
    full = np.zeros((20, 20), bool)
    full[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]] = mask
    assert item.area == full.sum()
    if item.area:
        ys, xs = np.nonzero(full)
        assert item.centroid == pytest.approx((xs.mean() + 0.5, ys.mean() + 0.5))
    else:
        assert item.centroid == (x0, y0)
    for _ in range(10):
        (a, c), (b, d) = (sorted(int(v) for v in rng.integers(0, 20, 2)) for _ in range(2))
        assert item.area_within((a, b, c, d)) == full[b:d, a:c].sum()


def test_groups_keep_the_order_and_the_classes_asked_for() -> None:
    annotated = AnnotatedImage(9, 9, [block(1, "a", 0, 0, 1, 1), block(2, "b", 1, 0, 2, 1), block(3, "a", 2, 0, 3, 1)])
    assert {name: [item.id for item in items] for name, items in annotated.by_category.items()} == {
        "a": [1, 3],
        "b": [2],
    }
    assert [item.id for item in annotated.of(("b", "c", "a"))] == [2, 1, 3]


def test_a_cut_keeps_only_what_is_in_the_box() -> None:
    annotated = AnnotatedImage(6, 4, [block(1, "a", 0, 0, 6, 4)], source="aerial")
    assert np.argwhere(annotated.union_mask([1], within=(4, 1, 6, 3))).tolist() == [[1, 4], [1, 5], [2, 4], [2, 5]]
    with pytest.raises(DatasetError, match=r"^image of aerial has no object \[8, 9\]$"):
        annotated.union_mask([9, 1, 8])
    with pytest.raises(DatasetError, match="image of unknown source"):
        AnnotatedImage(6, 4, []).union_mask([9])


def test_from_coco_reads_every_fact() -> None:
    square = {"id": "1", "category_id": 1, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]]}
    empty = {"id": 2, "category_id": 1, "segmentation": {"size": [8, 10], "counts": [80]}}
    categories = {1: {"name": "house", "isthing": 1}, 2: {"name": "grass", "isthing": 0}}
    grass = {"id": 3, "category_id": 2, "segmentation": [[0, 0, 4, 0, 4, 1, 0, 1]], "attributes": None}
    told = dict(known_absent=["b"], incomplete=["c"], possible=["d"])
    record = {"width": "10", "height": "8", "gsd_m": 0.3, "source": 7}
    annotated = AnnotatedImage.from_coco(record, [empty, square, grass], categories, vocabulary=["a"], **told)
    assert [(item.id, item.is_thing, item.attributes) for item in annotated.objects] == [(1, True, {}), (3, False, {})]
    assert (annotated.width, annotated.height, annotated.gsd_m, annotated.source) == (10, 8, 0.3, "7")
    assert (annotated.vocabulary, annotated.known_absent, annotated.incomplete, annotated.possible) == (
        {"a"},
        {"b"},
        {"c"},
        {"d"},
    )
    bare = AnnotatedImage.from_coco({"width": 10, "height": 8}, [], categories)
    assert (bare.gsd_m, bare.source, bare.known_absent, bare.incomplete) == (None, "", frozenset(), frozenset())


def test_an_image_is_averaged_where_it_shrinks_and_blended_where_it_grows() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, ::2] = 200
    assert (transform_image(image, (0, 0, 4, 4), (2, 2)) == 100).all()
    assert (transform_image(image, (0, 0, 4, 4), (2, 4))[..., 0] == [200, 0, 200, 0]).all()  # one side shrinks: blended
    grown = transform_image(image, (0, 0, 2, 4), (4, 8))
    assert grown[0, :, 0].tolist() == [200, 200, 175, 125, 75, 25, 0, 0]
    assert grown.flags.c_contiguous and grown.dtype == np.uint8
    turned = transform_image(image, (0, 0, 4, 4), (4, 4), turns=5)
    assert np.array_equal(turned, np.rot90(image))
    assert np.array_equal(transform_image(image, (0, 0, 4, 4), (4, 4), flip=True), image[:, ::-1])


def test_from_coco_reads_polygons_and_rle() -> None:
    square = {"id": 1, "category_id": 1, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]], "attributes": {"levels": 3}}
    rle = {"id": 2, "category_id": 2, "segmentation": {"size": [8, 10], "counts": [0, 8, 72]}, "iscrowd": 1}
    categories = {1: {"name": "house"}, 2: {"name": "grass", "isthing": 0}}
    annotated = AnnotatedImage.from_coco({"width": 10, "height": 8, "source": "x"}, [square, rle], categories)
    house, grass = annotated.objects
    assert (house.box, house.area, house.attributes) == ((2, 2, 6, 5), 12, {"levels": "3"})
    assert (grass.box, grass.is_thing) == ((0, 0, 1, 8), False)
    assert annotated.vocabulary == {"house", "grass"}


def test_from_coco_takes_a_crowd_for_stuff() -> None:
    """``iscrowd`` marks things run together, which nobody can count."""
    part = {"category_id": 1, "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]]}
    categories = {1: {"name": "house"}}
    crowd, single, plain = ({**part, "id": 1, "iscrowd": 1}, {**part, "id": 2, "iscrowd": 0}, {**part, "id": 3})
    annotated = AnnotatedImage.from_coco({"width": 10, "height": 8}, [crowd, single, plain], categories)
    assert [item.is_thing for item in annotated.objects] == [False, True, True]


@pytest.mark.parametrize("segmentation", [{"size": [9, 9], "counts": [81]}, {"size": [8, 10]}, None])
def test_from_coco_names_a_bad_annotation(segmentation: object) -> None:
    bad = {"id": 7, "category_id": 1, "segmentation": segmentation}
    with pytest.raises(DatasetError, match="annotation 7"):
        AnnotatedImage.from_coco({"width": 10, "height": 8}, [bad], {1: {"name": "house"}})


@pytest.mark.parametrize("crop", [(0, 0, 9, 4), (3, 0, 3, 4), (-1, 0, 4, 4)])
def test_crop_outside_is_an_error(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(DatasetError, match="leaves the 8x4 frame"):
        AnnotatedImage(8, 4, []).transform(crop, (4, 4))
    with pytest.raises(DatasetError, match="leaves the 8x4 frame"):
        transform_image(np.zeros((4, 8, 3), np.uint8), crop, (4, 4))


def test_protocol() -> None:
    assert isinstance(SyntheticDataset(length=1), AnnotatedDataset)
