"""RefSegRS and RISBench share one layout; only their folders differ."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_fakes import corrupt, phrases, write_image, write_mask
from PIL import Image

from segearth.data.readers.refsegrs import RefSegRS
from segearth.data.readers.risbench import RISBench
from segearth.errors import DatasetError, ImageError

CASES = [(RefSegRS, ("images", "masks")), (RISBench, ("img_rgb", "mask"))]
IDS = {"10": 1, "9": 2, "100": 3}


@pytest.mark.parametrize(("cls", "folders"), CASES)
def test_pairs_by_id_and_keeps_every_phrase(tmp_path, cls, folders):
    phrases(tmp_path, IDS, folders)
    write_image(tmp_path / folders[0] / "1.tif", 99)  # of another split: shifts every sorted position
    write_mask(tmp_path / folders[1] / "5.tif", 9)
    dataset = cls(tmp_path, "train")
    assert [sample.image_id for sample in dataset] == ["10", "9", "100"]
    for sample in dataset:
        k = IDS[sample.image_id]
        assert (sample.image == 10 * k).all()
        assert [q.text for q in sample.questions] == [f"phrase {k} a", f"phrase {k} b"]
        assert [q.mask.sum() for q in sample.questions] == [8 * k, 8 * k]
        assert [q.id for q in sample.questions] == [f"{sample.image_id}_0", f"{sample.image_id}_1"]


def test_grey_edges_are_cut_at_half(tmp_path):
    phrases(tmp_path, {"1": 1})
    levels = np.repeat(np.array([[0, 1, 50, 51, 127, 128, 200, 255, 0, 0]], np.uint8), 8, axis=0)
    Image.fromarray(levels).save(tmp_path / "masks/1.tif")
    columns = {127: [5, 6, 7], 50: [3, 4, 5, 6, 7], 0: [1, 2, 3, 4, 5, 6, 7]}
    for threshold, target in columns.items():
        mask = RefSegRS(tmp_path, "train", threshold=threshold)[0].questions[0].mask
        assert mask.dtype == bool and np.flatnonzero(mask[0]).tolist() == target


def test_masks_of_zeros_and_ones_are_not_lost(tmp_path):
    phrases(tmp_path, {"1": 1})
    write_mask(tmp_path / "masks/1.tif", 4, value=1)
    assert RefSegRS(tmp_path, "train")[0].questions[0].mask.sum() == 32


def test_list_may_name_files_and_have_blank_lines(tmp_path):
    phrases(tmp_path, IDS, ("img_rgb", "mask"))
    (tmp_path / "output_phrase_train.txt").write_text("9.png\tthe  big one \n\n10.tif another\n9.png third\n")
    dataset = RISBench(tmp_path, "train")
    assert [[q.text for q in s.questions] for s in dataset] == [["the  big one", "third"], ["another"]]
    assert (dataset[0].image == 20).all()


def test_line_without_phrase_names_its_number(tmp_path):
    phrases(tmp_path, IDS)
    (tmp_path / "output_phrase_train.txt").write_text("9 fine\n10\n")
    with pytest.raises(DatasetError, match=r"output_phrase_train\.txt:2: expected an id and a phrase, got '10'"):
        RefSegRS(tmp_path, "train")


@pytest.mark.parametrize("entry", ["images/9.tif", "masks/9.tif"])
def test_missing_file_prints_the_tree(tmp_path, entry):
    phrases(tmp_path, IDS)
    (tmp_path / entry).unlink()
    with pytest.raises(DatasetError, match=rf"{entry[:-4]}\.\* is missing under .*\nexpected:\nROOT/"):
        RefSegRS(tmp_path, "train")
    assert [s.image_id for s in RefSegRS(tmp_path, "train", strict=False)] == ["10", "100"]


def test_missing_list_prints_the_tree(tmp_path):
    phrases(tmp_path, IDS)
    with pytest.raises(DatasetError, match=r"output_phrase_val\.txt is missing under .*\nexpected:\n"):
        RefSegRS(tmp_path, "val")


def test_root_above_the_published_place(tmp_path):
    phrases(tmp_path / "rs_ref_seg/RefSegRS", IDS)
    assert len(RefSegRS(tmp_path, "train")) == 3


def test_sizes_and_damage_are_named(tmp_path):
    phrases(tmp_path, {"1": 1, "2": 2})
    write_mask(tmp_path / "masks/1.tif", 1, size=(9, 10))
    corrupt(write_image(tmp_path / "images/2.tif", 20, size=(64, 64)))
    dataset = RefSegRS(tmp_path, "train")
    with pytest.raises(DatasetError, match=r"masks/1\.tif is 10x9 but image .*images/1\.tif is 10x8"):
        dataset[0]
    with pytest.raises(ImageError, match=r"images/2\.tif: damaged"):
        dataset[1]
