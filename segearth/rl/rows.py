"""The questions of data sets as rows for trl, read one by one as they are asked for."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.errors import DatasetError, MissingExtraError, SegEarthError
from segearth.prompting.messages import messages_for
from segearth.prompting.prompter import shown_as
from segearth.prompting.templates import AnswerTemplate
from segearth.rl.completions import RowFacts
from segearth.rl.ground_truth import ground_truth_text
from segearth.rl.traces import trace_of, written
from segearth.structures import Question, Sample
from segearth.utils.text import first_line

logger = logging.getLogger(__name__)
KEPT_ROWS = 64  # a group asks for the same row again and again
Row = dict[str, Any]


class QuestionRows:
    """One row for each image and each of so many questions about it.

    A row is always the same question, since a group's answers are compared with each other and each of them asks for
    the row anew. Without ``thought`` it has what rewards are computed from (``ground_truth``, ``extra_info``), with it
    the answer to learn from (``completion``).

    Attributes:
        left_out: Why images could not be used, by the numbers of data set and image; another one stood in for each.
    """

    def __init__(
        self, datasets: Sequence[SegmentationDataset], template: AnswerTemplate, per_image: int = 1, seed: int = 0,
        thought: str | None = None,
    ) -> None:  # fmt: skip
        """Opens no image yet.

        Args:
            datasets: Splits to read; what they have of annotations goes into traces.
            template: Asks the questions; about one image each.
            per_image: Rows of each image. An image with fewer questions has some of them twice.
            seed: Decides which questions those are.
            thought: Of traces to learn from, see :func:`segearth.rl.traces.written`; ``None``: rows to be answered.

        Raises:
            DatasetError: There is no image, or the template asks about two.
        """
        if template.images != 1:
            raise DatasetError(f"template {template.id} asks about {template.images} images; take one about a single")
        self.datasets, self.template, self.per_image = list(datasets), template, per_image
        self.seed, self.thought = seed, thought
        self.left_out: dict[tuple[int, int], str] = {}
        self._places = [(d, i) for d, dataset in enumerate(self.datasets) for i in range(len(dataset))]
        if not self._places:
            raise DatasetError("there is no image to learn from; name a data set in data.train")
        self._kept: OrderedDict[int, Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places) * self.per_image

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Row:
        """Returns row ``index``, or that of a later image where this one has no question that can be used.

        Raises:
            IndexError: There are not so many rows.
            DatasetError: No image has one.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if index not in self._kept:
            while len(self._kept) >= KEPT_ROWS:
                self._kept.popitem(last=False)
            self._kept[index] = self._first_usable(index)
        return dict(self._kept[index])

    def image_of(self, key: str) -> np.ndarray:
        """Returns the image that a row's ``image_key`` names, ``uint8`` RGB ``(H, W, 3)``."""
        dataset, index = map(int, key.split("/"))
        return self.datasets[dataset][index].image

    def as_dataset(self) -> Any:
        """Returns the rows as a ``datasets.Dataset``, which holds their numbers and reads each when it is asked for.

        Raises:
            MissingExtraError: ``datasets`` is not installed.
        """
        try:
            from datasets import Dataset
        except ImportError as error:
            raise MissingExtraError("datasets", "rl", error) from error

        def read(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
            rows = [self[index] for index in batch["row"]]
            return {name: [row[name] for row in rows] for name in rows[0]}

        return Dataset.from_dict({"row": list(range(len(self)))}).with_transform(read)

    def _first_usable(self, index: int) -> Row:
        image, slot = divmod(index, self.per_image)
        for step in range(len(self._places)):
            place = self._places[(image + step) % len(self._places)]
            try:
                if rows := self._rows(*place):
                    return rows[slot % len(rows)]
                problem = "no question of it can be used"
            except (SegEarthError, OSError) as error:
                problem = first_line(error)
            if not self.left_out:
                logger.warning("image %d of data set %d is left out, as all such are: %s", *place[::-1], problem)
            self.left_out[place] = problem
        raise DatasetError("no image has a question to learn from; see the warning above for the first one's reason")

    def _rows(self, dataset: int, index: int) -> list[Row]:
        sample = self.datasets[dataset][index]
        order = np.random.default_rng([self.seed, dataset, index]).permutation(len(sample.questions))
        rows: list[Row] = []
        for number in order:
            question = sample.questions[int(number)]
            if question.target is None:
                continue
            if len(rows) == self.per_image:
                break
            if (row := self._row(sample, question, dataset, index)) is not None:
                rows.append(row)
        return rows

    def _row(self, sample: Sample, question: Question, dataset: int, index: int) -> Row | None:
        height, width = sample.image.shape[:2]
        row: Row = {
            "prompt": messages_for(self.template, question.text),
            "images": [shown_as(sample.image, self.template)],
        }
        if self.thought is None:
            row["ground_truth"] = ground_truth_text(question.target, question.answer)
            row["extra_info"] = RowFacts.of(self.template, height, width, f"{dataset}/{index}").as_dict()
            return row
        source = self.datasets[dataset]
        annotated = source.annotated(index) if hasattr(source, "annotated") else None
        try:
            reply = written(trace_of(question, (height, width), annotated), self.template, self.thought)
        except SegEarthError as error:
            logger.debug("no trace: %s", first_line(error))
            return None
        row["completion"] = [{"role": "assistant", "content": [{"type": "text", "text": reply}]}]
        return row
