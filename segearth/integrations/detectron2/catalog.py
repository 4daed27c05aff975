"""Registers this library's data sets in detectron2's ``DatasetCatalog``, and maps their entries for its loaders.

Each entry of a data set is one question about one image: a dict in detectron2's standard format with further keys
``question_id``, ``question``, ``task``, ``kind``, ``answer`` and ``source``. If a target is empty, its list of
``annotations`` is empty. detectron2's loaders drop such entries unless they are built with ``filter_empty=False``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import check_image_size
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from detectron2.structures import BoxMode
from detectron2.utils import comm
from tqdm import tqdm

from segearth.data.questions.regions import has_direction
from segearth.data.registry import build_dataset, dataset_class
from segearth.evaluation.protocols import get_protocol, scored_questions
from segearth.structures import Question, Sample
from segearth.utils.coco_masks import decode_segmentation, encode_mask
from segearth.utils.files import read_image


def register_dataset(
    name: str,
    root: str | Path | None = None,
    splits: Sequence[str] | None = None,
    *,
    protocol: str = "native",
    **options: Any,
) -> list[str]:
    """Registers splits of a data set as ``segearth_<name>_<split>``; an earlier registration is replaced.

    Nothing is read before ``DatasetCatalog.get``, which then decodes every mask once.

    Args:
        name: One of :func:`segearth.data.registry.list_datasets`.
        root: The data set's folder; ``None`` for its default place.
        splits: Which splits; ``None`` for all that are there.
        protocol: The evaluation protocol that decides which questions are taken; ``"native"`` takes all with a mask.
        **options: Further arguments of the data set's class.

    Returns:
        The registered names.

    Raises:
        UnknownNameError: No data set or no protocol has that name.
    """
    get_protocol(protocol)
    cls = dataset_class(name)
    if splits is None:
        splits = cls.splits if root is None else cls.splits_in(root)
    keys = []
    for split in splits:
        key = f"segearth_{name}_{split}"
        if key in DatasetCatalog.list():
            DatasetCatalog.remove(key)
            MetadataCatalog.remove(key)
        DatasetCatalog.register(key, partial(dataset_dicts, name, root, split, protocol=protocol, **options))
        MetadataCatalog.get(key).set(evaluator_type="segearth", thing_classes=["target"], dataset=name, split=split)
        keys.append(key)
    return keys


def dataset_dicts(
    name: str, root: str | Path | None, split: str, *, protocol: str = "native", **options: Any
) -> list[dict[str, Any]]:
    """Returns a split as a list of detectron2's dicts, one for each question that has a mask, grouped by image.

    Questions whose targets are boxes, texts or choices are left out.

    Errors are those of :func:`segearth.data.registry.build_dataset`.

    Args:
        name: The data set's name.
        root: The data set's folder; ``None`` for its default place.
        split: The split's name.
        protocol: As for :func:`register_dataset`.
        **options: Further arguments of the data set's class.
    """
    rules = get_protocol(protocol)
    dataset = build_dataset(name, root, split, **options)
    samples = tqdm(dataset, f"{name} {split}", len(dataset), delay=3, disable=not comm.is_main_process())
    return [
        _as_dict(sample, question_id, question)
        for sample in samples
        for question_id, question in scored_questions(sample, rules).items()
        if question.mask is not None  # boxes, texts and choices have no place in detectron2's dicts of this model
    ]


class QuestionMapper:
    """Turns a dict of the catalog into what the meta-architecture takes.

    See :class:`segearth.integrations.detectron2.meta_arch.SegEarthMetaArch`.
    """

    def __init__(self, augmentations: Sequence[Augmentation] = ()) -> None:
        """Takes detectron2's augmentations.

        Args:
            augmentations: They change image and mask together. None is needed for resizing, since the model brings
                every image to its own size. If a question names a direction, such as "the roof in the west", its image
                is not augmented, because a flip would make the question wrong.
        """
        self.augmentations = AugmentationList(list(augmentations))

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Reads the image and decodes the mask.

        Returns:
            The dict's own facts, ``image`` as a ``uint8`` RGB tensor ``(3, H, W)``, and ``mask`` as a boolean tensor
            ``(H, W)``.

        Raises:
            ImageError: The image is missing or damaged.
        """
        image = entry["image"] if "image" in entry else read_image(entry["file_name"])
        check_image_size(entry, image)
        runs = [annotation["segmentation"] for annotation in entry["annotations"]]
        mask = decode_segmentation(runs, *image.shape[:2])
        if not has_direction(entry["question"]):
            view = AugInput(image, sem_seg=mask.astype(np.uint8))
            self.augmentations(view)
            image, mask = view.image, view.sem_seg == 1  # some augmentations pad the mask with 255
        mapped = {key: value for key, value in entry.items() if key != "annotations"}
        mapped["image"] = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        mapped["mask"] = torch.from_numpy(np.array(mask, order="C"))
        return mapped


def _as_dict(sample: Sample, question_id: str, question: Question) -> dict[str, Any]:
    assert question.mask is not None  # dataset_dicts leaves out those without
    height, width = sample.image.shape[:2]
    entry = {
        "image_id": sample.image_id,
        "height": height,
        "width": width,
        "question_id": question_id,
        "question": question.text,
        "task": question.task,
        "kind": question.kind,
        "answer": question.answer,
        "source": str(sample.meta.get("source", "")),
        "annotations": _annotations(question.mask),
    }
    # An image that is not read from a file, such as a synthetic one, is put into the dict itself.
    return entry | ({"image": sample.image} if sample.path is None else {"file_name": str(sample.path)})


def _annotations(mask: np.ndarray) -> list[dict[str, Any]]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return []
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return [
        {
            "bbox": [float(side) for side in box],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": encode_mask(mask),
        }
    ]
