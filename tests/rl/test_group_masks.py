from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import ImageError
from segearth.prompting.answers import Instance
from segearth.prompting.promptable import BoxFill
from segearth.rl.masks import GroupMasks

IMAGES = {"a": np.zeros((10, 20, 3), np.uint8), "b": np.zeros((8, 8, 3), np.uint8)}


def test_the_answers_of_a_group_show_an_image_once() -> None:
    opened: list[str] = []

    def image_of(key: str) -> np.ndarray:
        opened.append(key)
        return IMAGES[key]

    masks = GroupMasks(BoxFill(), image_of)
    for key, size in (("a", (10, 20)), ("b", (8, 8))):
        for x in range(4):
            mask = masks(key, (Instance(box=(float(x), 0.0, x + 2.0, 4.0)),))
            assert mask.shape == size and mask.sum() == 8 and mask[0, x]
    assert opened == ["a", "b"] and masks.images == 2


def test_masks_are_joined_as_the_answer_of_a_prompted_segmenter_is() -> None:
    masks = GroupMasks(BoxFill(), IMAGES.__getitem__)
    boxes = [(0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 4.0, 3.0), (15.0, 5.0, 99.0, 99.0)]
    things = tuple(Instance(box=box) for box in boxes)
    mask = masks("a", things)  # the second is the first anew; the third is cut at the border
    assert mask.sum() == 16 + 25
    assert not masks("a", (Instance(box=(30.0, 0.0, 40.0, 4.0)),)).any()
    assert not masks("a", ()).any()


def test_an_image_that_does_not_open_is_not_replaced_by_the_one_before() -> None:
    def image_of(key: str) -> np.ndarray:
        if key == "broken":
            raise ImageError("broken.png cannot be read")
        return IMAGES[key]

    masks = GroupMasks(BoxFill(), image_of)
    box = (Instance(box=(0.0, 0.0, 2.0, 2.0)),)
    masks("a", box)
    for _ in range(2):
        with pytest.raises(ImageError):
            masks("broken", box)
    assert masks("a", box).sum() == 4
