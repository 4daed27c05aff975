from __future__ import annotations

import subprocess
import sys

import pytest
from dataset_fakes import earthreason, rrsisd

from segearth.data.base import SegmentationDataset
from segearth.data.registry import DATASETS, build_dataset, dataset_class, list_datasets
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
