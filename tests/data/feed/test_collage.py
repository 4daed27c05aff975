from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.data.feed.collage import Cutout, Part, can_be_pasted, cut_out, mosaic, mosaic_boxes, paste
from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.builder import ExpressionBuilder
from segearth.data.questions.claims import Claim
from segearth.data.questions.table import load_table
from segearth.errors import DatasetError


def an_object(number, category, box, is_thing=True, **facts):
    x0, y0, x1, y1 = box
    return AnnotatedObject(number, category, np.ones((y1 - y0, x1 - x0), bool), box, is_thing, facts)


def a_picture(level, height, width):
    return np.full((height, width, 3), level, np.uint8)


def two_parts():
    """Left, a source that knows buildings and ships; right, one that knows roads and that there are no ships."""
    left = AnnotatedImage(
        40, 80, [an_object(7, "building", (5, 10, 25, 30))], frozenset({"building", "ship"}), frozenset({"airplane"}),
        unresolved=frozenset({"ship"}), source="a",
    )  # fmt: skip
    right = AnnotatedImage(
        40, 80, [an_object(7, "road", (0, 40, 40, 50), False)], frozenset({"road"}), frozenset({"ship"})
    )
    return [Part((0, 0, 40, 80), a_picture(50, 80, 40), left), Part((40, 0, 80, 80), a_picture(200, 80, 40), right)]


def test_parts_lie_where_they_are_put_with_their_objects():
    image, annotated = mosaic(two_parts(), 80)
    assert image.shape == (80, 80, 3) and (image[:, :40] == 50).all() and (image[:, 40:] == 200).all()
    assert [(o.id, o.category, o.box) for o in annotated.objects] == [
        (1, "building", (5, 10, 25, 30)), (2, "road", (40, 40, 80, 50)),
    ]  # fmt: skip
    assert (annotated.width, annotated.height) == (80, 80)


def test_a_class_of_one_source_is_known_in_its_part_alone():
    annotated = mosaic(two_parts(), 80)[1]
    area = annotated.known_area(["building"])
    assert area[:, :40].all() and not area[:, 40:].any()
    assert not annotated.known_area(["building", "road"]).any()
    assert annotated.known_area(["ship"]) is None  # known on the left, absent on the right: known everywhere
    assert annotated.vocabulary == {"building", "ship", "road"}
    assert annotated.incomplete == {"building", "road"}  # numbers and absences of these cannot be told
    assert annotated.known_absent == frozenset()  # airplanes: nobody looked for them on the right
    assert annotated.unresolved == {"ship"}


def test_questions_of_a_mosaic_say_where_they_count():
    annotated = mosaic(two_parts(), 80)[1]
    builder = ExpressionBuilder(load_table())
    asked = [q for seed in range(12) for q in builder.build(annotated, np.random.default_rng(seed))]
    about_buildings = [q for q in asked if q.kind in ("class", "position") and q.mask[:, :40].any()]
    assert about_buildings
    for question in about_buildings:
        assert question.valid[:, :40].all() and not question.valid[:, 40:].any()
    assert not [q for q in asked if q.kind in ("count", "size")]  # the right half could hold more buildings
    assert not [q for q in asked if q.kind == "absent" and "building" in q.text]


def test_a_claim_mentions_its_anchor():
    claim = Claim(("building",), relation="beside", anchor=Claim(("road",)))
    assert claim.mentioned == {"building", "road"}


def test_a_mosaic_is_made_last():
    annotated = mosaic(two_parts(), 80)[1]
    with pytest.raises(DatasetError, match="before they are joined"):
        annotated.transform((0, 0, 40, 40), (40, 40))


def test_a_part_of_another_size_is_refused():
    parts = two_parts()
    wrong = Part((40, 0, 79, 80), parts[1].image, parts[1].annotated)
    with pytest.raises(DatasetError, match=r"has \(80, 40\) pixels, its place is \(40, 0, 79, 80\)"):
        mosaic([parts[0], wrong], 80)


@given(seed=st.integers(0, 10**6), size=st.sampled_from([64, 192]))
@settings(max_examples=50, deadline=None)
def test_boxes_cover_the_frame_once_and_none_is_narrow(seed, size):
    cover = np.zeros((size, size), int)
    for x0, y0, x1, y1 in mosaic_boxes(size, np.random.default_rng(seed)):
        assert min(x1 - x0, y1 - y0) >= 0.34 * size
        cover[y0:y1, x0:x1] += 1
    assert (cover == 1).all()


