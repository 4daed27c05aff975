from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from dataset_fakes import rrsisd, write_image

from segearth.data.readers.rrsisd import RRSISD
from segearth.errors import DatasetError


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_references_annotations_and_images_meet_by_id(tmp_path):
    dataset = RRSISD(rrsisd(tmp_path), "train")
    assert [(s.image_id, int(s.image[0, 0, 0])) for s in dataset] == [("3", 30), ("7", 70)]
    dam, ships = dataset
    assert [(q.text, q.kind, q.id) for q in dam.questions] == [("the dam", "dam", "33_0")]
    assert [q.text for q in ships.questions] == ["the ship", "a grey ship", "the small ship"]
    assert [q.mask.sum() for q in ships.questions] == [28, 28, 9]
    assert {q.task for q in ships.questions} == {"referring"}


def test_overlapping_parts_are_united_not_summed(tmp_path):
    mask = RRSISD(rrsisd(tmp_path), "train")[1].questions[0].mask
    expected = np.zeros((8, 10), bool)
    expected[0:4, 0:4] = expected[2:6, 2:6] = True
    assert mask.dtype == bool and (mask == expected).all()


def test_run_lengths_go_down_the_columns(tmp_path):
    mask = RRSISD(rrsisd(tmp_path), "train")[0].questions[0].mask
    assert (mask == (np.arange(10) < 2)[None].repeat(8, 0)).all()


def test_splits_do_not_mix(tmp_path):
    rrsisd(tmp_path)
    assert [q.text for s in RRSISD(tmp_path, "test") for q in s.questions] == ["a dam to test"]
    with pytest.raises(DatasetError, match="no complete reference of split 'val'"):
        RRSISD(tmp_path, "val")


def test_image_one_pixel_larger_than_its_mask(tmp_path):
    rrsisd(tmp_path, size=(9, 10))
    with pytest.raises(DatasetError, match=r"annotation 93 in .*is 10x8 but .*00003\.png is 10x9.*fit_masks=True"):
        RRSISD(tmp_path, "train")[0]
    mask = RRSISD(tmp_path, "train", fit_masks=True)[0].questions[0].mask
    assert mask.shape == (9, 10) and mask[:8, :2].all() and mask.sum() == 16


def test_image_one_pixel_smaller_crops_the_mask(tmp_path):
    rrsisd(tmp_path, size=(7, 9))
    mask = RRSISD(tmp_path, "train", fit_masks=True)[0].questions[0].mask
    assert mask.shape == (7, 9) and mask.sum() == 14


def test_two_pixels_off_stays_an_error(tmp_path):
    rrsisd(tmp_path, size=(10, 10))
    with pytest.raises(DatasetError, match=r"sizes must be equal$"):
        RRSISD(tmp_path, "train", fit_masks=True)[0]


def test_missing_files_print_the_tree(tmp_path):
    rrsisd(tmp_path)
    (tmp_path / "images/rrsisd/JPEGImages/00007.png").unlink()
    with pytest.raises(DatasetError, match=r"JPEGImages/00007\.png is missing under .*\nexpected:\nROOT/"):
        RRSISD(tmp_path, "train")
    lenient = RRSISD(tmp_path, "train", strict=False)
    assert [s.image_id for s in lenient] == ["3"] and len(lenient.problems) == 2  # two references lost their image
    (tmp_path / "rrsisd/instances.json").unlink()
    with pytest.raises(DatasetError, match=r"rrsisd/instances\.json is missing"):
        RRSISD(tmp_path, "train")


def test_root_above_the_published_place(tmp_path):
    rrsisd(tmp_path / "rs_ref_seg/RRSIS-D")
    assert len(RRSISD(tmp_path, "train")) == 2


def test_reference_to_nothing_is_named(tmp_path):
    rrsisd(tmp_path)
    edit(tmp_path / "rrsisd/instances.json", lambda content: content["annotations"].pop(1))
    with pytest.raises(DatasetError, match=r"reference 33 names annotation 93, not in rrsisd/instances\.json"):
        RRSISD(tmp_path, "train")


def test_bad_segmentation_names_annotation_and_file(tmp_path):
    rrsisd(tmp_path)
    edit(tmp_path / "rrsisd/instances.json", lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3]]))
    with pytest.raises(DatasetError, match=r"annotation 93 in .*instances\.json: a polygon needs three"):
        RRSISD(tmp_path, "train")[0]


def test_fields_that_are_missing_are_named(tmp_path):
    rrsisd(tmp_path)
    edit(tmp_path / "rrsisd/instances.json", lambda content: content.pop("images"))
    with pytest.raises(DatasetError, match="lacks a field: 'images'"):
        RRSISD(tmp_path, "train")


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickle_that_would_run_code_is_refused(tmp_path):
    rrsisd(tmp_path)
    (tmp_path / "rrsisd/refs(unc).p").write_bytes(pickle.dumps([Bomb(tmp_path / "ran")]))
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p: refused, it names .*mkdir; .*nothing was run"):
        RRSISD(tmp_path, "train")
    assert not (tmp_path / "ran").exists()


def test_images_are_found_by_the_image_list(tmp_path):
    """The file name inside a reference is another one, as in the REFER data."""
    rrsisd(tmp_path)
    write_image(tmp_path / "images/rrsisd/JPEGImages/not_the_image.jpg", 1)
    assert (RRSISD(tmp_path, "train")[0].image == 30).all()
