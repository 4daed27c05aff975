from __future__ import annotations

import json

import pytest
from dataset_fakes import corrupt, earthreason, write_image, write_mask

from segearth.data.readers.earthreason import EarthReason
from segearth.errors import DatasetError, ImageError

IDS = {"12": 1, "3": 2, "b_img": 3, "a": 4}


def test_image_label_and_questions_belong_together(tmp_path):
    earthreason(tmp_path, IDS)
    dataset = EarthReason(tmp_path, "train")
    assert len(dataset) == 4
    for sample in dataset:
        k = IDS[sample.image_id]
        assert sample.image.shape == (8, 10, 3) and (sample.image == 10 * k).all()
        assert [q.text for q in sample.questions] == [f"q{k}.{n}" for n in range(k)]
        assert all(q.mask.sum() == 8 * k and q.mask.dtype == bool for q in sample.questions)
        assert {q.task for q in sample.questions} == {"reasoning"}
    assert len({q.id for sample in dataset for q in sample.questions}) == 1 + 2 + 3 + 4


def test_answers_go_round_and_may_be_none(tmp_path):
    earthreason(tmp_path, {"1": 1, "3": 3})
    one, three = EarthReason(tmp_path, "train")
    assert [q.answer for q in one.questions] == [None]
    assert [q.answer for q in three.questions] == ["a3.0", "a3.1", "a3.0"]


def test_files_of_other_kinds_change_nothing(tmp_path):
    earthreason(tmp_path, IDS)
    for folder in ("images", "labels", "QAs"):
        (tmp_path / "train" / folder / "Thumbs.db").touch()
        (tmp_path / "train" / folder / "._a.png").touch()
    assert [s.image[0, 0, 0] for s in EarthReason(tmp_path, "train")] == [10, 20, 40, 30]


def test_any_non_zero_label_is_target_and_all_zero_is_absent(tmp_path):
    earthreason(tmp_path, {"1": 1, "2": 2})
    write_mask(tmp_path / "train/labels/1.png", 5, value=1)
    write_mask(tmp_path / "train/labels/2.png", 0)
    grey, empty = EarthReason(tmp_path, "train")
    assert grey.questions[0].mask.sum() == 40 and grey.questions[0].kind == ""
    assert not empty.questions[0].mask.any() and empty.questions[0].kind == "absent"


def test_root_above_the_published_place(tmp_path):
    earthreason(tmp_path / "rs_reason_seg/RSReasonSeg", {"1": 1}, "val")
    assert len(EarthReason(tmp_path, "val")) == 1


@pytest.mark.parametrize("entry", ["labels/3.png", "QAs/3.json", "images/3.png"])
def test_half_a_pair_is_an_error_and_never_shifts_the_rest(tmp_path, entry):
    earthreason(tmp_path, IDS)
    (tmp_path / "train" / entry).unlink()
    stem = entry.split(".")[0]
    with pytest.raises(DatasetError, match=rf"train/{stem}\.\w+ is missing under .*\nexpected:\nROOT/"):
        EarthReason(tmp_path, "train")
    lenient = EarthReason(tmp_path, "train", strict=False)
    assert len(lenient) == 3 and len(lenient.problems) == 1
    assert all((s.image == 10 * IDS[s.image_id]).all() for s in lenient)


def test_missing_folder_prints_the_tree(tmp_path):
    earthreason(tmp_path, IDS)
    with pytest.raises(DatasetError, match=r"val/images is missing under .*\nexpected:\n(.*\n)*.*QAs/ID\.json"):
        EarthReason(tmp_path, "val")


def test_label_of_another_size_names_both_files(tmp_path):
    earthreason(tmp_path, {"1": 1})
    write_mask(tmp_path / "train/labels/1.png", 1, size=(8, 9))
    with pytest.raises(DatasetError, match=r"labels/1\.png is 9x8 but image .*images/1\.png is 10x8"):
        EarthReason(tmp_path, "train")[0]


def test_corrupt_image_is_named(tmp_path):
    earthreason(tmp_path, {"1": 1})
    corrupt(write_image(tmp_path / "train/images/1.png", 5, size=(64, 64)))
    with pytest.raises(ImageError, match=r"images/1\.png: damaged"):
        EarthReason(tmp_path, "train")[0]


@pytest.mark.parametrize(
    "content", [{"questions": []}, {"questions": [" "]}, {"questions": "why"}, [], {"answer": ["a"]}]
)
def test_question_file_without_questions_is_named(tmp_path, content):
    earthreason(tmp_path, {"1": 1})
    (tmp_path / "train/QAs/1.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"QAs/1\.json"):
        EarthReason(tmp_path, "train")[0]
