"""A vision-language model that points and a promptable segmenter that fills in, together a segmenter like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from segearth.errors import SegEarthError
from segearth.preprocessing.images import as_rgb
from segearth.prompting.answers import Instance, ParsedAnswer, words_of
from segearth.prompting.frames import clip_to_image
from segearth.prompting.promptable import (
    PromptableSegmenter,
    PromptedMask,
    filled_box,
    joined,
    without_doubles,
)
from segearth.prompting.prompter import Prompter
from segearth.segmenter import (
    AnswerCounts,
    DecidingSettings,
    ImageInput,
    SegmenterFacts,
    numbers_of_images,
    one_each,
)
from segearth.structures import TARGETS_OF_TASK, Boxes, Segmentation, Task

logger = logging.getLogger(__name__)
MOST_INSTANCES = 100  # of one answer; a model that has lost its way can list thousands


class PromptedSegmenter:
    """The :class:`~segearth.segmenter.Segmenter` of the decoupled family, as Think2Seg-RS (arXiv 2512.19302) answers.

    The vision-language model writes boxes and points. Of two boxes for the same thing the smaller is dropped, the
    segmenter makes a mask of each that remains, and the masks are joined by OR. It has no raw scores: presence is 1
    where the model lists something, else 0, and an answer's score is the mean of what the segmenter expects of its
    masks.

    Tasks whose right answer is boxes are answered with the boxes as they were written, each filled in, and none is
    dropped: they are scored against boxes, where the edge of a mask or a rule of another system would only disturb.

    Attributes:
        failures: How many answers so far could not be read; each gave an empty mask, and no words.
        answered: How many answers so far there were.
    """

    def __init__(
        self, prompter: Prompter, segmenter: PromptableSegmenter, most_instances: int = MOST_INSTANCES
    ) -> None:
        """Takes both halves.

        Args:
            prompter: Writes boxes and points.
            segmenter: Makes masks of them.
            most_instances: How many things of an answer are looked at, the first ones.
        """
        self.prompter, self.segmenter, self.most_instances = prompter, segmenter, most_instances
        self.failures = self.answered = 0
        self._images: list[np.ndarray] = []
        self._before: list[np.ndarray | None] = []

    @property
    def facts(self) -> SegmenterFacts:
        """What others need to know; :meth:`predict` gives no logits, so there is nothing to decide."""
        size = self.prompter.template.frame.size if self.prompter.template.frame.in_pixels else None
        device = self.prompter.model.device.type
        return SegmenterFacts(
            side=max(size) if size else None, device=device, deciding=DecidingSettings(), sees_pairs=True,
            takes_boxes=True,
        )  # fmt: skip

    @property
    def counts(self) -> AnswerCounts:
        """The answers so far."""
        return AnswerCounts(self.failures, self.answered)

    def set_image(self, image: ImageInput, before: ImageInput | None = None) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_image`.

        Args:
            image: See there; of a pair the later one, which boxes and masks count.
            before: The earlier image of the same place, for tasks about a pair.
        """
        self.set_images([image], before=[before])

    def set_images(self, images: Sequence[ImageInput], before: Sequence[ImageInput | None] | None = None) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_images`; images of all sizes can be set together.

        Args:
            images: See there.
            before: For each the earlier image of a pair, or ``None``.

        Raises:
            ImageError: An image cannot be used.
            SegEarthError: There are not as many earlier images as images.
        """
        self._images, self._before = [], []
        earlier = one_each(before, len(images), "earlier images")
        self._before = [None if image is None else as_rgb(image) for image in earlier]
        self._images = [as_rgb(image) for image in images]

    def predict(
        self,
        questions: str | Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
        boxes: Sequence[Sequence[float] | None] | None = None,
    ) -> Any:
        """See :meth:`segearth.segmenter.Segmenter.predict`. It has no logits: ``return_logits`` changes nothing.

        Args:
            questions: See there, as for all but the last.
            task: For all or for each.
            about: Numbers of images.
            answer: Also in words.
            return_logits: Changes nothing.
            boxes: For each question the region that it is about, ``(x0, y0, x1, y1)`` in pixels of its image, or
                ``None``; left out: all are about whole images.

        Returns:
            One :class:`~segearth.structures.Segmentation` for a question that is a text, else a list. Its regions are
            the things the model pointed at. With ``answer`` what the model wrote, its thought included; to tasks that
            are answered in words, or in words and boxes, only the words.

        Raises:
            SegEarthError: No image is set, or tasks, boxes or numbers of images do not fit the questions.
            UnknownNameError: There is no template for a task.
            QuestionError: A question is empty, or asks about a pair where one image is set.
        """
        texts = [questions] if isinstance(questions, str) else list(questions)
        if not self._images:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        tasks: list[Task] = one_each(task, len(texts), "tasks")
        numbers = numbers_of_images(about, len(texts), len(self._images))
        read = self.prompter.ask(
            [self._images[number] for number in numbers], texts, tasks,
            before=[self._before[number] for number in numbers], boxes=boxes,
        )  # fmt: skip
        answers: dict[int, Segmentation] = {}
        # Image by image, so that the segmenter encodes each once however its questions are mixed.
        for place in sorted(range(len(texts)), key=lambda place: numbers[place]):
            found = self._seen(texts[place], self._images[numbers[place]], read[place], tasks[place])
            if answer:
                found.answer = self._words(read[place], tasks[place])
            answers[place] = found
        return answers[0] if isinstance(questions, str) else [answers[place] for place in range(len(texts))]

    def _words(self, read: ParsedAnswer, task: Task) -> str:
        template = self.prompter.template_for(task)
        if template.form == "text":
            return read.answer
        return words_of(read.answer) if template.words else read.text.strip()

    def _seen(self, question: str, image: np.ndarray, read: ParsedAnswer, task: Task) -> Segmentation:
        height, width = image.shape[:2]
        self._count(read, task)
        listed = (read.instances or ())[: self.most_instances]
        inside = [one for one in (clip_to_image(one, height, width) for one in listed) if one is not None]
        if TARGETS_OF_TASK.get(task) == (Boxes,):
            return _boxes_themselves(question, inside, height, width)
        asked = without_doubles(inside)
        if asked:
            self.segmenter.set_image(image)
        seen = joined(self.segmenter.masks(asked) if asked else [], height, width)
        regions = seen.regions or ()
        return Segmentation(
            question,
            seen.mask,
            float(np.mean([region.score for region in regions])) if regions else 0.0,
            bool(regions),
            float(bool(listed)),
            given_regions=regions,
        )

    def _count(self, read: ParsedAnswer, task: Task) -> None:
        self.answered += 1
        in_words = self.prompter.template_for(task).form == "text"
        if read.answer if in_words else read.instances is not None:
            return
        self.failures += 1
        if self.failures == 1:
            logger.warning("an answer that cannot be read counts as an empty one, as all such will: %.80r", read.text)


def _boxes_themselves(question: str, inside: Sequence[Instance], height: int, width: int) -> Segmentation:
    """Returns what was written as the answer to a question about boxes; each fills a region of the mask."""
    boxed = [one for one in inside if one.box is not None or one.rotated_box is not None]
    seen = joined([PromptedMask(filled_box(one, height, width), 1.0) for one in boxed], height, width)
    there = bool(boxed)
    return Segmentation(
        question, seen.mask, float(there), there, float(there), given_regions=seen.regions,
        boxes=tuple(one.rotated_box or one.box or () for one in boxed),
    )  # fmt: skip
