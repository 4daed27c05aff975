"""Reads VRSBench: a caption, expressions with boxes, and questions with short answers about each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from segearth.data.readers.entries import EntriesDataset, list_of, texts_of
from segearth.data.readers.marked_text import boxes_of, plain, tags_of
from segearth.data.readers.source_files import read_json
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import Boxes, Question, Task, Text

ANSWER_HINT = " A short answer to the question is"  # which the training questions end with


class VRSBench(EntriesDataset):
    """29,614 images of 512 x 512 pixels from DOTA and DIOR. Paper: https://arxiv.org/abs/2406.12384.

    ``train`` is the publisher's file of conversations, 20,264 captions, 36,313 expressions and 85,813 questions;
    ``test`` its three files for scoring (its images are called ``val``): 9,350, 16,159 and 37,409. Boxes are written in
    hundredths of the sides and cut at the image, as a few reach beyond it. ``kind`` is a question's type, of an
    expression ``"unique"`` or ``"not unique"`` where the file says whether the class has one object in the image.

    The files for scoring were checked against the notebook that writes them, ``prepare_eval_all.ipynb`` of
    https://github.com/lx709/VRSBench; names of files and the wording of conversations against public loaders.
    """

    name: ClassVar[str] = "vrsbench"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/xiang709/VRSBench"
    conversations: ClassVar[str] = "VRSBench_train.json"
    for_scoring: ClassVar[dict[Task, str]] = {
        "caption": "VRSBench_EVAL_Cap.json", "grounding": "VRSBench_EVAL_referring.json",
        "vqa": "VRSBench_EVAL_vqa.json",
    }  # fmt: skip
    task_of_tag: ClassVar[dict[str, Task]] = {"caption": "caption", "refer": "grounding", "vqa": "vqa"}
    image_folder: ClassVar[dict[str, str]] = {"train": "Images_train", "test": "Images_val"}
    tree: ClassVar[str] = """\
ROOT/
  VRSBench_train.json             [{"image": "NAME.png", "conversations": [{"from": "human", "value": "[refer] …"},
                                                                           {"from": "gpt", "value": "{<25>…<60>}"}]}]
  VRSBench_EVAL_Cap.json          [{"image_id": "NAME.png", "question": "…", "ground_truth": "…", "question_id": 0,
  VRSBench_EVAL_referring.json      "type": "…"}]
  VRSBench_EVAL_vqa.json
  Images_train/NAME.png
  Images_val/NAME.png"""

    def __init__(
        self, root: str | Path, split: str, strict: bool = True,
        tasks: Sequence[Task] = ("caption", "grounding", "vqa"),
    ) -> None:  # fmt: skip
        """Opens one split.

        Args:
            root: Folder that holds the layout shown in ``tree``.
            split: ``"train"`` or ``"test"``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.
            tasks: Those to read.

        Raises:
            UnknownNameError: No such task.
            DatasetError: A file is missing, or an entry is not as expected.
        """
        for task in tasks:
            if task not in self.for_scoring:
                raise UnknownNameError(f"{self.name} task", task, self.for_scoring)
        self.tasks = tuple(tasks)
        super().__init__(root, split, strict)

    def _read(self) -> None:
        self.require_folder(self.image_folder[self.split])
        if self.split == "train":
            self._read_conversations()
            return
        for task, name in self.for_scoring.items():
            if task not in self.tasks:
                continue
            path = self.require(name)
            for number, row in enumerate(list_of(read_json(path), None, path)):
                where = f"{path}, row {number}"
                try:
                    image, question, right = texts_of(row, ("image_id", "question", "ground_truth"), where)
                except DatasetError as error:
                    self.note(error)
                    continue
                kind = str(row.get("type", "")) if task == "vqa" else ""
                if task == "grounding" and "unique" in row:
                    kind = "unique" if row["unique"] else "not unique"
                self._put(image, (task, question, right, kind, f"{task}_{row.get('question_id', number)}"))

    def _read_conversations(self) -> None:
        path = self.require(self.conversations)
        for number, row in enumerate(list_of(read_json(path), None, path)):
            where = f"{path}, row {number}"
            try:
                (image,) = texts_of(row, ("image",), where)
                said = [texts_of(turn, ("value",), where)[0] for turn in list_of(row, "conversations", where)]
                tasks = [self.task_of_tag[tag] for tag in tags_of(said[0]) if tag in self.task_of_tag] if said else []
                if len(said) != 2 or len(tasks) != 1:
                    raise DatasetError(f"{where}: expected a question with [caption], [refer] or [vqa], and an answer")
            except DatasetError as error:
                self.note(error)
                continue
            if tasks[0] in self.tasks:
                question = plain(said[0]).removesuffix(ANSWER_HINT).replace("?.", "?")
                self._put(image, (tasks[0], question, said[1], "", f"train_{number}"))

    def _put(self, image: str, entry: Any) -> None:
        self._add(image.rpartition(".")[0] or image, entry, f"{self.image_folder[self.split]}/{image}")

    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        questions = []
        for task, text, right, kind, question_id in entries:
            target: Boxes | Text = Text((right,))
            if task == "grounding":
                target = Boxes(boxes_of(right, height, width))
                if not target.values:
                    raise DatasetError(f"{self.name}, question {question_id}: {right!r} is no box {{<x0><y0><x1><y1>}}")
            answer = None if task == "grounding" else right
            questions.append(Question(text, answer=answer, task=task, kind=kind, id=question_id, target=target))
        return questions
