from __future__ import annotations

import numpy as np
import pytest

from segearth.data.readers.roofs import COLOURS, RoofsDataset
from segearth.errors import ConfigError, UnknownNameError
from segearth.structures import Regions


def test_each_question_names_one_colour_and_its_target_is_a_whole_box_of_it() -> None:
    dataset = RoofsDataset(length=8, size=48)
    for index, sample in enumerate(dataset):
        assert sample.image.shape == (48, 48, 3) and sample.image.dtype == np.uint8
        texts = [question.text for question in sample.questions]
        assert 1 <= len(texts) <= 3 and len(set(texts)) == len(texts)
        taken = np.zeros((48, 48), int)
        for question, item in zip(sample.questions, dataset.annotated(index).objects, strict=True):
            assert question.text == f"the {item.category}" and isinstance(question.target, Regions)
            assert question.target.regions is not None and [r.box for r in question.target.regions] == [item.box]
            x0, y0, x1, y1 = item.box
            assert question.target.mask[y0:y1, x0:x1].all() and question.target.mask.sum() == (x1 - x0) * (y1 - y0)
            taken += question.target.mask
            mean = sample.image[question.target.mask].mean(axis=0)
            nearest = min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - mean).sum()))
            assert item.category == f"{nearest} roof"
        assert taken.max() == 1  # roofs do not overlap


def test_index_seed_and_split_decide_the_image() -> None:
    first = RoofsDataset(length=2)[1].image
    assert np.array_equal(first, RoofsDataset(length=5)[1].image)
    for other in (RoofsDataset(length=2, seed=1)[1], RoofsDataset(split="val", length=2)[1], RoofsDataset()[0]):
        assert not np.array_equal(first, other.image)
    with pytest.raises(IndexError):
        RoofsDataset(length=2)[2]


def test_roofs_are_as_large_as_asked() -> None:
    def sides(**options: float) -> list[int]:
        drawn = RoofsDataset(length=40, size=64, **options)  # type: ignore[arg-type]
        return [item.box[2] - item.box[0] for index in range(40) for item in drawn.annotated(index).objects]

    usual, near = sides(), sides(smallest=0.3, largest=0.5)
    assert (min(usual), max(usual)) == (8, 24) and (min(near), max(near)) == (19, 31)  # of 64 pixels
    smallest = RoofsDataset(length=1, size=16, smallest=1 / 16, largest=0.125)[0].questions[0].mask
    assert smallest is not None and smallest.sum() == 1
    for wrong in ({"smallest": 0.06}, {"largest": 1.1}, {"smallest": 0.4}, {"smallest": 0.1, "largest": 0.105}):
        with pytest.raises(ConfigError, match="least first"):
            RoofsDataset(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"size": 15}, {"most": 0}, {"most": 7}])
def test_what_cannot_be_drawn_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="give at least 16 and 1 to 6"):
        RoofsDataset(**options)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        RoofsDataset(split="test2")