def a_cutout(side=12, level=250):
    mask = np.zeros((side + 8, side + 8), bool)
    mask[4:-4, 4:-4] = True
    return Cutout(np.full((side + 8, side + 8, 3), level, np.uint8), mask, "building", {"roof:material": "tin"})


@given(seed=st.integers(0, 10**6), scale=st.floats(0.2, 2.0))
@settings(max_examples=40, deadline=None)
def test_pasted_objects_are_where_their_masks_say_and_nothing_overlaps(seed, scale):
    before = AnnotatedImage(
        96, 96, [an_object(3, "building", (10, 10, 40, 40)), an_object(5, "grass", (0, 40, 96, 96), False)],
        frozenset({"building", "grass"}),
    )  # fmt: skip
    picture = a_picture(40, 96, 96)
    image, annotated = paste(picture, before, [a_cutout()] * 4, scale, np.random.default_rng(seed))
    assert (picture == 40).all()  # the original is not drawn on
    assert annotated.objects[0].box == (10, 10, 40, 40) and annotated.objects[0].area == 900
    new = [item for item in annotated.objects if item.id > 5]
    assert [item.id for item in new] == list(range(6, 6 + len(new)))
    cover = np.zeros((96, 96), int)
    for item in annotated.objects:
        cover += annotated.union_mask([item.id])
    assert cover.max() == 1  # grass under a building is no longer grass
    changed = (image != 40).any(axis=2)
    covered = annotated.union_mask([item.id for item in new])
    assert (changed & ~covered).sum() <= 0.5 * covered.sum() + 8 * len(new)  # no more than a soft edge outside
    for item in new:
        x0, y0, x1, y1 = item.box
        assert item.area >= 10 and item.attributes == {"roof:material": "tin"} and item.is_thing
        assert image[y0:y1, x0:x1][item.mask].mean() > 145  # more than half the cutout's colour


def test_sizes_follow_the_scale():
    empty = AnnotatedImage(200, 200, [], frozenset({"building"}))

    def mean_area(scale):
        areas = []
        for seed in range(30):
            annotated = paste(a_picture(0, 200, 200), empty, [a_cutout(20)], scale, np.random.default_rng(seed))[1]
            areas += [item.area for item in annotated.objects]
        return np.mean(areas)

    small, large = mean_area(1.0), mean_area(2.0)
    assert 3.6 < large / small < 4.4
    assert 0.8 < small / (400 * np.mean(np.linspace(0.6, 1.6, 200) ** 2)) < 1.2


def test_what_finds_no_place_is_left_out():
    full = AnnotatedImage(64, 64, [an_object(1, "building", (0, 0, 64, 64))], frozenset({"building"}))
    image, annotated = paste(a_picture(9, 64, 64), full, [a_cutout()], 1.0, np.random.default_rng(0))
    assert len(annotated.objects) == 1 and (image == 9).all()
    huge = paste(a_picture(9, 64, 64), AnnotatedImage(64, 64, []), [a_cutout(50)], 2.0, np.random.default_rng(0))[1]
    assert not huge.objects


def test_cutting_out_keeps_a_margin_inside_the_image():
    image = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
    item = AnnotatedObject(1, "ship", np.array([[True, False], [True, True]]), (2, 10, 4, 12), True, {"a": "b"})
    cutout = cut_out(image, item)
    assert np.array_equal(cutout.image, image[6:16, 0:8])
    assert np.argwhere(cutout.mask).tolist() == [[4, 2], [5, 2], [5, 3]]
    assert (cutout.category, cutout.attributes) == ("ship", {"a": "b"})


def test_only_whole_countable_objects_of_a_fair_size_are_pasted():
    annotated = AnnotatedImage(100, 100, [])
    assert can_be_pasted(an_object(1, "ship", (10, 10, 20, 20)), annotated)
    assert not can_be_pasted(an_object(1, "ship", (0, 10, 20, 20)), annotated)  # cut by the edge
    assert not can_be_pasted(an_object(1, "ship", (10, 10, 20, 100)), annotated)
    assert not can_be_pasted(an_object(1, "ship", (10, 10, 13, 13)), annotated)  # nine pixels
    assert not can_be_pasted(an_object(1, "ship", (10, 10, 80, 20)), annotated)  # most of the image
    assert not can_be_pasted(an_object(1, "road", (10, 10, 20, 20), False), annotated)
