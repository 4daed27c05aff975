from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from segearth import structures as module
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import (
    Boxes,
    Choices,
    Question,
    Region,
    Regions,
    Segmentation,
    Target,
    Text,
    check_target,
    connected_regions,
    union_of,
)

MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12))


def answer(mask: np.ndarray, **facts: Any) -> Segmentation:
    return Segmentation("ships", mask, 0.75, bool(mask.any()), 0.9, **facts)


def ships() -> np.ndarray:
    """A ship of three pixels at the left, one of two that touch at a corner, far from it."""
    mask = np.zeros((4, 6), bool)
    mask[1, :3] = mask[2, 4] = mask[3, 5] = True
    return mask


# Questions and targets


def test_presence_is_read_once_off_the_whole_mask() -> None:
    mask = np.zeros((9, 9), bool)
    assert Question("ships", mask).present is False
    assert Question("ships").present is None
    mask[4, 4] = True
    found = Question("ships", mask)
    assert found.present is True
    assert replace(found, target=Regions(mask[::3, ::3])).present is True  # the ship is between the samples
    assert replace(found, target=None).present is True
    assert Question("ships", target=Boxes(((0, 0, 1, 1),))).present is True
    assert Question("ships", target=Boxes(())).present is False
    assert Question("what is it?", target=Text(("a pier",))).present is None


def test_a_question_may_be_about_a_region_and_copies_keep_it() -> None:
    asked = Question("what is here?", task="region_caption", box=(1, 2, 3, 4.5))
    assert replace(asked, text="and here?").box == (1, 2, 3, 4.5) and Question("ships").box is None
    with pytest.raises(DatasetError, match=r"question 'what\?' is about the box \(1, 2, 3\); give \(x0, y0, x1, y1\)"):
        Question("what?", box=(1, 2, 3))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="ends before it begins"):
        Question("what?", box=(3, 2, 1, 4))
    with pytest.raises(DatasetError, match="is no box"):
        Question("what?", box=(1, 2, math.nan, 4))


def test_mask_is_short_for_a_target_known_as_a_whole() -> None:
    mask = ships()
    question = Question("ships", mask)
    assert isinstance(question.target, Regions) and question.target.regions is None
    assert question.mask is mask
    assert replace(question, text="boats").mask is mask
    question.mask = None
    assert question.target is None and question.mask is None
    question.mask = mask
    assert isinstance(question.target, Regions) and question.target.mask is mask
    assert Question("what is it?", target=Text(("a pier",))).mask is None


def test_a_target_of_regions_has_their_union_as_its_mask() -> None:
    one, two = connected_regions(ships())
    target = Regions.of_masks([one.in_image(4, 6), np.zeros((4, 6), bool), two.in_image(4, 6)])
    assert np.array_equal(target.mask, ships())
    assert target.regions is not None and [region.box for region in target.regions] == [one.box, two.box]
    assert Question("ships", ships(), target=target).target is target
    assert not Regions.of_masks([np.zeros((4, 6), bool)]).mask.any()
    with pytest.raises(DatasetError, match=r"sizes \[\(2, 2\), \(3, 3\)\]; give at least one, all of the image's"):
        Regions.of_masks([np.ones((3, 3), bool), np.ones((2, 2), bool)])


