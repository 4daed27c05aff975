"""Reads EarthReason: questions about overhead images that imply their target, one target region per image."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.source_files import IMAGE_SUFFIXES, files_by_id, find_root, read_json
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image, read_mask


class EarthReason(SegmentationDataset):
    """2,371 / 1,135 / 1,928 images with about six questions and three answers each; 200 images have no target.

    All questions of an image ask for the same region, so they share one mask array. The answers belong to the image and
    not to single questions, so question ``k`` gets the answer with the number ``k`` modulo the number of answers.
    Paper: https://arxiv.org/abs/2504.09644
    """

    name: ClassVar[str] = "earthreason"
    licence: ClassVar[str] = "Apache-2.0"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/earth-insights/EarthReason"
    tree: ClassVar[str] = """\
ROOT/                      or a folder that holds it as rs_reason_seg/RSReasonSeg/
  train/  val/  test/
    images/ID.jpg          or .png
    labels/ID.png          non-zero is target
    QAs/ID.json            {"questions": ["…"], "answer": ["…"]}"""

    def __init__(self, root: str | Path, split: str, strict: bool = True) -> None:
        """Opens one split and pairs its images, labels and questions by id.

        Args:
            root: The folder with the splits, or one above ``rs_reason_seg/RSReasonSeg/``.
            split: ``"train"``, ``"val"`` or ``"test"``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.

        Raises:
            DatasetError: A folder, or one of the three files of an id, is missing.
        """
        super().__init__(find_root(root, self.splits, ("rs_reason_seg/RSReasonSeg", "RSReasonSeg")), split, strict)
        self._images = files_by_id(self.require_folder(f"{split}/images"), IMAGE_SUFFIXES)
        self._labels = files_by_id(self.require_folder(f"{split}/labels"), (".png",))
        self._questions = files_by_id(self.require_folder(f"{split}/QAs"), (".json",))
        known = sorted(self._images | self._labels | self._questions)
        self._ids = [image_id for image_id in known if self._is_complete(image_id)]
        if not self._ids:
            raise self.nothing_usable(f"{self.name}: {self.root / split} has no complete image")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with all its questions.

        Raises:
            ImageError: The image or label cannot be decoded.
            DatasetError: Their sizes differ, or the question file is not as expected.
        """
        image_id = self._ids[index]
        image = read_image(self._images[image_id])
        mask = check_mask(read_mask(self._labels[image_id]), image, self._labels[image_id], self._images[image_id])
        texts, answers = self._read_questions(self._questions[image_id])
        kind = "" if mask.any() else "absent"
        questions = [
            Question(text, mask, answers[k % len(answers)] if answers else None, "reasoning", kind, f"{image_id}_{k}")
            for k, text in enumerate(texts)
        ]
        return Sample(image_id, image, questions, self._images[image_id])

    def _image_path(self, index: int) -> Path:
        return self._images[self._ids[index]]

    def _is_complete(self, image_id: str) -> bool:
        parts = (("images", "jpg", self._images), ("labels", "png", self._labels), ("QAs", "json", self._questions))
        missing = [f"{self.split}/{part}/{image_id}.{end}" for part, end, files in parts if image_id not in files]
        for entry in missing:
            self.note_missing(entry)
        return not missing

    @staticmethod
    def _read_questions(path: Path) -> tuple[list[str], list[str]]:
        content = read_json(path)
        lists = [content.get(key, []) if isinstance(content, dict) else None for key in ("questions", "answer")]
        for key, values in zip(("questions", "answer"), lists, strict=True):
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise DatasetError(f'{path}: "{key}" must be a list of strings')
        texts, answers = ([value.strip() for value in values or [] if value.strip()] for values in lists)
        if not texts:
            raise DatasetError(f"{path}: holds no question")
        return texts, answers
