"""Reads conversations about images, as EarthDial, GeoChat and LLaVA write them: all tasks in one JSON file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from segearth.data.readers.entries import EntriesDataset, list_of, texts_of
from segearth.data.readers.marked_text import BOX, boxes_of, plain, tags_of
from segearth.data.readers.source_files import parse_json, read_json, read_text
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import TARGETS_OF_TASK, Boxes, Choices, Question, Regions, Target, Task, Text

_OPTIONS = re.compile(r"(?:classes|options|categories)\s*:\s*([^.?]+)", re.IGNORECASE)
_SEVERAL = re.compile(r"list of (?:the )?(?:classes|labels)|all (?:classes|labels)|which ones", re.IGNORECASE)
_TASKS = [task for task, takes in TARGETS_OF_TASK.items() if Regions not in takes]
# The tasks that a mark stands for, by the mark; what the question and its images add is in `_task_of`.
_TASK_OF_TAG: dict[str, Task] = {
    "caption": "caption", "refer": "grounding", "identify": "region_caption", "vqa": "vqa",
    "classify": "classification",
}  # fmt: skip


@dataclass(slots=True)
class _Turn:
    """A question with all answers that the file has to it; boxes are still in hundredths."""

    id: str
    asked: str
    task: Task
    kind: str
    options: tuple[str, ...]
    answers: list[str] = field(default_factory=list)


class Conversations(EntriesDataset):
    """Images, or pairs, with turns of question and answer; a format that anybody's questions may come in.

    What is asked for is said by ``"task"``, a name of ``TARGETS_OF_TASK``. Where an entry has none, its marks say it,
    as EarthDial (https://arxiv.org/abs/2412.15190) uses them:

    ==================  ================================================================================================
    ``[caption]``       caption
    ``[refer]``         grounding; the answer is boxes
    ``[grounding]``     detection, or grounding_description where there are words around the boxes of the answer
    ``[identify]``      region_caption; the region is the box in the question
    ``[changedet]``     change_caption, or temporal_classification where the question names classes
    ``[classify]``      classification; multi_label where the question asks for a list of classes
    none of these       classification or multi_label where the question names classes, else vqa
    ==================  ================================================================================================

    Classes are those of ``"options"``, or what follows "Classes:" or "Options:" in the question, with commas between
    them. The same question about the same image, asked several times, is one question with several right texts.
    Boxes, marks and turned boxes: see :mod:`segearth.data.readers.marked_text`.

    EarthDial publishes its data as Arrow shards with one question each; the marks, the wording and the boxes were
    checked against the questions and answers in ``src/earthdial/eval`` of https://github.com/hiyamdebary/EarthDial, the
    conversations against public files in LLaVA's form. Of more than two images (``[image, …]``) the first and the last
    are taken.
    """

    name: ClassVar[str] = "conversations"
    is_format: ClassVar[bool] = True
    licence: ClassVar[str] = "your own"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/akshaydudhane/EarthDial-Dataset"
    tree: ClassVar[str] = """\
ROOT/
  train.json                [{"id": "1", "image": "images/a.png", "task": "vqa",
                              "conversations": [{"from": "human", "value": "<image>\\nIs there a ship?"},
                                                {"from": "gpt", "value": "yes"}]}]
  val.json  test.json       only those that are used; or .jsonl, with an entry a line
  images/…                  wherever the entries say, relative to ROOT; of a pair ["before.png", "after.png"]"""

    @classmethod
    def splits_in(cls, root: str | Path) -> tuple[str, ...]:
        """Returns the splits that have a file."""
        there = [s for s in cls.splits if any((Path(root) / f"{s}{end}").exists() for end in (".json", ".jsonl"))]
        return tuple(there) or cls.splits

    def _read(self) -> None:
        for number, (where, entry) in enumerate(self._listed()):
            try:
                images = self._pictures(entry, where)
                turns = self._turns(entry, f"{entry.get('id', number)}", len(images), where)
            except DatasetError as error:
                self.note(error)
                continue
            before = images[0] if len(images) > 1 else None
            image_id = images[-1] if before is None else f"{before} {images[-1]}"
            for turn in turns:
                self._add(image_id, turn, images[-1], before)

    def _listed(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns the entries of the split's file, each with where it stands."""
        lines = self.root / f"{self.split}.jsonl"
        if not lines.exists():
            path = self.require(f"{self.split}.json")
            return [(f"{path}, entry {n}", entry) for n, entry in enumerate(list_of(read_json(path), None, path))]
        found = []
        for number, written in enumerate(read_text(lines).split("\n"), start=1):
            if written.strip():
                try:
                    found.append((f"{lines}:{number}", parse_json(written, f"{lines}:{number}: ")))
                except DatasetError as error:
                    self.note(error)
        return found

    @staticmethod
    def _pictures(entry: Any, where: str) -> list[str]:
        if not isinstance(entry, dict):
            raise DatasetError(f'{where}: expected an object with "image" and "conversations"')
        given = entry.get("image")
        images = [given] if isinstance(given, str) else given
        if not isinstance(images, list) or not images or not all(isinstance(one, str) and one for one in images):
            raise DatasetError(f'{where}: "image" is {given!r}; expected a path, or a list of two for a pair')
        return images

    def _turns(self, entry: dict[str, Any], name: str, images: int, where: str) -> list[_Turn]:
        said = list_of(entry, "conversations", where)
        if not said or len(said) % 2:
            raise DatasetError(f"{where}: has {len(said)} turns; expected questions and answers in turn")
        options = tuple(str(option) for option in entry.get("options") or ())
        turns = []
        for k in range(0, len(said), 2):
            (asked,), (answer,) = texts_of(said[k], ("value",), where), texts_of(said[k + 1], ("value",), where)
            named = options or _options_in(asked)
            task = str(entry.get("task") or _task_of(asked, answer, named, images))
            if task not in _TASKS:
                raise DatasetError(f"{where}: {UnknownNameError('task of conversations', task, _TASKS)}")
            turn_id = name if len(said) == 2 else f"{name}_{k // 2}"
            turns.append(_Turn(turn_id, asked, task, str(entry.get("kind") or ""), named, [answer]))
        return turns

    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        together: dict[Any, _Turn] = {}
        for turn in entries:
            key = (turn.task, turn.asked) if TARGETS_OF_TASK[turn.task] == (Text,) else turn.id
            known = together.setdefault(key, _Turn(turn.id, turn.asked, turn.task, turn.kind, turn.options))
            known.answers += turn.answers
        return [_question(turn, height, width, f"{self.name}, question {turn.id}") for turn in together.values()]


def _question(turn: _Turn, height: int, width: int, where: str) -> Question:
    text, target, answer = plain(turn.asked), _target_of(turn, height, width, where), None
    if not text:
        raise DatasetError(f"{where}: has no words but marks")
    if turn.task == "grounding_description":
        answer = plain(turn.answers[0])
    elif not isinstance(target, Boxes):
        answer = turn.answers[0]
    box = None
    if turn.task == "region_caption":
        inside = boxes_of(turn.asked, height, width)
        if len(inside) != 1:
            raise DatasetError(f"{where}: names {len(inside)} boxes; a question about a region has one")
        (box,) = inside
    return Question(text, answer=answer, task=turn.task, kind=turn.kind, id=turn.id, target=target, box=box)


def _target_of(turn: _Turn, height: int, width: int, where: str) -> Target:
    takes = TARGETS_OF_TASK[turn.task]
    if takes == (Boxes,):
        return Boxes(boxes_of(turn.answers[0], height, width))
    if takes == (Text,):
        return Text(tuple(dict.fromkeys(turn.answers)))
    options = {option.lower(): option for option in turn.options}
    several = turn.task == "multi_label"
    said = turn.answers[0].rstrip(". ")
    labels = _split(said, options) if several else [said.lower()]
    if unknown := [label for label in labels if label not in options]:
        raise DatasetError(
            f"{where}: {unknown} is none of the classes {sorted(turn.options)}; name them in \"options\" or after "
            '"Classes:" in the question'
        )
    return Choices(turn.options, tuple(options[label] for label in dict.fromkeys(labels)))


def _split(answer: str, options: dict[str, str]) -> list[str]:
    """Takes a list of labels apart; a label may have commas of its own, so the longest that fits is taken."""
    pieces, labels = [piece.strip().lower() for piece in answer.split(",") if piece.strip()], []
    while pieces:
        count = next((n for n in range(len(pieces), 0, -1) if ", ".join(pieces[:n]) in options), 1)
        labels.append(", ".join(pieces[:count]))
        pieces = pieces[count:]
    return labels


def _options_in(question: str) -> tuple[str, ...]:
    found = _OPTIONS.search(question.replace("\\n", " "))
    if found is None:
        return ()
    return tuple(dict.fromkeys(option.strip() for option in found[1].split(",") if option.strip()))


def _task_of(question: str, answer: str, options: tuple[str, ...], images: int) -> Task:
    """Returns the task that a question's marks, classes and images stand for."""
    tags = tags_of(question)
    if "grounding" in tags:
        return "grounding_description" if plain(answer) else "detection"
    if "changedet" in tags or (images > 1 and not set(tags) & set(_TASK_OF_TAG)):
        return "temporal_classification" if options else "change_caption"
    task = next((_TASK_OF_TAG[tag] for tag in tags if tag in _TASK_OF_TAG), "classification" if options else "vqa")
    if task == "vqa" and BOX.search(question):
        return "region_caption"
    return "multi_label" if task == "classification" and _SEVERAL.search(question) else task
