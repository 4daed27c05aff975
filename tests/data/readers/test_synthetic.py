from __future__ import annotations

import numpy as np
import pytest

from segearth.data.readers.drawing import ROOFS, STUFF, VOCABULARY, draw_image
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.errors import UnknownNameError


def test_same_index_same_sample_and_other_split_other_image() -> None:
    first, again = SyntheticDataset(length=3, size=96)[1], SyntheticDataset(length=3, size=96)[1]
    assert np.array_equal(first.image, again.image)
    assert [q.text for q in first.questions] == [q.text for q in again.questions]
    assert not np.array_equal(first.image, SyntheticDataset(split="val", length=3, size=96)[1].image)
    assert not np.array_equal(first.image, SyntheticDataset(length=3, size=96, seed=1)[1].image)


def test_sample_is_whole() -> None:
    data = SyntheticDataset(length=4, size=128, max_questions=5)
    samples = list(data)
    assert len(samples) == 4
    for index, sample in enumerate(samples):
        assert sample.image.shape == (128, 128, 3)
        assert sample.image.dtype == np.uint8
        assert 0 < len(sample.questions) <= 5
        assert all(q.mask.shape == (128, 128) for q in sample.questions)
        assert len({q.id for q in sample.questions}) == len(sample.questions)
        assert np.array_equal(sample.image, data.image(index))


def test_objects_do_not_overlap_and_are_named() -> None:
    for seed in range(12):
        annotated = draw_image(np.random.default_rng(seed), 128)[1]
        cover = np.zeros((128, 128), int)
        for item in annotated.objects:
            assert item.category in VOCABULARY
            assert item.is_thing == (item.category not in STUFF)
            cover += annotated.union_mask([item.id])
            if item.category == "building":
                assert item.attributes["roof:material"] in ROOFS
        assert cover.max() <= 1


def test_ships_float_and_houses_stand_on_dry_ground() -> None:
    seen = 0
    for seed in range(40):
        image, annotated = draw_image(np.random.default_rng(seed), 128)
        water = annotated.union_mask(o.id for o in annotated.of(["water body"]))
        for ship in annotated.of(["ship"]):
            x0, y0, x1, y1 = ship.box
            around = water[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1]
            assert around.mean() > 0.2
            seen += 1
        assert image.std() > 5
    assert seen > 5


def test_errors() -> None:
    with pytest.raises(UnknownNameError, match="synthetic split 'training'"):
        SyntheticDataset(split="training")
    with pytest.raises(IndexError, match="index 2 of 2"):
        SyntheticDataset(length=2)[2]