def test_a_union_that_does_not_match_is_refused() -> None:
    one, two = connected_regions(ships())
    with pytest.raises(DatasetError, match="the union of the 1 regions of a target differs from its mask at 2 pixels"):
        Regions(ships(), (one,))
    with pytest.raises(DatasetError, match="2 regions of an answer differs from its mask at 3 pixels"):
        answer(two.in_image(4, 6), given_regions=(one, two))
    with pytest.raises(DatasetError, match=r"'ships': the mask is not the union of its target; give one of the two"):
        Question("ships", ~ships(), target=Regions(ships()))
    with pytest.raises(DatasetError, match="not the union"):
        Question("ships", ships(), target=Boxes(()))
    with pytest.raises(DatasetError, match=r"box \(0, 1, 3, 2\), outside of an image of 2x2 px"):
        union_of([one], 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Boxes(((0, 0, 1),)), r"\(0, 0, 1\) is no box; give"),
        (lambda: Boxes(((0, 0, 1, math.nan),)), "is no box"),
        (lambda: Boxes(((2, 0, 1, 1),)), "ends before it begins"),
        (lambda: Boxes(((0, 2, 1, 1),)), "ends before it begins"),
        (lambda: Boxes(((5, 5, -1, 2, 30),)), "ends before it begins"),
        (lambda: Text(()), "at least one right text"),
        (lambda: Text("a pier"), "at least one right text"),  # type: ignore[arg-type]
        (lambda: Choices(("a", "a"), ("a",)), "name one twice"),
        (lambda: Choices(("a", "b"), ("c",)), r"\['c'\] are right but no options"),
        (lambda: Regions(ships(), None, ((0, 0, 1, 1),)), "1 boxes and no regions; give one box for each region"),
        (lambda: Regions(ships(), connected_regions(ships()), ((0, 0, 1, 1),)), "1 boxes and 2 regions"),
        (lambda: Regions(ships(), connected_regions(ships()), ((0, 0, 1, 1), (3, 0, 1, 1))), "ends before it begins"),
        (lambda: Region.cut_from(np.zeros((2, 2), bool)), "a region has no pixel; leave it out"),
    ],
)
def test_targets_that_contradict_themselves_are_refused(make: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make()


def test_targets_of_every_kind() -> None:
    assert Boxes(((0, 0, 4, 2), (5, 5, 4, 2, 30.0))).values[1][4] == 30
    assert Choices(("port", "pier"), ()).right == ()
    assert Regions(ships(), connected_regions(ships()), ((0, 1, 3, 2), (4, 2, 6, 4))).boxes is not None


@pytest.mark.parametrize("target", [Boxes(()), Text(("a",)), Choices(("a",), ("a",))])
def test_a_target_that_the_task_does_not_take_is_refused(target: Target) -> None:
    kind = type(target).__name__
    message = f"task 'referring' takes a target of Regions, not {kind}; give it Regions, or a task that takes {kind}"
    with pytest.raises(DatasetError, match=message):
        check_target(Question("ships", target=target))


def test_what_takes_the_target_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"referring": (Regions,), "reasoning": (Regions,), "caption": (Text,)}
    monkeypatch.setattr(module, "TARGETS_OF_TASK", tasks)
    question = Question("describe it", target=Text(("a pier",)), task="caption")
    check_target(question)
    with pytest.raises(DatasetError, match=r"give it Regions, or a task that takes Text \(caption\)$"):
        check_target(replace(question, task="referring"))
    check_target(Question("ships", ships(), task="reasoning"))
    check_target(Question("ships"))  # nothing is known of the answer: nothing can be wrong with it
    with pytest.raises(UnknownNameError, match=r"unknown task 'captoin'; did you mean 'caption' or "):
        check_target(replace(question, task="captoin"))


# Answers of several regions


def test_regions_by_hand() -> None:
    one, two = answer(ships()).regions
    assert (one.box, one.area, one.centroid, one.score) == ((0, 1, 3, 2), 3, (1.5, 1.5), 0.75)
    assert (two.box, two.area, two.centroid) == ((4, 2, 6, 4), 2, (5.0, 3.0))  # corners that touch belong together
    assert two.mask.tolist() == [[True, False], [False, True]]
    assert answer(np.zeros((4, 6), bool)).regions == ()
    cut = Region.cut_from(two.in_image(4, 6), 0.5)
    assert (cut.box, cut.area, cut.score) == (two.box, 2, 0.5)


@given(MASKS)
def test_the_regions_of_an_answer_make_up_its_mask_exactly(mask: np.ndarray) -> None:
    regions = answer(mask).regions
    assert np.array_equal(union_of(regions, *mask.shape), mask)
    assert sum(region.area for region in regions) == mask.sum()  # no pixel is in two
    assert [region.area for region in regions] == sorted((region.area for region in regions), reverse=True)
    for region in regions:
        assert region.mask.any(0).all() and region.mask.any(1).all()  # connected: no empty row and column
        assert region.mask[0].any() and region.mask[-1].any() and region.mask[:, 0].any() and region.mask[:, -1].any()
    grown = [np.pad(region.in_image(*mask.shape), 1) for region in regions]
    for first, second in itertools.pairwise(grown):
        around = np.logical_or.reduce([np.roll(first, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        assert not (around & second).any()  # neighbours would be one region


@given(MASKS, st.data())
def test_what_the_segmenter_tells_apart_is_kept_as_it_is(mask: np.ndarray, data: st.DataObject) -> None:
    """Its regions may overlap; the mask is still their union."""
    parts = [mask & data.draw(npst.arrays(bool, mask.shape)) for _ in range(3)]
    given_regions = tuple(Region.cut_from(part, 0.5) for part in parts if part.any())
    found = answer(union_of(given_regions, *mask.shape), given_regions=given_regions)
    assert found.regions is given_regions
    assert np.array_equal(found.mask, np.logical_or.reduce(parts))


def test_regions_are_looked_for_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "connected_regions", lambda *given: calls.append(given) or ())  # type: ignore[func-returns-value]
    found = answer(ships())
    assert calls == []
    assert found.regions is found.regions and len(calls) == 1
    found.mask = ~ships()  # another mask: what was found of the one before is wrong
    assert found.regions == () and len(calls) == 2
    assert calls[1][0] is found.mask


def test_ten_thousand_regions_take_no_time() -> None:
    mask = np.zeros((400, 400), bool)
    mask[::4, ::4] = True
    start = time.perf_counter()
    assert len(answer(mask).regions) == 10_000
    assert time.perf_counter() - start < 2


def test_a_region_without_a_score_has_that_of_its_answer():
    mask = np.ones((2, 2), bool)
    parts = Region.cut_from(mask[:, :1], 0.25), Region.cut_from(mask)
    answer = Segmentation("the roofs", mask, 0.75, True, 0.9, given_regions=parts)
    assert [answer.score_of(part) for part in parts] == [0.25, 0.75]
