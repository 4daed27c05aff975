from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_fakes import earthreason, rrsisd

from segearth.config import DatasetConfig
from segearth.data.base import SegmentationDataset
from segearth.data.registry import (
    DATASETS,
    build_dataset,
    dataset_class,
    list_datasets,
    share_images,
    split_label,
)
from segearth.errors import ConfigError, DatasetError, UnknownNameError


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_row_leads_to_a_class_of_that_name(name):
    cls = dataset_class(name)
    assert issubclass(cls, SegmentationDataset) and cls.name == name
    assert cls.tree.strip() and cls.licence


def test_names_are_listed_sorted():
    assert list_datasets() == sorted(DATASETS) and "rrsis_d" in list_datasets()


def test_builds_with_options(tmp_path):
    assert len(build_dataset("earthreason", earthreason(tmp_path / "e", {"1": 1}), "train")) == 1
    assert build_dataset("rrsis_d", rrsisd(tmp_path / "r"), "train", fit_masks=True).fit_masks


def test_unknown_name_split_and_option(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown data set 'rrsisd'; did you mean 'rrsis_d'"):
        build_dataset("rrsisd", tmp_path, "train")
    with pytest.raises(UnknownNameError, match="unknown earthreason split"):
        build_dataset("earthreason", tmp_path, "training")
    with pytest.raises(ConfigError, match="no option 'fit_mask'; did you mean 'fit_masks'"):
        build_dataset("rrsis_d", tmp_path, "train", fit_mask=True)


def test_needed_root_prints_the_tree():
    with pytest.raises(DatasetError, match=r"data set refsegrs needs a root\nexpected:\nROOT/"):
        build_dataset("refsegrs", None, "train")


def test_import_is_light():
    code = "import sys, segearth.data.registry; print({'torch', 'cv2', 'PIL', 'pycocotools'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (DatasetConfig("aerial_mini", None, "fit"), "aerial_mini fit"),
        (DatasetConfig("rrsis_d", "/somewhere/rrsisd", "test"), "rrsis_d test"),  # one set of images, wherever it lies
    ],
)
def test_a_split_is_named_without_the_path_to_it(config, label):
    assert split_label(config) == label
    assert share_images(label, label)


def test_folders_of_a_common_format_are_told_apart_by_name_and_hash():
    one, other = (split_label(DatasetConfig("coco", f"/{place}/images", "train")) for place in ("a", "b"))
    assert re.fullmatch(r"coco \(images [0-9a-f]{6}\) train", one) and one != other
    assert not share_images(one, other)
    here = split_label(DatasetConfig("jsonl", ".", "val"))
    assert here == split_label(DatasetConfig("jsonl", str(Path.cwd()), "val")) and Path.cwd().name in here


def test_splits_share_images_where_one_is_part_of_the_other():
    assert share_images("aerial_mini train", "aerial_mini dev") and share_images("aerial_mini fit", "aerial_mini train")
    assert not share_images("aerial_mini fit", "aerial_mini dev")
    assert not share_images("aerial_mini train", "aerial_mini test")
    assert not share_images("rrsis_d train", "earthreason train")
    assert not share_images("coco (roofs) train", "coco (roads) train")
    assert share_images("another library's set", "another library's set")
    fit, dev, train = (build_dataset("aerial_mini", None, split).records for split in ("fit", "dev", "train"))
    assert {r["id"] for r in fit} | {r["id"] for r in dev} == {r["id"] for r in train}
