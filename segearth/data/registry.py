"""Data sets by name. The classes are imported when one is built, so that looking names up stays light."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from segearth.config import DataConfig, DatasetConfig
from segearth.data.base import SegmentationDataset
from segearth.errors import ConfigError, DatasetError, UnknownNameError, nearest_names

DATASETS: dict[str, str] = {
    "aerial_mini": "segearth.data.readers.aerial:AerialMini",
    "synthetic": "segearth.data.readers.synthetic:SyntheticDataset",
    "coco": "segearth.data.readers.coco:CocoDataset",
    "jsonl": "segearth.data.readers.jsonl:JsonlDataset",
    "earthreason": "segearth.data.readers.earthreason:EarthReason",
    "rrsis_d": "segearth.data.readers.rrsisd:RRSISD",
    "refsegrs": "segearth.data.readers.refsegrs:RefSegRS",
    "risbench": "segearth.data.readers.risbench:RISBench",
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


def split_configs(data: DataConfig, split: str) -> list[DatasetConfig]:
    """Returns the data sets of one split of an experiment.

    Where ``data.val`` or ``data.test`` is left out, those splits of the training sets stand in, as far as there are
    some: a model of one's own data is never scored on another's by default.

    Args:
        data: The experiment's.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        UnknownNameError: No such split, or no such data set.
    """
    chosen = {"train": data.train, "val": data.val, "test": data.test}
    if split not in chosen:
        raise UnknownNameError("split", split, chosen)
    if (named := chosen[split]) is not None:
        return named
    found: list[DatasetConfig] = []
    for config in data.train:
        there = split in dataset_class(config.name).splits_in(config.root or ".")
        if there and all((config.name, config.root) != (other.name, other.root) for other in found):
            found.append(replace(config, split=split))
    return found


def split_label(config: DatasetConfig) -> str:
    """Names a split for people and for the record beside weights, such as ``"aerial_mini train"``.

    Data in a common format are told apart by the name of their folder and a few digits of a hash of its path; the path
    itself may tell strangers how the folders of a machine are called.
    """
    if not config.root or not dataset_class(config.name).is_format:
        return f"{config.name} {config.split}"
    path = Path(config.root).expanduser().resolve()
    return f"{config.name} ({path.name} {hashlib.sha256(str(path).encode()).hexdigest()[:6]}) {config.split}"


def share_images(one: str, other: str) -> bool:
    """Tells of two :func:`split_label` whether one is the other, or a part of it.

    Example:
        >>> share_images("aerial_mini train", "aerial_mini dev"), share_images("aerial_mini fit", "aerial_mini dev")
        (True, False)
    """
    (place, a), (other_place, b) = (label.rpartition(" ")[::2] for label in (one, other))
    if place != other_place:
        return False
    name = place.partition(" ")[0]
    parts = dataset_class(name).parts if name in DATASETS else {}
    return a == b or b in parts.get(a, ()) or a in parts.get(b, ())
