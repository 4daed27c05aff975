"""Reads RRSIS-D: referring expressions about satellite images, in the layout of the REFER tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.source_files import find_root, read_json
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.coco_masks import decode_segmentation
from segearth.utils.files import is_file, read_image
from segearth.utils.safe_pickle import load_plain_pickle

_REFS = "rrsisd/refs(unc).p"
_INSTANCES = "rrsisd/instances.json"
_IMAGES = "images/rrsisd/JPEGImages"


class RRSISD(SegmentationDataset):
    """12,181 / 1,740 / 3,481 expressions; images of 800 x 800 pixels, 20 categories. Paper: https://arxiv.org/abs/2312.12470.

    A reference (of ``refs(unc).p``) has one or more expressions and names, by id, an image and an annotation (of
    ``instances.json``), which holds the mask. A question's ``kind`` is its category, such as ``"airplane"``.
    """

    name: ClassVar[str] = "rrsis_d"
    licence: ClassVar[str] = "CC BY-NC"
    homepage: ClassVar[str] = "https://github.com/Lsan2401/RMSIN"
    tree: ClassVar[str] = """\
ROOT/                              or a folder that holds it as rs_ref_seg/RRSIS-D/
  rrsisd/refs(unc).p               a pickle, read without running it
  rrsisd/instances.json
  images/rrsisd/JPEGImages/ID.jpg"""

    def __init__(self, root: str | Path, split: str, strict: bool = True, fit_masks: bool = False) -> None:
        """Opens one split and pairs references, annotations and images by id.

        Args:
            root: The folder with ``rrsisd/`` and ``images/``, or one above ``rs_ref_seg/RRSIS-D/``.
            split: ``"train"``, ``"val"`` or ``"test"``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.
            fit_masks: Some published images have 800 x 801 pixels and masks of 800 x 800. By default that is an error.
                If on, a mask that is one pixel too short or too long on a side is padded with background, or cropped,
                at its right and lower edge.

        Raises:
            DatasetError: A file is missing or damaged, or a reference names an annotation or image that does not exist.
        """
        super().__init__(find_root(root, (_REFS, _INSTANCES), ("rs_ref_seg/RRSIS-D", "RRSIS-D")), split, strict)
        self.fit_masks = fit_masks
        refs_path, instances_path = self.require(_REFS), self.require(_INSTANCES)
        folder = self.require_folder(_IMAGES)
        try:
            refs = [ref for ref in load_plain_pickle(refs_path) if ref["split"] == split]
            self._index(refs, read_json(instances_path), folder)
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{self.name}: {refs_path} or {instances_path} lacks a field: {error}") from error
        if not self._refs:
            raise self.nothing_usable(f"{self.name}: {refs_path} has no complete reference of split {split!r}")
        self._ids = list(self._refs)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with the expressions of all its references.

        Raises:
            ImageError: The image cannot be decoded.
            DatasetError: A mask is not as expected or differs from the image in size.
        """
        image_id = self._ids[index]
        path, height, width = self._images[image_id]
        image = read_image(path)
        questions = []
        for ref in self._refs[image_id]:
            mask = self._mask(self._segmentations[ref["ann_id"]], ref["ann_id"], (height, width), image, path)
            kind = self._categories.get(ref.get("category_id"), "")
            for k, text in enumerate(_sentences(ref)):
                questions.append(Question(text, mask, kind=kind, id=f"{ref['ref_id']}_{k}"))
        return Sample(str(image_id), image, questions, path)

    def _image_path(self, index: int) -> Path:
        return self._images[self._ids[index]][0]

    def _index(self, refs: list[dict[str, Any]], instances: dict[str, Any], folder: Path) -> None:
        images = {entry["id"]: entry for entry in instances["images"]}
        segmentations = {entry["id"]: entry["segmentation"] for entry in instances["annotations"]}
        self._categories = {entry["id"]: str(entry["name"]) for entry in instances.get("categories", [])}
        self._refs: dict[int, list[dict[str, Any]]] = {}
        self._images: dict[int, tuple[Path, int, int]] = {}
        for ref in refs:
            image = images.get(ref["image_id"])
            if image is None or ref["ann_id"] not in segmentations:
                what = f"image {ref['image_id']}" if image is None else f"annotation {ref['ann_id']}"
                self.note(DatasetError(f"{self.name}: reference {ref['ref_id']} names {what}, not in {_INSTANCES}"))
            elif not is_file(folder / image["file_name"]):
                self.note_missing(f"{_IMAGES}/{image['file_name']}")
            else:
                self._images[image["id"]] = (folder / image["file_name"], image["height"], image["width"])
                self._refs.setdefault(image["id"], []).append(ref)
        used = {ref["ann_id"] for refs_of_image in self._refs.values() for ref in refs_of_image}
        self._segmentations = {annotation_id: segmentations[annotation_id] for annotation_id in used}

    def _mask(
        self, segmentation: Any, annotation_id: int, size: tuple[int, int], image: np.ndarray, path: Path
    ) -> np.ndarray:
        origin = f"of annotation {annotation_id} in {self.root / _INSTANCES}"
        try:
            mask = decode_segmentation(segmentation, *size)
        except DatasetError as error:
            raise DatasetError(f"mask {origin}: {error}") from error
        difference = max(abs(a - b) for a, b in zip(mask.shape, image.shape, strict=False))
        if difference == 1 and self.fit_masks:
            return _fit(mask, image.shape[0], image.shape[1])
        try:
            return check_mask(mask, image, origin, path)
        except DatasetError as error:
            remedy = "; RRSISD(…, fit_masks=True) pads or crops masks that are one pixel off" if difference == 1 else ""
            raise DatasetError(f"{error}{remedy}") from error


def _fit(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    fitted = np.zeros((height, width), bool)
    rows, columns = min(height, mask.shape[0]), min(width, mask.shape[1])
    fitted[:rows, :columns] = mask[:rows, :columns]
    return fitted


def _sentences(ref: dict[str, Any]) -> list[str]:
    return [str(sentence.get("raw") or sentence.get("sent") or "").strip() for sentence in ref["sentences"]]
