"""Reads the layout of RSICD and LEVIR-CC: one JSON file that lists images with their sentences and their split."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from segearth.data.readers.entries import EntriesDataset, list_of, texts_of
from segearth.data.readers.source_files import read_json
from segearth.errors import DatasetError
from segearth.structures import Question, Task, Text


class CaptionListDataset(EntriesDataset):
    """A data set with ``{"images": [{"filename", "split", "sentences": [{"raw"}]}]}``, as Karpathy's splits of COCO.

    Each image is asked once; each of its sentences is a right answer.

    Attributes:
        captions: The file.
        task: What is asked for.
        question: In which words; the data set has none.
    """

    captions: ClassVar[str]
    task: ClassVar[Task]
    question: ClassVar[str]

    @abstractmethod
    def _pictures(self, filename: str) -> tuple[str, str | None]:
        """Returns the image of an entry and, of a pair, the earlier one, relative to the root."""

    def _read(self) -> None:
        path = self.require(self.captions)
        for number, entry in enumerate(list_of(read_json(path), "images", path)):
            try:
                filename, split = texts_of(entry, ("filename", "split"), f"{path}, image {number}")
                if split != self.split:
                    continue
                sentences = [
                    texts_of(sentence, ("raw",), f"{path}, image {number}, a sentence")[0]
                    for sentence in list_of(entry, "sentences", f"{path}, image {number}")
                ]
                if not sentences:
                    raise DatasetError(f"{path}, image {number}: {filename} has no sentence")
            except DatasetError as error:
                self.note(error)
                continue
            relative, before = self._pictures(filename)
            kind = self._kind(entry)
            self._add(filename.rpartition(".")[0] or filename, (sentences, kind), relative, before)

    def _kind(self, entry: dict[str, Any]) -> str:
        """Returns the finer label of an entry, for reports."""
        return ""

    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        return [
            Question(self.question, task=self.task, kind=kind, id=f"{image_id}_{k}", target=Text(tuple(sentences)))
            for k, (sentences, kind) in enumerate(entries)
        ]
