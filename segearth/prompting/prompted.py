"""A vision-language model that points and a promptable segmenter that fills in, together a segmenter like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from segearth.errors import SegEarthError
from segearth.preprocessing.images import as_rgb
from segearth.prompting.answers import ParsedAnswer
from segearth.prompting.frames import clip_to_image
from segearth.prompting.promptable import PromptableSegmenter, joined, without_doubles
from segearth.prompting.prompter import TASKS_THAT_POINT, Prompter
from segearth.segmenter import DecidingSettings, ImageInput, SegmenterFacts, numbers_of_images, one_each
from segearth.structures import Segmentation, Task

logger = logging.getLogger(__name__)
MOST_INSTANCES = 100  # of one answer; a model that has lost its way can list thousands


class PromptedSegmenter:
    """The :class:`~segearth.segmenter.Segmenter` of the decoupled family, as Think2Seg-RS (arXiv 2512.19302) answers.

    The vision-language model writes boxes and points. Of two boxes for the same thing the smaller is dropped, the
    segmenter makes a mask of each that remains, and the masks are joined by OR. It has no raw scores: presence is 1
    where the model lists something, else 0, and an answer's score is the mean of what the segmenter expects of its
    masks.

    Attributes:
        failures: How many answers so far could not be read; each gave an empty mask.
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

    @property
    def facts(self) -> SegmenterFacts:
        """What others need to know; :meth:`predict` gives no logits, so there is nothing to decide."""
        size = self.prompter.template.frame.size if self.prompter.template.frame.in_pixels else None
        device = self.prompter.model.device.type
        return SegmenterFacts(side=max(size) if size else None, device=device, deciding=DecidingSettings())

    def set_image(self, image: ImageInput) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_image`."""
        self.set_images([image])

    def set_images(self, images: Sequence[ImageInput]) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_images`; images of all sizes can be set together."""
        self._images = []
        self._images = [as_rgb(image) for image in images]

    def predict(
        self,
        questions: str | Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
    ) -> Any:
        """See :meth:`segearth.segmenter.Segmenter.predict`. It has no logits: ``return_logits`` changes nothing.

        Returns:
            One :class:`~segearth.structures.Segmentation` for a question that is a text, else a list. Its regions are
            the things the model pointed at. With ``answer`` what the model wrote, its thought included; to tasks that
            are answered in words only the answer.

        Raises:
            SegEarthError: No image is set, or tasks or numbers of images do not fit the questions.
            UnknownNameError: There is no template for a task.
            QuestionError: A question is empty.
        """
        texts = [questions] if isinstance(questions, str) else list(questions)
        if not self._images:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        tasks: list[Task] = one_each(task, len(texts), "tasks")
        numbers = numbers_of_images(about, len(texts), len(self._images))
        read = self.prompter.ask([self._images[number] for number in numbers], texts, tasks)
        answers: dict[int, Segmentation] = {}
        # Image by image, so that the segmenter encodes each once however its questions are mixed.
        for place in sorted(range(len(texts)), key=lambda place: numbers[place]):
            found = self._seen(texts[place], self._images[numbers[place]], read[place], tasks[place])
            if answer:
                found.answer = read[place].text.strip() if tasks[place] in TASKS_THAT_POINT else read[place].answer
            answers[place] = found
        return answers[0] if isinstance(questions, str) else [answers[place] for place in range(len(texts))]

    def _seen(self, question: str, image: np.ndarray, read: ParsedAnswer, task: Task) -> Segmentation:
        height, width = image.shape[:2]
        self.answered += 1
        if read.instances is None and task in TASKS_THAT_POINT:
            self.failures += 1
            if self.failures == 1:
                logger.warning("an answer that cannot be read gives an empty mask, as all such will: %.80r", read.text)
        listed = (read.instances or ())[: self.most_instances]
        cut = [clip_to_image(one, height, width) for one in listed]
        asked = without_doubles([one for one in cut if one is not None])
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
