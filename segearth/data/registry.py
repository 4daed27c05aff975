"""Data sets by name. A class is imported only when it is needed, so that looking up a name takes no time."""

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
    "roofs": "segearth.data.readers.roofs:RoofsDataset",
    "coco": "segearth.data.readers.coco:CocoDataset",
    "jsonl": "segearth.data.readers.jsonl:JsonlDataset",
    "earthreason": "segearth.data.readers.earthreason:EarthReason",
    "rrsis_d": "segearth.data.readers.rrsisd:RRSISD",
    "refsegrs": "segearth.data.readers.refsegrs:RefSegRS",
    "risbench": "segearth.data.readers.risbench:RISBench",
    "dior_rsvg": "segearth.data.readers.dior_rsvg:DiorRSVG",
    "vrsbench": "segearth.data.readers.vrsbench:VRSBench",
    "rsvqa_lr": "segearth.data.readers.rsvqa:RSVQALR",
    "rsvqa_hr": "segearth.data.readers.rsvqa:RSVQAHR",
    "rsicd": "segearth.data.readers.rsicd:RSICD",
    "levir_cc": "segearth.data.readers.levir_cc:LevirCC",
    "conversations": "segearth.data.readers.conversations:Conversations",
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
        root: The data set's folder; ``None`` for its default place, which only the built-in data sets have.
        split: Usually ``"train"``, ``"val"`` or ``"test"``.
        **options: Further arguments of the data set's class, such as ``fit_masks=True``.

    Raises:
        UnknownNameError: No data set has that name, or it has no such split.
        ConfigError: The data set has no such option.
        DatasetError: The data set needs a root and got none, or something is missing under it.
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

    If ``data.val`` or ``data.test`` is left out, the val or test splits of the training sets are taken, as far as there
    are such splits. A fixed default would score a model on data of another kind than it was trained on.

    Args:
        data: The experiment's data configuration.
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
    """Returns a split's name for reports and for the record of what a model was trained on: ``"aerial_mini train"``.

    For a format, such as COCO, the label has the name of the folder and a few digits of a hash of its path, to tell two
    data sets apart. The path itself is left out, since the label is published with the weights.
    """
    if not config.root or not dataset_class(config.name).is_format:
        return f"{config.name} {config.split}"
    path = Path(config.root).expanduser().resolve()
    return f"{config.name} ({path.name} {hashlib.sha256(str(path).encode()).hexdigest()[:6]}) {config.split}"


def share_images(one: str, other: str) -> bool:
    """Whether two labels of :func:`split_label` are of the same split, or of a split and a part of it.

    Example:
        >>> share_images("aerial_mini train", "aerial_mini dev"), share_images("aerial_mini fit", "aerial_mini dev")
        (True, False)
    """
    (dataset, split), (other_dataset, other_split) = (label.rpartition(" ")[::2] for label in (one, other))
    if dataset != other_dataset:
        return False
    name = dataset.partition(" ")[0]
    parts = dataset_class(name).parts if name in DATASETS else {}
    return split == other_split or other_split in parts.get(split, ()) or split in parts.get(other_split, ())
