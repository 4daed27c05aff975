"""Reads any COCO instance file with its image folder, and makes questions from the annotations."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.builder import ExpressionBuilder
from segearth.data.questions.table import load_table
from segearth.data.readers.source_files import read_json
from segearth.errors import ConfigError, DatasetError, nearest_names
from segearth.structures import Sample
from segearth.utils.files import is_file, read_image
from segearth.utils.seeds import rng_for


class CocoDataset(SegmentationDataset):
    """A COCO data set, with questions about classes, numbers, positions, sizes, relations and absent things.

    Every category must be annotated in every image: an image without an object of a category is taken to show none.
    (Exceptions can be named by ``incomplete``.) In training the images are cropped and turned with their annotations,
    and new questions are asked of each view.
    """

    name: ClassVar[str] = "coco"
    is_format: ClassVar[bool] = True
    licence: ClassVar[str] = "your own"
    tree: ClassVar[str] = """\
ROOT/
  annotations_train.json   or train.json; likewise val and test; or one annotations.json for all,
                           in which every image has "split": "train", "val" or "test"
  images/…                 as "file_name" says"""

    def __init__(
        self,
        root: str | Path,
        split: str,
        strict: bool = True,
        seed: int = 0,
        table: str | Path | Sequence[str | Path] = (),
        known_absent: Sequence[str] = (),
        incomplete: Sequence[str] = (),
        possible: Sequence[str] = (),
    ) -> None:
        """Reads the annotations of one split; images are decoded on indexing.

        Args:
            root: Folder that holds the layout shown in ``tree``.
            split: ``"train"``, ``"val"`` or ``"test"``. An ``annotations.json`` without splits is all training data.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.
            seed: Decides, together with an image's file name, which questions are asked of the image.
            table: Files with words and needs of your own, added to the built-in ones; see ``docs/expressions.md``.
            known_absent: Classes that are no categories of the file and are in none of the images. They are asked for
                as absent things.
            incomplete: Categories of which some objects are not annotated. They are never counted and never said to be
                absent.
            possible: Classes that are no categories of the file but may be in the images. Needs that conflict with them
                are not asked.

        Raises:
            ConfigError: A table is missing or not as described, or an option names a class that does not fit it.
            DatasetError: A file is missing, or the annotations are not COCO instances or contradict themselves.
        """
        super().__init__(root, split, strict)
        self.seed = seed
        self.table = load_table(table)
        self.builder = ExpressionBuilder(self.table)
        self.file = next((path for path in _candidates(self.root, split) if path.is_file()), None)
        if self.file is None:
            self.file = self.require(f"annotations_{split}.json")
        try:
            self._index(read_json(self.file), self.require_folder("images"))
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{self.file}: not a COCO instance file, a field is missing: {error}") from error
        self._facts = self._checked(known_absent=known_absent, incomplete=incomplete, possible=possible)
        if not self._records:
            remedy = f'; name it annotations_{split}.json, or give its images "split": "{split}"'
            raise self.nothing_usable(f"{self.file}: has no usable image of split {split!r}{remedy}")

    @classmethod
    def splits_in(cls, root: str | Path) -> tuple[str, ...]:
        """Returns the splits that have annotations; ``annotations.json`` without splits is the training split."""
        own = tuple(split for split in cls.splits if any(path.is_file() for path in _candidates(Path(root), split)[:2]))
        single = Path(root) / "annotations.json"
        if own or not single.is_file():
            return own or cls.splits
        try:
            images = read_json(single).get("images", [])
            found = {image.get("split", "train") for image in images}
        except (AttributeError, TypeError):  # it is no COCO file; the error comes when the data set is opened
            return cls.splits[:1]
        return tuple(split for split in cls.splits if split in found)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` and asks the same questions of it each time.

        Raises:
            ImageError: The image cannot be decoded.
            DatasetError: Its size is not the stated one, or an annotation cannot be read.
        """
        image_id = str(self._records[index]["file_name"])
        image, annotated = self.image(index), self.annotated(index)
        drawn = self.builder.build(annotated, rng_for(self.seed, zlib.crc32(image_id.encode())))
        questions = [replace(question, id=f"{image_id}_{k}") for k, question in enumerate(drawn)]
        return Sample(image_id, image, questions, self._image_path(index))

    def image(self, index: int) -> np.ndarray:
        """Decodes image ``index`` as ``uint8`` RGB of shape ``(H, W, 3)``.

        Raises:
            ImageError: It cannot be decoded.
            DatasetError: Its size is not the one the annotations state.
        """
        image, record = read_image(self._image_path(index)), self._records[index]
        height, width = image.shape[:2]
        if (width, height) != (record["width"], record["height"]):
            stated = f"{record['width']}x{record['height']}"
            raise DatasetError(f"image {self._image_path(index)} is {width}x{height} but {self.file} says {stated}")
        return image

    def annotated(self, index: int) -> AnnotatedImage:
        """Returns the annotation of image ``index`` at the image's own size.

        Raises:
            DatasetError: An annotation cannot be read.
        """
        record = self._records[index]
        try:
            own = self._annotations.get(record["id"], [])
            return AnnotatedImage.from_coco(record, own, self._categories, **self._facts)
        except DatasetError as error:
            raise DatasetError(f"{self.file}: image {record['file_name']}: {error}") from error

    def _checked(self, **facts: Sequence[str]) -> dict[str, list[str]]:
        """Checks the class names in the options, since a misspelt one would have no effect and go unnoticed."""
        categories = sorted({str(entry["name"]) for entry in self._categories.values()})
        checked = {key: [names] if isinstance(names, str) else list(names) for key, names in facts.items()}
        for key, names in checked.items():
            for name in names:
                if key == "incomplete" and name not in categories:
                    near = nearest_names(name, categories)
                    raise ConfigError(f"incomplete: {self.file} has no category {name!r}{near}")
                if key != "incomplete" and name in categories:
                    raise ConfigError(f"{key}: {self.file} annotates {name!r} itself; take it off the list")
        return checked

    def _image_path(self, index: int) -> Path:
        return self.root / "images" / self._records[index]["file_name"]

    def _index(self, content: dict[str, Any], folder: Path) -> None:
        self._categories = {entry["id"]: entry for entry in content["categories"]}
        for entry in content["categories"]:
            if not isinstance(entry["name"], str) or not entry["name"].strip():
                raise DatasetError(f"{self.file}: category {entry['id']} needs a name")
        images = {entry["id"]: entry for entry in content["images"]}
        if len(images) < len(content["images"]):
            self.note(DatasetError(f"{self.file}: two images have the same id"))
        whole_file = self.file is not None and self.file.name == "annotations.json"
        self._records: list[dict[str, Any]] = []
        for record in images.values():
            if whole_file and record.get("split", "train") != self.split:
                continue
            if not is_file(folder / record["file_name"]):
                self.note_missing(f"images/{record['file_name']}")
            else:
                self._records.append({"width": record["width"], "height": record["height"], **record})
        self._annotations: dict[int, list[dict[str, Any]]] = {}
        for number, annotation in enumerate(content["annotations"], start=1):
            if problem := _problem_of(annotation, images, self._categories):
                name = annotation.get("id", f"number {number}") if isinstance(annotation, dict) else f"number {number}"
                self.note(DatasetError(f"{self.file}: annotation {name} {problem}"))
            else:
                self._annotations.setdefault(annotation["image_id"], []).append(annotation)


def _problem_of(annotation: Any, images: dict[Any, Any], categories: dict[Any, Any]) -> str:
    """Returns what is wrong with an annotation, apart from its mask, or an empty text if nothing is."""
    if not isinstance(annotation, dict):
        return "is no object"
    if not str(annotation.get("id")).isdecimal():
        return 'needs "id", a whole number'
    for key, known, what in (("image_id", images, "image"), ("category_id", categories, "category")):
        if not isinstance(annotation.get(key), (int, str)):
            return f'needs "{key}", a number or a text'
        if annotation[key] not in known:
            return f"names {what} {annotation[key]}, which is not listed"
    if not annotation.get("segmentation"):
        return "has no segmentation; a box alone is no mask"
    if not isinstance(annotation.get("attributes") or {}, dict):
        return 'has "attributes" that are no object'
    return ""


def _candidates(root: Path, split: str) -> list[Path]:
    return [root / f"annotations_{split}.json", root / f"{split}.json", root / "annotations.json"]
