from __future__ import annotations

import numpy as np
import pytest

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.source_files import files_by_id, find_root, read_json
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import Sample


class Two(SegmentationDataset):
    name = "two"
    tree = "ROOT/\n  a.txt"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Sample(str(index), np.zeros((2, 3, 3), np.uint8))


def test_iterates_over_all_images(tmp_path):
    assert [sample.image_id for sample in Two(tmp_path, "val")] == ["0", "1"]


def test_unknown_split_names_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown two split 'vall'; did you mean 'val'"):
        Two(tmp_path, "vall")


def test_missing_root_and_entry_print_the_tree(tmp_path):
    with pytest.raises(DatasetError, match=r"is missing under .*nowhere\nexpected:\nROOT/\n  a.txt"):
        Two(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match=r"a.txt is missing under .*\nexpected:\nROOT/"):
        Two(tmp_path, "train").require("a.txt")
    (tmp_path / "a.txt").touch()
    assert Two(tmp_path, "train").require("a.txt") == tmp_path / "a.txt"
    with pytest.raises(DatasetError, match=r"a\.txt must be a folder"):
        Two(tmp_path, "train").require_folder("a.txt")


def test_problems_are_errors_only_if_strict(tmp_path):
    with pytest.raises(DatasetError, match=r"b\.png is missing"):
        Two(tmp_path, "train").note_missing("b.png")
    lenient = Two(tmp_path, "train", strict=False)
    lenient.note_missing("b.png")
    assert lenient.problems == [f"two: b.png is missing under {tmp_path}"]


def test_mask_of_another_size_names_both_files():
    image = np.zeros((801, 800, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"mask m\.png is 800x800 but image i\.jpg is 800x801"):
        check_mask(np.zeros((800, 800)), image, "m.png", "i.jpg")
    mask = check_mask(np.array([[0, 7]]), image[:1, :2], "m.png", "i.jpg")
    assert mask.dtype == bool and mask.tolist() == [[False, True]]


def test_files_by_id_sorts_and_leaves_out_what_is_no_image(tmp_path):
    for name in ("b.JPG", "a.png", "._a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert {key: path.name for key, path in files_by_id(tmp_path, (".jpg", ".png")).items()} == {
        "a": "a.png",
        "b": "b.JPG",
    }
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DatasetError, match="the same id 'a'"):
        files_by_id(tmp_path, (".jpg", ".png"))


def test_root_may_be_a_folder_above(tmp_path):
    inner = tmp_path / "x/y"
    (inner / "train").mkdir(parents=True)
    assert find_root(tmp_path, ("train",), ("z", "x/y")) == inner
    assert find_root(inner, ("train",), ("x/y",)) == inner
    assert find_root(tmp_path, ("val",), ("x/y",)) == tmp_path


def test_bad_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text('{"a": }')
    with pytest.raises(DatasetError, match=r"a\.json: not valid JSON .*line 1"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_json(tmp_path / "b.json")
