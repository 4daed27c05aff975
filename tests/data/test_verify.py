from __future__ import annotations

import numpy as np
import pytest
from dataset_fakes import corrupt, earthreason, jsonl, write_image, write_mask

from segearth.data.base import SegmentationDataset
from segearth.data.verify import verify, verify_dataset
from segearth.errors import UnknownNameError
from segearth.structures import Question, Sample


def test_whole_data_set_is_counted(tmp_path):
    earthreason(tmp_path, {"1": 1, "2": 2, "3": 3})
    write_mask(tmp_path / "train/labels/2.png", 0)
    (report,) = verify_dataset("earthreason", tmp_path, ["train"])
    assert report.ok and (report.images, report.questions, report.answers, report.empty_masks) == (3, 6, 5, 2)
    assert report.kinds == {"absent": 2} and report.smallest == report.largest == (10, 8)
    assert report.lines()[0] == "earthreason train: 3 images of 10x8 to 10x8 pixels"
    assert report.lines()[-1] == "no problems"


def test_all_problems_are_collected(tmp_path):
    earthreason(tmp_path, {str(k): 1 for k in range(1, 8)})
    (tmp_path / "train/labels/2.png").unlink()
    (tmp_path / "train/QAs/3.json").unlink()
    write_mask(tmp_path / "train/labels/4.png", 1, size=(3, 3))
    corrupt(write_image(tmp_path / "train/images/5.png", 5, size=(64, 64)))
    (tmp_path / "train/QAs/6.json").write_text("{")
    (report,) = verify_dataset("earthreason", tmp_path, ["train"])
    assert report.images == 2 and not report.ok
    patterns = [
        "labels/2.png is missing",
        "QAs/3.json is missing",
        "labels/4.png is 3x3",
        "5.png: damaged",
        "6.json: not valid",
    ]
    assert len(report.problems) == len(patterns)
    for pattern, problem in zip(patterns, report.problems, strict=True):
        assert pattern in problem and "\n" not in problem
    assert report.lines(max_problems=2)[-4:-3] == ["5 problems:"] and report.lines(2)[-1] == "  … and 3 more"


def test_split_that_cannot_be_opened_is_a_problem(tmp_path):
    earthreason(tmp_path, {"1": 1}, "train")
    train, val, test = verify_dataset("earthreason", tmp_path)
    assert train.ok and not val.ok and not test.ok
    assert "val/images is missing" in val.problems[0] and "expected:" in val.problems[0]


def test_splits_a_user_does_not_have_are_not_asked_for(tmp_path):
    jsonl(tmp_path, [{"image": "images/a.png", "question": "x", "mask": None}], "val")
    assert [report.split for report in verify_dataset("jsonl", tmp_path)] == ["val"]


def test_unknown_name():
    with pytest.raises(UnknownNameError):
        verify_dataset("nothing", ".")


class Odd(SegmentationDataset):
    """A data set of someone's own that keeps none of the promises."""

    name, tree = "odd", "ROOT/"

    def __len__(self):
        return 3

    def __getitem__(self, index):
        image = np.zeros((4, 5, 3), np.uint8)
        if index == 0:
            masks = [np.zeros((5, 4), bool), np.zeros((4, 5), np.uint8), None]
            return Sample("a", image, [Question(t, m, id=t) for t, m in zip(("p", "q", ""), masks, strict=True)])
        return Sample("a", image if index == 1 else image.astype(float), [Question("p", id="p")] if index == 1 else [])


def test_broken_promises_are_found(tmp_path):
    report = verify(Odd(tmp_path, "train"))
    assert report.unlabelled == 2 and report.images == 3
    assert report.problems == [
        "a: mask of question 'p' is (5, 4), image (4, 5)",
        "a: mask of question 'q' is uint8, expected bool",
        "a: question '' is empty",
        "a: image is float64 (4, 5, 3), expected uint8 (H, W, 3)",
        "a: no question",
        "image id 'a' occurs 3 times",
        "question id 'p' occurs 2 times",
    ]
