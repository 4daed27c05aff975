"""Reads RSVQA, low and high resolution: questions about images, made from OpenStreetMap, with short answers."""

from __future__ import annotations

from typing import Any, ClassVar

from segearth.data.readers.entries import EntriesDataset, list_of, texts_of
from segearth.data.readers.source_files import read_json
from segearth.errors import DatasetError
from segearth.structures import Question, Text


class RSVQA(EntriesDataset):
    """Three JSON files a split: images, questions, and answers, which name one another by id.

    Rows that are not ``active`` belong to other splits and have an id alone. Counts are kept as the files have them;
    the paper's own scores put those of the low-resolution set into five ranges first. ``kind`` is the question's type,
    such as ``"count"`` or ``"presence"``. Paper: https://arxiv.org/abs/2003.07333. The layout was checked against the
    loader of https://github.com/isaaccorley/torchrs.

    Attributes:
        prefix: What the files' names begin with.
        image_folder: Folder of the images.
    """

    homepage: ClassVar[str] = "https://rsvqa.sylvainlobry.com"
    licence: ClassVar[str] = "see its home page"
    prefix: ClassVar[str]
    image_folder: ClassVar[str]

    def _read(self) -> None:
        names = ("images", "questions", "answers")
        paths = {name: self.require(f"{self.prefix}_split_{self.split}_{name}.json") for name in names}
        rows = {name: _by_id(list_of(read_json(path), name, path), path) for name, path in paths.items()}
        for question_id, question in rows["questions"].items():
            where = f"{paths['questions']}, question {question_id}"
            try:
                image_id, text, kind = texts_of(question, ("img_id", "question", "type"), where)
                answer_ids = list_of(question, "answers_ids", where)
                answers = [rows["answers"].get(str(answer_id)) for answer_id in answer_ids]
                if not answers or None in answers:
                    raise DatasetError(f"{where}: answers {answer_ids} are not in {paths['answers'].name}")
                if image_id not in rows["images"]:
                    raise DatasetError(f"{where}: image {image_id} is not in {paths['images'].name}")
                right = [texts_of(answer, ("answer",), f"{where}, its answer")[0] for answer in answers]
            except DatasetError as error:
                self.note(error)
                continue
            self._add(image_id, (question_id, text, kind, tuple(right)), f"{self.image_folder}/{image_id}.tif")

    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        return [
            Question(text, answer=right[0], task="vqa", kind=kind, id=question_id, target=Text(right))
            for question_id, text, kind, right in entries
        ]


class RSVQALR(RSVQA):
    """772 Sentinel-2 images of 256 x 256 pixels at 10 m over the Netherlands, 77,232 questions."""

    name: ClassVar[str] = "rsvqa_lr"
    prefix: ClassVar[str] = "LR"
    image_folder: ClassVar[str] = "Images_LR"
    tree: ClassVar[str] = """\
ROOT/
  LR_split_{train,val,test}_images.json      {"images": [{"id": 0, "active": true}]}
  LR_split_{train,val,test}_questions.json   {"questions": [{"id": 0, "img_id": 0, "question": "…", "type": "count",
                                                             "answers_ids": [0], "active": true}]}
  LR_split_{train,val,test}_answers.json     {"answers": [{"id": 0, "answer": "…", "active": true}]}
  Images_LR/ID.tif"""


class RSVQAHR(RSVQA):
    """10,659 aerial images of 512 x 512 pixels at 0.15 m in the USA, 1,066,316 questions.

    ``test`` lies near the training images; ``test_phili`` is a city (Philadelphia) and a sensor of its own.
    """

    name: ClassVar[str] = "rsvqa_hr"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "test_phili")
    prefix: ClassVar[str] = "USGS"
    image_folder: ClassVar[str] = "Data"
    tree: ClassVar[str] = """\
ROOT/
  USGS_split_{train,val,test,test_phili}_images.json       {"images": [{"id": 0, "active": true}]}
  USGS_split_{train,val,test,test_phili}_questions.json    {"questions": [{"id": 0, "img_id": 0, "question": "…",
                                                             "type": "count", "answers_ids": [0], "active": true}]}
  USGS_split_{train,val,test,test_phili}_answers.json      {"answers": [{"id": 0, "answer": "…", "active": true}]}
  Data/ID.tif"""


def _by_id(rows: list[Any], path: object) -> dict[str, dict[str, Any]]:
    """Returns the active rows by id."""
    found = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "id" not in row:
            raise DatasetError(f"{path}, row {number}: expected an object with an id")
        if row.get("active", True):
            found[str(row["id"])] = row
    return found
