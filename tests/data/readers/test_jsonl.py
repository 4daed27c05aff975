from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_fakes import corrupt, jsonl, square, write_image, write_mask

from segearth.data.readers.jsonl import JsonlDataset
from segearth.errors import DatasetError, ImageError

A = {"image": "images/a.png", "question": "the roof", "mask": "masks/a_1.png"}
B = {"image": "images/b.png", "question": "the pool", "mask": None}


def test_lines_of_one_image_are_grouped(tmp_path):
    last = {
        "image": "images/a.png",
        "question": " why? ",
        "mask": [square(0, 0, 2)],
        "answer": "so",
        "task": "reasoning",
    }
    first, second = JsonlDataset(jsonl(tmp_path, [A, B, last]), "train")
    assert (first.image_id, second.image_id) == ("images/a.png", "images/b.png")
    assert (first.image == 10).all() and (second.image == 20).all()
    assert [(q.text, q.answer, q.task, q.id) for q in first.questions] == [
        ("the roof", None, "referring", "images/a.png_0"),
        ("why?", "so", "reasoning", "images/a.png_1"),
    ]
    assert [q.mask.sum() for q in first.questions] == [24, 4]


@pytest.mark.parametrize(
    ("mask", "pixels"),
    [
        ("masks/a_1.png", 24),
        ([square(0, 0, 3)], 9),
        ([square(0, 0, 3), square(1, 1, 3)], 14),
        (square(1, 1, 2), 4),
        ({"size": [8, 10], "counts": [8, 16, 56]}, 16),
        (None, 0),
        ("none", 0),
        ([], 0),
    ],
)
def test_every_form_of_mask(tmp_path, mask, pixels):
    question = JsonlDataset(jsonl(tmp_path, [{**A, "mask": mask}]), "train")[0].questions[0]
    assert question.mask.shape == (8, 10) and question.mask.dtype == bool and question.mask.sum() == pixels
    assert question.kind == ("absent" if mask in (None, "none") else "")


def test_root_may_be_the_file(tmp_path):
    jsonl(tmp_path, [A], "roofs")
    assert len(JsonlDataset(tmp_path / "roofs.jsonl", "test")) == 1


def test_only_the_splits_that_are_there(tmp_path):
    jsonl(tmp_path, [A], "train")
    jsonl(tmp_path, [B], "test")
    assert JsonlDataset.splits_in(tmp_path) == ("train", "test")
    assert JsonlDataset.splits_in(tmp_path / "train.jsonl") == ("train",)
    with pytest.raises(DatasetError, match=r"val\.jsonl is missing under .*\nexpected:\nROOT/"):
        JsonlDataset(tmp_path, "val")


def test_blank_lines_byte_order_mark_and_separators_inside_text(tmp_path):
    jsonl(tmp_path, [A])
    line = json.dumps({**B, "question": "a\u2028b"}, ensure_ascii=False)
    (tmp_path / "train.jsonl").write_bytes(("\ufeff\r\n" + json.dumps(A) + "\r\n\r\n" + line).encode())
    assert [q.text for s in JsonlDataset(tmp_path, "train") for q in s.questions] == ["the roof", "a\u2028b"]


BAD_LINES = [
    ({"question": "x", "mask": None}, '"image" must be a text'),
    ({"image": "images/a.png", "question": " ", "mask": None}, '"question" must be a text that is not empty'),
    ({"image": "images/a.png", "question": "x"}, '"mask" is missing; write null'),
    ({**A, "anwser": "x"}, "unknown key 'anwser'; did you mean 'answer'"),
    ({**A, "task": "guess"}, "\"task\" is 'guess'; it must be one of referring, reasoning$"),
    ({**A, "task": "caption"}, "\"task\" is 'caption'; it must be one of referring, reasoning$"),  # takes no mask
    ({**A, "answer": 3}, '"answer" must be a text'),
    ({**A, "mask": 3}, '"mask" must be a path'),
    ({**A, "mask": "masks/x.png"}, r"no mask file .*masks/x\.png"),
    ({**A, "mask": "masks/x.jpg"}, r"mask .*masks/x\.jpg is a JPEG"),
    ({**A, "image": "images/x.png"}, r"no image file .*images/x\.png"),
    ([1], "expected an object"),
]


@pytest.mark.parametrize(("record", "message"), BAD_LINES)
def test_errors_name_file_and_line(tmp_path, record, message):
    jsonl(tmp_path, [B, record])
    with pytest.raises(DatasetError, match=r"train\.jsonl:2: " + message):
        JsonlDataset(tmp_path, "train")
    lenient = JsonlDataset(tmp_path, "train", strict=False)
    assert len(lenient) == 1 and len(lenient.problems) == 1


def test_not_json_and_repeated_ids(tmp_path):
    jsonl(tmp_path, [{**A, "id": "x"}, {**B, "id": "x"}])
    with pytest.raises(DatasetError, match=r"train\.jsonl:2: \"id\" 'x' was used in line 1"):
        JsonlDataset(tmp_path, "train")
    (tmp_path / "train.jsonl").write_text("{'image': 3}\n")
    with pytest.raises(DatasetError, match=r"train\.jsonl:1: not valid JSON"):
        JsonlDataset(tmp_path, "train")
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DatasetError, match="holds no usable line"):
        JsonlDataset(tmp_path, "train")


@pytest.mark.parametrize("mask", ["masks/a_1.png", {"size": [8, 9], "counts": [72]}])
def test_mask_of_another_size_names_line_and_image(tmp_path, mask):
    jsonl(tmp_path, [B, {**A, "mask": mask}])
    write_mask(tmp_path / "masks/a_1.png", 3, size=(8, 9))
    with pytest.raises(DatasetError, match=r"train\.jsonl:2\)? is 9x8 but image .*images/a\.png is 10x8"):
        JsonlDataset(tmp_path, "train")[1]


def test_bad_polygon_names_the_line(tmp_path):
    with pytest.raises(DatasetError, match=r"train\.jsonl:1: a polygon needs three"):
        JsonlDataset(jsonl(tmp_path, [{**A, "mask": [[1, 2]]}]), "train")[0]


def test_corrupt_image_is_named(tmp_path):
    jsonl(tmp_path, [A])
    corrupt(write_image(tmp_path / "images/a.png", 9, size=(64, 64)))
    with pytest.raises(ImageError, match=r"images/a\.png: damaged"):
        JsonlDataset(tmp_path, "train")[0]


def test_reading_twice_gives_the_same(tmp_path):
    dataset = JsonlDataset(jsonl(tmp_path, [A, B]), "train")
    assert all(np.array_equal(a.questions[0].mask, b.questions[0].mask) for a, b in zip(dataset, dataset, strict=True))
