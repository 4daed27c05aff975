"""Reads JSON lines, a format for your own images, questions and masks, described in ``docs/custom_data.md``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.source_files import parse_json, read_text
from segearth.errors import DatasetError, ImageError, nearest_names
from segearth.structures import TARGETS_OF_TASK, Question, Regions, Sample, Task
from segearth.utils.coco_masks import decode_segmentation
from segearth.utils.files import is_file, read_image, read_mask

_REQUIRED = ("image", "question", "mask")
_OPTIONAL = ("answer", "task", "kind", "id")


@dataclass(slots=True)
class _Line:
    """One line of the file. ``mask`` is a file, a COCO segmentation, or ``None`` if the thing is not in the image."""

    number: int
    question: str
    mask: Path | dict[str, Any] | list[Any] | None
    answer: str | None
    task: Task
    kind: str
    id: str


class JsonlDataset(SegmentationDataset):
    """One JSON object per line: an image, a question, and the mask that answers it. Lines of one image are grouped."""

    name: ClassVar[str] = "jsonl"
    is_format: ClassVar[bool] = True
    licence: ClassVar[str] = "your own"
    tree: ClassVar[str] = """\
ROOT/                      or the path of one .jsonl file
  train.jsonl              {"image": "images/a.jpg", "question": "the red roof", "mask": "masks/a_1.png"}
  val.jsonl  test.jsonl    only those that are used
  images/…  masks/…        wherever the lines say, relative to the .jsonl file"""

    def __init__(self, root: str | Path, split: str, strict: bool = True) -> None:
        """Reads and checks every line of one split; images and masks are decoded on indexing.

        Args:
            root: Folder with ``{split}.jsonl``; or the path of one ``.jsonl`` file, which is then read for any split.
            split: ``"train"``, ``"val"`` or ``"test"``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.

        Raises:
            DatasetError: The file or an image or mask it names is missing, or a line is not as described; the message
                has the file and line number.
        """
        root = Path(root)
        is_file = root.is_file()
        super().__init__(root.parent if is_file else root, split, strict)
        self.file = root if is_file else self.require(f"{split}.jsonl")
        self._images: dict[str, list[_Line]] = {}
        self._read()
        self._ids = list(self._images)
        if not self._ids:
            raise self.nothing_usable(f"{self.file}: holds no usable line")

    @classmethod
    def splits_in(cls, root: str | Path) -> tuple[str, ...]:
        """Returns the splits that have a file; if ``root`` is a file itself, only the first split."""
        if Path(root).is_file():
            return cls.splits[:1]
        return tuple(split for split in cls.splits if (Path(root) / f"{split}.jsonl").exists()) or cls.splits

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with the questions of all its lines, in their order.

        Raises:
            ImageError: The image or a mask cannot be decoded.
            DatasetError: A mask differs from the image in size or cannot be read; the message has file and line number.
        """
        image_id, path = self._ids[index], self._image_path(index)
        image = read_image(path)
        questions, wrong = [], []
        for line in self._images[image_id]:
            try:
                mask = self._mask(line, image, path)
            except (DatasetError, ImageError) as error:
                wrong.append(error)
                continue
            questions.append(Question(line.question, mask, line.answer, line.task, line.kind, line.id))
        if len(wrong) > 1:  # one error for all of them, so that `segearth data verify` can name each line
            problems = [str(error).splitlines()[0] for error in wrong]
            raise DatasetError("\n".join(problems), problems)
        if wrong:
            raise wrong[0]
        return Sample(image_id, image, questions, path)

    def _image_path(self, index: int) -> Path:
        return self.root / self._ids[index]

    def _read(self) -> None:
        lines_of_ids: dict[str, int] = {}
        text = read_text(self.file)
        for number, written in enumerate(text.split("\n"), start=1):
            if not written.strip():
                continue
            try:
                image, line = self._parse(written, number)
                if line.id and line.id in lines_of_ids:
                    raise DatasetError(f'"id" {line.id!r} was used in line {lines_of_ids[line.id]}')
            except DatasetError as error:
                self.note(DatasetError(f"{self.file}:{number}: {error}"))
                continue
            group = self._images.setdefault(image, [])
            line.id = line.id or f"{image}_{len(group)}"
            lines_of_ids[line.id] = number
            group.append(line)

    def _parse(self, written: str, number: int) -> tuple[str, _Line]:
        record = parse_json(written)
        if not isinstance(record, dict):
            raise DatasetError('expected an object, {"image": …, "question": …, "mask": …}')
        for key in record:
            if key not in _REQUIRED + _OPTIONAL:
                raise DatasetError(f"unknown key {key!r}{nearest_names(key, sorted(_REQUIRED + _OPTIONAL))}")
        if "mask" not in record:
            raise DatasetError('"mask" is missing; write null if what the question asks for is not in the image')
        for key in ("image", "question"):
            if not isinstance(record.get(key), str) or not record[key].strip():
                raise DatasetError(f'"{key}" must be a text that is not empty')
        for key in _OPTIONAL:
            if not isinstance(record.get(key, ""), str | None):
                raise DatasetError(f'"{key}" must be a text')
        task: Task = record.get("task") or "referring"
        tasks = [name for name, takes in TARGETS_OF_TASK.items() if Regions in takes]  # a line has a mask, nothing else
        if task not in tasks:
            raise DatasetError(f'"task" is {task!r}; it must be one of {", ".join(tasks)}')
        image = Path(record["image"]).as_posix()
        if not is_file(self.root / image):
            raise DatasetError(f"no image file {self.root / image}")
        mask = self._parse_mask(record["mask"])
        kind = record.get("kind") or ("absent" if mask is None else "")
        answer, question_id = record.get("answer") or None, record.get("id") or ""
        return image, _Line(number, record["question"].strip(), mask, answer, task, kind, question_id)

    def _parse_mask(self, mask: Any) -> Path | dict[str, Any] | list[Any] | None:
        if mask is None or mask == "none":
            return None
        if isinstance(mask, dict | list):
            return mask
        if not isinstance(mask, str):
            raise DatasetError('"mask" must be a path, run lengths, a list of polygons, or null')
        path = self.root / mask
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise DatasetError(f"mask {path} is a JPEG, which blurs its edges; save it as PNG")
        if not is_file(path):
            raise DatasetError(f"no mask file {path}")
        return path

    def _mask(self, line: _Line, image: np.ndarray, path: Path) -> np.ndarray:
        height, width = image.shape[:2]
        if line.mask is None:
            return np.zeros((height, width), bool)
        if isinstance(line.mask, Path):
            return check_mask(read_mask(line.mask), image, f"{line.mask} ({self.file}:{line.number})", path)
        try:
            mask = decode_segmentation(line.mask, height, width)
        except DatasetError as error:
            raise DatasetError(f"{self.file}:{line.number}: {error}") from error
        return check_mask(mask, image, f"of {self.file}:{line.number}", path)
