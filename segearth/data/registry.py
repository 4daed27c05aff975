"""Data sets by name. The classes are imported when one is built, so that looking names up stays light."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from segearth.data.base import SegmentationDataset
from segearth.errors import ConfigError, DatasetError, UnknownNameError, nearest_names

DATASETS: dict[str, str] = {
    "aerial_mini": "segearth.data.aerial:AerialMini",
    "synthetic": "segearth.data.synthetic:SyntheticDataset",
    "coco": "segearth.data.coco:CocoDataset",
    "jsonl": "segearth.data.jsonl:JsonlDataset",
    "earthreason": "segearth.data.earthreason:EarthReason",
    "rrsis_d": "segearth.data.rrsisd:RRSISD",
    "refsegrs": "segearth.data.refsegrs:RefSegRS",
    "risbench": "segearth.data.risbench:RISBench",
}


def list_datasets() -> list[str]:
    """Returns every name :func:`build_dataset` takes, sorted."""
    return sorted(DATASETS)


def dataset_class(name: str) -> type[SegmentationDataset]:
    """Returns the class behind a name.

    Raises:
        UnknownNameError: No data set has that name.
    """
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    module, _, attribute = DATASETS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build_dataset(name: str, root: str | Path | None, split: str, **options: Any) -> SegmentationDataset:
    """Opens one split of a data set.

    Args:
        name: One of :func:`list_datasets`.
        root: The data set's folder; ``None`` for its default place, which only data sets that can be made here have.
        split: Usually ``"train"``, ``"val"`` or ``"test"``.
        **options: Further arguments of the data set's class, such as ``fit_masks=True``.

    Raises:
        UnknownNameError: No data set has that name, or it has no such split.
        ConfigError: The data set has no such option.
        DatasetError: It needs a root and got none, or something is missing in it.
    """
    cls = dataset_class(name)
    parameters = inspect.signature(cls).parameters
    for option in options:
        if option not in parameters:
            known = sorted(set(parameters) - {"root", "split"})
            raise ConfigError(f"data set {name} has no option {option!r}{nearest_names(option, known)}")
    if root is not None:
        options["root"] = root
    elif "root" in parameters and parameters["root"].default is inspect.Parameter.empty:
        raise DatasetError(f"data set {name} needs a root\nexpected:\n{cls.tree.rstrip()}")
    return cls(split=split, **options)
